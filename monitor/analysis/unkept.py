"""Of which groups and topics something is to be kept for a restart that is not kept yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.analysis.changed import Changes
    from monitor.analysis.group_history import GroupHistory
    from monitor.analysis.measures import GroupMeasures
    from monitor.analysis.readers import Readers


class Unkept:
    """The names of them; `is_kept` says whether anybody takes them after each poll."""

    def __init__(self, *, is_kept: bool) -> None:
        self._is_kept = is_kept
        self.groups: set[str] = set()
        self.topics: set[str] = set()

    def note(
        self,
        measured: Iterable[tuple[GroupMeasures | None, GroupMeasures, GroupHistory]],
        changes: Changes,
        readers: Readers,
        topics_in_doubt: set[str],
    ) -> None:
        """Note what a poll found of the groups that were looked at: measures of before, and of now."""
        if not self._is_kept:
            self.take()
            return
        self.groups |= changes.groups
        for last, now, history in measured:
            if last is not now and (
                last is None
                or not history.losses.is_kept
                or last.activity != now.activity
                or last.rebalances != now.rebalances
                or last.not_consumed != now.not_consumed
            ):
                self.groups.add(now.group.id)
        self.topics |= changes.topics | topics_in_doubt
        for group_id in changes.groups:
            self.topics.update(readers.topics(group_id))

    def take(self) -> tuple[set[str], set[str]]:
        """Return the groups and the topics since the last call."""
        groups, topics = self.groups, self.topics
        self.groups, self.topics = set(), set()
        return groups, topics
