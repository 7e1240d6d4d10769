"""What is new about a cluster since the poll before, each as one line of a log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from monitor.model import Answered, Refused, Silent, Snapshot
from monitor.state import State

# Of what thousands share, so many are named.
MAX_NAMES: Final = 5
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
LOGIN_REFUSED: Final = "the login was refused"


@dataclass(frozen=True)
class Change:
    """Something that is otherwise than before; `level` is a number of the standard library's."""

    level: int
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def changes(before: State, now: State) -> Iterator[Change]:
    """Yield what has changed from one state to the next."""
    if now.error is not None and before.error is None:
        yield Change(ERROR, "polls fail", {"cause": now.error})
    elif now.error is None and before.error is not None:
        yield Change(INFO, "polls succeed again", {"cluster": now.cluster})
    new, old = now.snapshot, before.snapshot
    if new is None or new is old:
        return
    if old is None:
        counts = {"brokers": len(new.brokers), "topics": len(new.topics), "groups": len(new.groups)}
        yield Change(INFO, "the cluster was reached", {"cluster": now.cluster, **counts})
        old = Snapshot(new.cluster_id, 0.0, 0.0)
    yield from _brokers(old, new)
    yield from _parts("group", _unread_groups(old), _unread_groups(new))
    yield from _parts("partition", _refused(old), _refused(new))


def _brokers(old: Snapshot, new: Snapshot) -> Iterator[Change]:
    for broker, cause in new.broker_errors.items():
        is_login = cause.startswith(LOGIN_REFUSED)
        last = old.broker_errors.get(broker)
        if last is None or is_login != last.startswith(LOGIN_REFUSED):
            event = "a broker refused the login" if is_login else "a broker does not answer"
            told = {"broker": broker, "address": _address(new, broker), "cause": cause}
            yield Change(ERROR if is_login else WARNING, event, told)
    for broker in old.broker_errors.keys() - new.broker_errors.keys():
        if broker in new.brokers:
            told = {"broker": broker, "address": _address(new, broker)}
            yield Change(INFO, "a broker answers again", told)
    for broker in sorted(new.missing_brokers - old.missing_brokers):
        yield Change(WARNING, "a broker left the cluster's metadata", {"broker": broker})
    for broker in sorted(old.missing_brokers - new.missing_brokers):
        yield Change(INFO, "a broker is not missing any more", {"broker": broker})


def _address(snapshot: Snapshot, broker: int) -> str:
    known = snapshot.brokers.get(broker)
    return known.address if known else "unknown"


def _unread_groups(snapshot: Snapshot) -> Mapping[str, tuple[str, str]]:
    found = {}
    for group_id, group in snapshot.groups.items():
        match group.answer:
            case Answered():
                continue
            case Refused(error):
                found[group_id] = ("is refused", error)
            case Silent():
                found[group_id] = ("is not answered for", "its coordinator is silent")
    return found


def _refused(snapshot: Snapshot) -> Mapping[str, tuple[str, str]]:
    return {
        f"{topic}-{partition}": ("is refused", error)
        for topic, partitions in snapshot.end_offsets.refused.items()
        for partition, error in partitions.items()
    }


def _parts(
    kind: str, old: Mapping[str, tuple[str, str]], new: Mapping[str, tuple[str, str]]
) -> Iterator[Change]:
    """Yield one change for all that changed in the same way."""
    came = (name for name, what in new.items() if old.get(name) != what)
    for (event, cause), names in _by(new.__getitem__, came).items():
        yield Change(WARNING, f"a {kind} {event}", {"cause": cause, **_named(names)})
    if gone := sorted(old.keys() - new.keys()):
        yield Change(INFO, f"a {kind} is told again, or gone", _named(gone))


def _by(
    what: Callable[[str], tuple[str, str]], names: Iterable[str]
) -> Mapping[tuple[str, str], list[str]]:
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        found[what(name)].append(name)
    return found


def _named(names: list[str]) -> Mapping[str, Any]:
    return {"count": len(names), "names": sorted(names)[:MAX_NAMES]}
