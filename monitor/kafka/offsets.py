"""Offsets of all partitions: one question per leader, the answers joined into one view.

A partition whose leader did not answer, or no longer is its leader, keeps its last value: it is
silent. One that is refused has no value: it has no leader, may not be read, or its disk is broken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from monitor.kafka.apis.list_offsets import EARLIEST, LATEST, FoundOffsets, ListOffsets
from monitor.kafka.questions import Ask
from monitor.model import Offsets, Topic

# The bound of one reply: past it a question goes out as several.
MAX_PARTITIONS_PER_LIST: Final = 50_000
# The share of a question's time that the broker may spend on remote storage.
SEARCH_SHARE: Final = 0.7
# Why nobody is asked about a partition.
NO_LEADER: Final = "no leader"
# Errors of a partition that pass by themselves, or with newer metadata.
PASSING: Final = frozenset(
    {
        "UNKNOWN_TOPIC_OR_PARTITION",
        "NOT_LEADER_OR_FOLLOWER",
        "REQUEST_TIMED_OUT",
        "REPLICA_NOT_AVAILABLE",
        "FENCED_LEADER_EPOCH",
        "UNKNOWN_LEADER_EPOCH",
        "OFFSET_NOT_AVAILABLE",
        "UNKNOWN_TOPIC_ID",
    }
)


def timeout_ms(timeout_s: float) -> int:
    """Return how long a broker may search remote storage, so that it can still say that it failed.

    Where our own limit is reached first, the answers of all other partitions are lost with it.
    """
    return max(1, int(timeout_s * SEARCH_SHARE * 1_000))


class OffsetQuestions:
    """The questions about one view of the topics: asked at every poll, built only once.

    `leaderless` has the partitions that nobody is asked about, as `join` takes them.
    """

    def __init__(self, topics: Mapping[str, Topic], timeout_s: float) -> None:
        self._leaders = _by_leader(topics)
        limit_ms = timeout_ms(timeout_s)

        def asked(at: int, *, read_committed: bool = False) -> list[tuple[int, ListOffsets]]:
            # one object for all topics that have the same partitions there: most have
            times_of = lru_cache(maxsize=None)(lambda indexes: dict.fromkeys(indexes, at))
            return [
                (leader, ListOffsets(batch, read_committed, limit_ms))
                for leader, partitions in self._leaders.items()
                for batch in _batches(
                    {name: times_of(tuple(indexes)) for name, indexes in partitions.items()}
                )
            ]

        self.leaderless = {
            name: leaderless
            for name, topic in topics.items()
            if (
                leaderless := {
                    i: NO_LEADER for i, of in topic.partitions.items() if of.leader is None
                }
            )
        }
        self._latest = asked(LATEST)
        self._earliest = asked(EARLIEST)
        self._stable = asked(LATEST, read_committed=True)

    def latest(self) -> list[Ask[FoundOffsets]]:
        """Ask for the log end offsets (high watermarks)."""
        return [Ask(leader, question) for leader, question in self._latest]

    def earliest(self) -> list[Ask[FoundOffsets]]:
        """Ask for the log start offsets."""
        return [Ask(leader, question) for leader, question in self._earliest]

    def stable(self) -> list[Ask[FoundOffsets]]:
        """Ask for the last stable offsets."""
        return [Ask(leader, question) for leader, question in self._stable]


def ask_at_times(
    topics: Mapping[str, Topic], wanted: Mapping[str, Mapping[int, int]], timeout_s: float
) -> list[Ask[FoundOffsets]]:
    """Ask each leader for its partitions' offsets at these times, in milliseconds."""
    return [
        Ask(leader, ListOffsets(batch, timeout_ms=timeout_ms(timeout_s)))
        for leader, times_of in at_leaders(topics, wanted).items()
        for batch in _batches(times_of)
    ]


def at_leaders(
    topics: Mapping[str, Topic], wanted: Mapping[str, Mapping[int, int]]
) -> Mapping[int, dict[str, dict[int, int]]]:
    """Return by leader what is wanted of its partitions, in the same order; no leader, left out."""
    leaders: defaultdict[int, dict[str, dict[int, int]]] = defaultdict(dict)
    for name, values in wanted.items():
        partitions = topics[name].partitions if name in topics else {}
        for index, value in values.items():
            leader = partitions[index].leader if index in partitions else None
            if leader is not None:
                leaders[leader].setdefault(name, {})[index] = value
    return leaders


def join(
    asks: Iterable[Ask[FoundOffsets]],
    last: Offsets,
    topics: Mapping[str, Topic],
    leaderless: Mapping[str, Mapping[int, str]],
) -> Offsets:
    """Join what the leaders said with the last value of each partition whose leader did not."""
    answered = [(ask, ask.answer) for ask in asks if ask.answer is not None]
    # the same objects as before where nothing changed: what was made of them is still right
    values = {
        topic: known if (known := last.values.get(topic)) == offsets else offsets
        for topic, offsets in _merge([answer for _, answer in answered]).items()
    }
    seen_at = min((ask.answered_at for ask, _ in answered), default=last.seen_at)
    refused = _refused([answer for _, answer in answered], leaderless)
    silent = _keep_unanswered(values, last, topics, refused)
    return Offsets(last.values if values == last.values else values, seen_at, silent, refused)


def silenced(last: Offsets) -> Offsets:
    """Return the offsets as they were, none of them seen now."""
    since = {
        name: {index: last.time_of(name, index) for index in of} for name, of in last.values.items()
    }
    return replace(last, silent=since)


def created_anew(ends: Offsets, last_ends: Offsets, starts: Offsets) -> frozenset[str]:
    """Return the topics of which an end went back, or a start is past its end.

    They were deleted and created anew (or cut off by an unclean election): what was known of their
    logs is of others.
    """
    return frozenset(
        topic
        for topic, now in ends.values.items()
        # the same object says that nothing changed, as for most
        if now is not (before := last_ends.values.get(topic))
        and (_went_back(now, before) or _is_past(starts.values.get(topic), now))
    )


def without(offsets: Offsets, topics: frozenset[str]) -> Offsets:
    """Return the offsets of all other topics."""
    if topics.isdisjoint(offsets.values) and topics.isdisjoint(offsets.silent):
        return offsets
    return replace(
        offsets,
        values={name: of for name, of in offsets.values.items() if name not in topics},
        silent={name: of for name, of in offsets.silent.items() if name not in topics},
    )


def _went_back(now: Mapping[int, int], before: Mapping[int, int] | None) -> bool:
    if before is None:
        return False
    return any(end < before.get(index, end) for index, end in now.items())


def _is_past(starts: Mapping[int, int] | None, ends: Mapping[int, int]) -> bool:
    if starts is None:
        return False
    return any(start > ends.get(index, start) for index, start in starts.items())


def leader_moved(asks: Iterable[Ask[FoundOffsets]]) -> bool:
    """Say whether a broker no longer leads what it was asked about."""
    return any(ask.answer is not None and ask.answer.leader_moved for ask in asks)


def _by_leader(topics: Mapping[str, Topic]) -> Mapping[int, Mapping[str, Sequence[int]]]:
    leaders: defaultdict[int, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name, topic in topics.items():
        for index, partition in topic.partitions.items():
            if partition.leader is not None:
                leaders[partition.leader][name].append(index)
    return leaders


def _batches(topics: Mapping[str, dict[int, int]]) -> Iterator[Mapping[str, dict[int, int]]]:
    batch: dict[str, dict[int, int]] = {}
    size = 0
    for name, partitions in topics.items():
        if batch and size + len(partitions) > MAX_PARTITIONS_PER_LIST:
            yield batch
            batch, size = {}, 0
        batch[name] = partitions
        size += len(partitions)
    if batch:
        yield batch


def _merge(answers: Sequence[FoundOffsets]) -> dict[str, dict[int, int]]:
    values: dict[str, dict[int, int]] = {}
    for answer in answers:
        for topic, offsets in answer.offsets.items():
            if topic in values:
                values[topic].update(offsets)
            else:
                values[topic] = offsets
    return values


def _refused(
    answers: Iterable[FoundOffsets], leaderless: Mapping[str, Mapping[int, str]]
) -> Mapping[str, Mapping[int, str]]:
    """Return why partitions have no offset; errors that pass by themselves are not among them."""
    lasting: dict[str, dict[int, str]] = {}
    for answer in answers:
        for topic, errors in answer.errors.items():
            for index, error in errors.items():
                if error not in PASSING:
                    lasting.setdefault(topic, {})[index] = error
    return {
        topic: {**leaderless.get(topic, {}), **lasting.get(topic, {})}
        for topic in (*leaderless, *lasting)
    }


def _keep_unanswered(
    values: dict[str, Mapping[int, int]],
    last: Offsets,
    topics: Mapping[str, Topic],
    refused: Mapping[str, Mapping[int, str]],
) -> dict[str, dict[int, float]]:
    """Put the last seen value where none was seen now; return when those were seen."""
    silent: dict[str, dict[int, float]] = {}
    for name, topic in topics.items():
        now = values.get(name)
        if now is not None and len(now) == len(topic.partitions):
            continue
        without = refused.get(name, ())
        kept = {
            index: offset
            for index, offset in last.values.get(name, {}).items()
            if index in topic.partitions
            and (now is None or index not in now)
            and index not in without
        }
        if kept:
            values[name] = {**kept, **(now or {})}
            silent[name] = {index: last.time_of(name, index) for index in kept}
    return silent
