"""What groups have not read: the lag of each in messages, and what of it can be read where it stands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from monitor.analysis.lag import GroupLag, lag_of_group
from monitor.analysis.positions import positions, unread_of, with_readable_ends
from monitor.analysis.readable import MAX_LOOKS, ReadableLogs
from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from monitor.analysis.readable import Position, Readable
    from monitor.analysis.readers import Readers
    from monitor.analysis.windows import CommitWindows
    from monitor.guard import Guard
    from monitor.model import Group, LogLook, PartitionOffsets, Snapshot

LookAtLogs: TypeAlias = "Callable[[PartitionOffsets], Mapping[str, Mapping[int, LogLook]]]"


class Unread:
    """Finds the lags of groups, poll by poll, and notes with the readers where they stand.

    Logs are looked into by `look_at_logs`; where that is None, all that is there counts as readable.
    """

    def __init__(self, readers: Readers, look_at_logs: LookAtLogs | None, guard: Guard) -> None:
        self._readers = readers
        self._look_at_logs = look_at_logs
        self._guard = guard
        self._logs = ReadableLogs(guard)

    def lags(
        self,
        snapshot: Snapshot,
        groups: Iterable[tuple[Group, CommitWindows, PartitionOffsets]],
        ends: PartitionOffsets,
        topics: Collection[str],
    ) -> dict[str, GroupLag | None]:
        """Return the lag of each group by its id, None where it failed.

        A group comes with its windows and its commits at the poll before; `ends` are the log ends
        that were told in this one. What is known of `topics`, all that these groups read among them,
        is looked at anew.
        """
        lags: dict[str, tuple[Group, GroupLag | None, list[Position] | None]] = {}
        caught_up: dict[str, dict[int, int]] = {}
        for group, windows, before in groups:
            lag = self._guard.attempt("lag", group.id, lag_of_group, group, snapshot, caught_up)
            stands: list[Position] | None = None
            if lag is not None and (lag.total or snapshot.stable_offsets.values):
                stands = self._guard.attempt(
                    "positions", group.id, positions,
                    snapshot, group, lag, ends=ends, before=before, windows=windows,
                )  # fmt: skip
            self._readers.stand(group.id, stands or ())
            lags[group.id] = group, lag, stands
        self._look(topics)
        return {name: self._read(snapshot, *of) for name, of in lags.items()}

    def _look(self, topics: Iterable[str]) -> None:
        """Look into the logs where groups stand."""
        self._logs.observe({topic: self._readers.positions(topic) for topic in topics})
        for _ in range(MAX_LOOKS if self._look_at_logs else 0):
            asked = self._logs.questions()
            if not asked or self._look_at_logs is None:
                break
            replies = self._guard.attempt("looks", "", self._look_at_logs, asked)
            if replies is None:
                break
            self._logs.answers(replies)

    def _read(
        self,
        snapshot: Snapshot,
        group: Group,
        lag: GroupLag | None,
        stands: Collection[Position] | None,
    ) -> GroupLag | None:
        """Return the lag of a group with what of it can be read where it stands."""
        readable: Mapping[str, Mapping[int, Readable]] | None = None
        if stands is not None:
            readable = self._guard.attempt("looks", group.id, self._readable_at, snapshot, stands)
        self._readers.can_read(group.id, readable or nothing())
        if lag is None or readable is None:
            return lag
        unread = self._guard.attempt("looks", group.id, unread_of, snapshot, group, lag, readable)
        return replace(lag, unread=unread) if unread else lag

    def _readable_at(
        self, snapshot: Snapshot, stands: Collection[Position]
    ) -> dict[str, dict[int, Readable]]:
        return with_readable_ends(
            snapshot, ((position, self._logs.of(position)) for position in stands)
        )

    def topics_in_doubt(self) -> set[str]:
        """Return the topics of which the next poll may tell more, without anything happening there."""
        return self._logs.topics_in_doubt()

    def forget(self, topic: str) -> None:
        """Drop a topic that was deleted, or created anew under its name."""
        self._logs.forget(topic)
