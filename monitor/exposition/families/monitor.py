"""What the monitor tells of itself: its polls, and the parts of its work that fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Final

from monitor.every import one_line
from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric
from monitor.exposition.series import Block, Samples, Values
from monitor.exposition.version import VERSION
from monitor.guard import Failure
from monitor.model import Snapshot
from monitor.state import State


def _monitor(
    name: str, text: str, unit: str = "", labels: tuple[str, ...] = ("cluster",), when: str = ""
) -> Metric:
    return Metric(f"kafka_monitor_{name}", "gauge", text, labels, unit, when=when)


UP = _monitor("up", "1 while the last poll reached at least one broker.")
POLL_FAILED = _monitor(
    "poll_failed",
    "1 while the last poll failed, with its cause: what is shown is an earlier poll's, and ages.",
    labels=("cluster", "error"),
    when="the last poll failed",
)
POLL_ERRORS = _monitor(
    "poll_errors",
    "1 for each cause for which the last poll lacks figures, or doubts them: of a broker that did not "
    "answer, or (with an empty broker) of the cluster as a whole.",
    labels=("cluster", "broker", "error"),
    when="the last poll was not answered in full",
)
INTERNAL_ERRORS = _monitor(
    "internal_errors",
    "1 while a step of the monitor's own work fails for a subject (a group, a topic, a family of "
    "metrics; empty for the step as a whole): its figures are absent, all others stand.",
    labels=("cluster", "step", "subject"),
    when="a part of the monitor's own work fails",
)
RELOAD_SUCCESSFUL = _monitor(
    "config_last_reload_successful",
    "1 if the settings could be used when they were read last, 0 if those before are still in force.",
    labels=(),
)
RELOADED_AT = _monitor(
    "config_last_reload_success_timestamp_seconds",
    "Unix time at which the settings in force were read.",
    "seconds",
    labels=(),
)
POLL_INTERVAL = _monitor("poll_interval_seconds", "Time between two polls.", "seconds")
POLL_DURATION = _monitor(
    "poll_duration_seconds", "How long the last poll took, analysis included.", "seconds"
)
POLL_REQUESTS = _monitor(
    "poll_requests", "Requests that the last poll sent, by API.", labels=("cluster", "api")
)
LAST_POLL = _monitor(
    "last_poll_timestamp_seconds", "When the last poll that reached a broker ended.", "seconds"
)
DATA_AGE = _monitor(
    "data_age_seconds",
    "Age of the oldest offset or commit that is shown, when this page was sent.",
    "seconds",
)
STALE_PARTITIONS = _monitor(
    "stale_partitions",
    "Partitions whose log end offset is an earlier poll's, as their broker does not answer.",
)
STALE_GROUPS = _monitor(
    "stale_groups",
    "Groups whose commits are an earlier poll's, as their coordinator does not answer.",
)
GROUP_ERRORS = _monitor("group_errors", "Groups of which something could not be read.")
BROKER_UP = _monitor(
    "broker_up",
    "1 while the broker answered all questions of the last poll, else 0; also 0 for one that left the "
    "cluster's metadata while partitions still name it as a replica.",
    labels=("broker",),
)
BUILD_INFO = _monitor("build_info", "The monitor's version; always 1.", labels=("version",))

# As many parts are named; one fault in the program may hit every group of a large cluster.
MAX_NAMED: Final = 100


def samples(state: State, poll_interval_s: float | None) -> Samples:
    """Return what is told of the last poll, and of all that it saw: also of what is not shown."""
    cluster = (state.cluster,)
    found: defaultdict[Metric, Values] = defaultdict(dict)
    found[BUILD_INFO][VERSION,] = 1
    found[UP][cluster] = int(state.up)
    if state.error is not None:
        found[POLL_FAILED][state.cluster, one_line(state.error)] = 1
    if poll_interval_s is not None:
        found[POLL_INTERVAL][cluster] = poll_interval_s
    if state.succeeded_at is not None:
        found[LAST_POLL][cluster] = state.succeeded_at
    snapshot = state.snapshot
    if snapshot is None:
        return dict(found)
    found[POLL_DURATION][cluster] = round(state.duration_seconds, 6)
    for api, count in snapshot.requests.items():
        found[POLL_REQUESTS][state.cluster, api] = count
    silent = snapshot.end_offsets.silent.values()
    found[STALE_PARTITIONS][cluster] = sum(map(len, silent))
    groups = snapshot.groups.values()
    found[STALE_GROUPS][cluster] = sum(group.is_silent for group in groups)
    for broker, cause in snapshot.broker_errors.items():
        found[POLL_ERRORS][state.cluster, str(broker), one_line(cause)] = 1
    for error in snapshot.errors[:MAX_NAMED]:
        found[POLL_ERRORS][state.cluster, "", one_line(error)] = 1
    found[GROUP_ERRORS][cluster] = sum(group.error is not None for group in groups)
    return dict(found)


def faults(cluster: str, failed: Callable[[], Collection[Failure]]) -> Block:
    """Return the parts that failed up to the moment in which this is rendered."""
    return Block((), lambda: _faults(cluster, failed()), name="faults")


def _faults(cluster: str, failed: Collection[Failure]) -> Samples:
    found: Values = {(cluster, *part): 1 for part in sorted(failed)[:MAX_NAMED]}
    if len(failed) > MAX_NAMED:
        found[cluster, "others", ""] = 1
    return {INTERNAL_ERRORS: found}


def _cluster(state: State) -> Iterator[Block]:
    snapshot = state.snapshot
    if snapshot is not None:
        yield Block((), lambda: _brokers(snapshot), name="brokers")


def _brokers(snapshot: Snapshot) -> Samples:
    return {
        BROKER_UP: {
            **{
                (str(broker),): int(broker not in snapshot.broker_errors)
                for broker in snapshot.brokers
            },
            **{(str(broker),): 0 for broker in snapshot.missing_brokers},
        }
    }


FAMILY: Final = Family(
    "monitor",
    "About the monitor itself; always on.",
    tuple(value for value in tuple(globals().values()) if isinstance(value, Metric)),
    cluster=_cluster,
    is_always_on=True,
)
