from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.activity import (
    SHORTEST_PATIENCE_SECONDS,
    STUCK_SECONDS,
    UNKNOWN_RHYTHM_SECONDS,
    Activity,
    GroupActivity,
    not_consumed,
)

POLL_S = 15.0
WINDOW_S = 150.0


class Watch:
    """One group, poll by poll."""

    def __init__(self) -> None:
        self.activity = GroupActivity()
        self.last: float | None = None
        self.now = 1_000.0

    def see(
        self,
        committed: int | Mapping[int, int],
        unread: int | Mapping[int, int] = 0,
        members: int | None = 1,
        *,
        polls: int = 1,
    ) -> Activity:
        commits = {"t": {0: committed} if isinstance(committed, int) else committed}
        lags = {"t": {0: unread} if isinstance(unread, int) else unread}
        for _ in range(polls):
            self.now += POLL_S
            found = self.activity.observe(
                commits, lags, members, now=self.now, last_poll=self.last, window=WINDOW_S
            )
            self.last = self.now
        return found

    def miss(self, polls: int) -> None:
        for _ in range(polls):
            self.now += POLL_S
            self.activity.miss()
            self.last = self.now


def test_members_make_a_group_active_and_their_absence_counts_only_if_there_were_any() -> None:
    watch = Watch()
    assert watch.see(1, members=0).by_members is None
    assert watch.see(1, members=2).by_members is True
    assert watch.see(1, members=0).by_members is False
    assert watch.see(1, members=None).by_members is None


def test_commits_that_move_without_members_are_consumption() -> None:
    watch = Watch()
    assert watch.see(1, 9, members=0).by_commits is None
    assert watch.see(2, 9, members=0).by_commits is None  # an operator may have moved it
    assert watch.see(3, 9, members=0).by_commits is True
    assert watch.see(3, 9, members=0, polls=10).by_commits is True
    assert watch.see(3, 9, members=0).by_commits is False
    assert watch.see(4, 9, members=0).by_commits is True


def test_a_commit_of_members_that_are_gone_makes_no_consumer_without_members() -> None:
    watch = Watch()
    for committed in range(5):
        watch.see(committed, 9)
    found = watch.see(5, 9, members=0)
    assert (found.by_members, found.by_commits) == (False, None)


def test_one_who_commits_without_members_and_has_nothing_to_read_is_waited_for_when_it_has() -> (
    None
):
    watch = Watch()
    for committed in range(4):
        watch.see(committed, members=0)
    assert watch.see(3, members=0, polls=40).by_commits is False
    assert watch.see(3, 1, members=0).by_commits is True
    assert watch.see(3, 1, members=0, polls=11).by_commits is False


def test_patience_is_twice_the_longest_wait_once_a_whole_one_was_seen() -> None:
    watch = Watch()
    assert watch.see(1, 9, polls=40).patience == UNKNOWN_RHYTHM_SECONDS
    # it may have been waiting for long before it was watched
    assert watch.see(2, 9).patience == UNKNOWN_RHYTHM_SECONDS
    watch.see(2, 9, polls=239)
    assert watch.see(3, 9).patience == 2 * 3_600
    assert watch.see(4, 9).patience == 2 * 3_600


def test_who_commits_at_once_is_waited_for_a_minute_however_quiet_its_topic_is() -> None:
    watch = Watch()
    for committed in range(5):
        found = watch.see(committed, 0, polls=200)
    assert found.patience == SHORTEST_PATIENCE_SECONDS


def test_a_wait_for_members_that_are_away_or_for_a_silent_coordinator_tells_no_rhythm() -> None:
    watch = Watch()
    for committed in range(5):
        watch.see(committed, 9)
    watch.see(5, 9, members=0, polls=500)
    assert watch.see(5, 9).patience == SHORTEST_PATIENCE_SECONDS
    assert watch.see(6, 9).patience == SHORTEST_PATIENCE_SECONDS
    watch.miss(polls=500)
    assert watch.see(7, 9).patience == SHORTEST_PATIENCE_SECONDS
    assert watch.see(8, 9).patience == SHORTEST_PATIENCE_SECONDS


def test_an_outage_does_not_make_a_group_patient_for_ever() -> None:
    watch = Watch()
    committed = 0
    for _ in range(3):
        committed += 1
        watch.see(committed, 9)
    watch.see(committed, 9, polls=400)
    committed += 1
    assert watch.see(committed, 9).patience > 6_000
    for _ in range(3):
        watch.see(committed, 0, polls=4 * 1_440 * 4 // 3)
        committed += 1
        found = watch.see(committed, 9)
        committed += 1
        found = watch.see(committed, 9)
    assert found.patience == SHORTEST_PATIENCE_SECONDS


def test_a_partition_that_stands_still_for_long_is_stuck_whatever_the_others_do() -> None:
    watch = Watch()
    for committed in range(3):
        watch.see({0: committed, 1: 7}, {0: 9, 1: 1})
    stuck_after = int(STUCK_SECONDS / POLL_S)
    for committed in range(3, stuck_after + 1):
        found = watch.see({0: committed, 1: 7}, {0: 9, 1: 1})
        assert found.stuck("t", watch.now) == []
    for committed in range(stuck_after + 1, stuck_after + 4):
        found = watch.see({0: committed, 1: 7}, {0: 9, 1: 1})
    (since,) = found.stuck("t", watch.now)
    assert watch.now - since > STUCK_SECONDS
    assert watch.see({0: 99, 1: 8}, {0: 9, 1: 1}).stuck("t", watch.now) == []


def test_a_record_that_has_just_come_to_a_quiet_partition_makes_nobody_stuck() -> None:
    watch = Watch()
    for committed in range(5):
        watch.see(committed, 0)
    watch.see(4, 0, polls=1_000)
    assert watch.see(4, 1, polls=40).stuck("t", watch.now) == []
    assert len(watch.see(4, 1, polls=3).stuck("t", watch.now)) == 1


def test_a_step_back_is_a_rewind() -> None:
    watch = Watch()
    watch.see({0: 9, 1: 9})
    assert watch.see({0: 5, 1: 9}).rewinds == {"t": 1}
    assert watch.see({0: 4, 1: 4}).rewinds == {"t": 3}
    assert watch.see({0: 9, 1: 9}).rewinds == {"t": 3}


def test_a_commit_on_a_topic_created_anew_is_no_rewind_but_the_next_step_back_is() -> None:
    watch = Watch()
    watch.see({0: 500, 1: 500})
    watch.activity.replace_topic("t")
    watch.see({0: 500, 1: 500}, polls=3)  # the commits on the old topic are left
    assert watch.see({0: 3, 1: 500}).rewinds == {}
    assert watch.see({0: 9, 1: 6}).rewinds == {}
    assert watch.see({0: 8, 1: 6}).rewinds == {"t": 1}


@pytest.mark.parametrize(
    ("held", "changed_at", "left"),
    [
        (("b",), {}, {"a"}),
        (("a", "b"), {}, set()),
        ((), {}, set()),  # what holds nothing at all may get its partitions yet
        (("b",), {"a": 101.0}, set()),  # somebody commits there
        (("b",), {"a": 100.0}, {"a"}),
    ],
)
def test_topics_that_members_hold_nothing_of_and_commit_nothing_on_are_not_consumed(
    held: tuple[str, ...], changed_at: dict[str, float], left: set[str]
) -> None:
    assert not_consumed(("a", "b"), held, changed_at, recent=100.0) == left


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([None, 0, 1])),
        min_size=1,
        max_size=60,
    )
)
def test_whatever_happens_counters_never_fall_and_nothing_is_negative(
    steps: list[tuple[int, int, int | None]],
) -> None:
    watch, rewinds = Watch(), 0
    for committed, unread, members in steps:
        found = watch.see(committed, unread, members)
        assert found.patience >= SHORTEST_PATIENCE_SECONDS
        assert found.rewinds.get("t", 0) >= rewinds
        rewinds = found.rewinds.get("t", 0)
        assert found.waiting.keys() <= {"t"}
        assert all(watch.now - since >= 0 for since in found.waiting.get("t", {}).values())
        assert (members == 0) or not found.by_commits
