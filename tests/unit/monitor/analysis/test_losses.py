from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from monitor.analysis.losses import Losses, unread_deleted

END = 1_000


class Watch:
    """One partition of one group, poll by poll."""

    def __init__(self) -> None:
        self.losses = Losses()
        self.now = 0.0

    def see(self, committed: int | None, start: int | None, end: int = END) -> int:
        self.now += 15
        starts = {} if start is None else {"t": {0: start}}
        commits = {1: 5} if committed is None else {0: committed, 1: 5}
        self.losses.observe({"t": commits}, starts, {"t": {0: end}}, self.now)
        return self.losses.lost.get("t", 0)


def test_what_was_deleted_unread_is_counted_once_and_stays_counted() -> None:
    watch = Watch()
    assert watch.see(10, 0) == 0
    assert watch.see(10, 15) == 5
    assert watch.see(10, 15) == 5
    assert watch.see(10, 18) == 8
    assert watch.see(18, 18) == 8
    assert watch.see(END, END) == 8


def test_what_was_lost_before_the_first_look_is_not_counted_but_stands_in_the_gauge() -> None:
    watch = Watch()
    assert watch.see(900, 1_000) == 0
    assert unread_deleted({0: 900}, {0: 1_000}, {0: 1_000}) == 100
    assert watch.see(900, 1_020, 1_020) == 20


def test_what_came_and_was_deleted_between_two_looks_at_a_group_at_the_end_is_counted_from_0() -> (
    None
):
    watch = Watch()
    assert watch.see(10, 0, 10) == 0
    assert watch.see(10, 5_010, 10_010) == 5_000


def test_each_topic_of_a_group_is_counted_by_its_own_log() -> None:
    losses = Losses()
    commits = {"a": {0: 10}, "b": {0: 10}, "c": {0: 10}}
    for start in (0, 15):
        starts = {"a": {0: start}, "b": {0: start + start // 5}, "c": {0: start // 5}}
        losses.observe(commits, starts, {key: {0: END} for key in commits}, float(start))
    assert losses.lost == {"a": 5, "b": 8}


def test_a_rewind_into_what_was_counted_loses_nothing_twice() -> None:
    watch = Watch()
    watch.see(10, 0)
    assert watch.see(10, 15) == 5
    assert watch.see(0, 15) == 5


def test_a_start_past_the_end_is_an_older_logs_and_counts_nothing() -> None:
    watch = Watch()
    assert watch.see(5_500, 5_000, 6_000) == 0
    assert watch.see(0, 5_000, 10) == 0
    assert unread_deleted({0: 0}, {0: 5_000}, {0: 10}) is None
    assert watch.see(0, 0, 10) == 0
    assert watch.see(0, 4, 10) == 4  # a loss of the new log, below what was counted of the old


def test_a_log_start_that_moved_back_begins_another_log() -> None:
    watch = Watch()
    watch.see(5_500, 5_000, 6_000)
    assert watch.see(3, 0, 7_000) == 0
    assert watch.see(3, 10, 7_000) == 7


def test_a_start_that_is_not_told_for_a_while_hides_no_loss() -> None:
    watch = Watch()
    watch.see(10, 0)
    assert watch.see(10, None) == 0
    assert watch.see(10, 30) == 20


def test_a_first_commit_below_a_start_that_moved_unseen_may_have_come_after_it_moved() -> None:
    watch = Watch()
    watch.see(None, 0)
    watch.see(None, None)
    watch.see(4, None)
    assert watch.see(4, 10) == 0
    assert watch.see(4, 12) == 2


def test_a_rewind_below_a_start_that_moved_unseen_may_have_come_after_it_moved() -> None:
    watch = Watch()
    watch.see(50, 0)
    watch.see(50, None)
    watch.see(20, None)
    assert watch.see(20, 40) == 0
    assert watch.see(20, 45) == 5


def test_a_restart_goes_on_from_what_was_committed() -> None:
    watch = Watch()
    watch.see(10, 0)
    watch.losses = Losses.restored(watch.losses.export(), {"t": {0: 10, 1: 5}}, 0.0)
    assert watch.see(10, 15) == 5


def test_a_topic_created_anew_starts_anew_and_the_counter_does_not_fall() -> None:
    watch = Watch()
    watch.see(10, 0)
    assert watch.see(10, 15) == 5
    watch.losses.forget("t")
    assert watch.see(0, 500) == 5
    assert watch.see(0, 501) == 6


def test_a_loss_is_told_with_when_it_was_last_seen_to_grow() -> None:
    watch = Watch()
    watch.see(10, 0)
    assert watch.losses.lost_at.get("t") is None
    watch.see(10, 15)
    assert watch.losses.lost_at.get("t") == 30
    watch.see(10, 15)
    assert watch.losses.lost_at.get("t") == 30
    old = Watch()
    old.see(10, 15)
    assert old.losses.lost_at.get("t") == 15  # an old one is told from the first look on


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "delete", "append", "rewind", "recreate"]),
        st.integers(1, 50),
        st.booleans(),
    ),
    max_size=40,
)


@example(
    [("recreate", 1, False), ("rewind", 60, False), ("read", 1, True), ("delete", 1, True),
     ("rewind", 1, False)]
)  # fmt: skip
@given(STEPS)
def test_the_counter_starts_at_0_never_falls_and_counts_no_more_than_was_deleted_unread(
    steps: list[tuple[str, int, bool]],
) -> None:
    watch = Watch()
    committed, start, end = 50, 10, 100
    last = watch.see(committed, start, end)
    assert last == 0
    deleted = 0
    for step, amount, hidden in steps:
        if step == "read":
            committed = min(max(committed, start) + amount, end)
        elif step == "append":
            end += amount
        elif step == "rewind":
            committed = max(0, committed - amount)
        elif step == "delete":
            before, start = start, min(start + amount, end)
            deleted += max(0, start - max(committed, before))
        elif step == "recreate":
            start, end = 0, amount
        now = watch.see(committed, None if hidden else start, end)
        assert last <= now <= deleted
        last = now
