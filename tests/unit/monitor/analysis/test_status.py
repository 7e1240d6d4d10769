"""Burrow's rules, each with its edges, then windows as polls build them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.status import (
    GroupStatus,
    Status,
    StatusRules,
    group_status,
    window_status,
)
from monitor.analysis.topic import EndWindow, TopicLog
from monitor.analysis.windows import NO_LAG_KNOWN, CommitWindow, CommitWindows

UNKNOWN = NO_LAG_KNOWN


def window(*commits: tuple[int, int, int]) -> CommitWindow:
    """Commits as (time in s, offset, lag)."""
    packed = array("q", (1, 0))
    for time, offset, lag in commits:
        packed.extend((time * 1000, offset, lag))
    return CommitWindow(packed, poll=10)


GROWING = ((100, 1000, 50), (200, 2000, 100), (300, 3000, 150), (400, 4000, 200), (500, 5000, 250))
EVEN = ((100, 1000, 90), (200, 2000, 90), (300, 3000, 90))
SHRINKING = ((100, 1000, 90), (200, 2000, 80), (300, 3000, 85))
STALLED = ((100, 1000, 50), (200, 1000, 90), (300, 1000, 130))
REWOUND = ((100, 1000, 50), (200, 3000, 100), (300, 2000, 1200), (400, 2500, 900))


@dataclass(frozen=True)
class Case:
    name: str
    commits: tuple[tuple[int, int, int], ...]
    now: int
    expected: Status
    current_lag: int = 250
    broker_offsets: tuple[int, ...] = (9000,)
    allowed_lag: int = 0
    patience: int = 0


CASES = [
    Case("no current lag is OK whatever the window says", REWOUND, 9999, Status.OK, current_lag=0),
    Case("lag at the allowed lag is OK", STALLED, 301, Status.OK, 130, allowed_lag=130),
    Case("lag above the allowed lag is judged", STALLED, 301, Status.STALL, 131, allowed_lag=49),
    Case("no commits at all are OK", (), 500, Status.OK),
    # STOP
    Case("silence longer than the window is STOP", GROWING, 901, Status.STOP),
    Case("silence as long as the window is not yet STOP", GROWING, 900, Status.WARN),
    Case("STOP comes before REWIND", REWOUND, 1000, Status.STOP),
    Case("STOP comes before STALL", STALLED, 1000, Status.STOP),
    Case("STOP counts although lag was zero once", ((100, 1, 0), (200, 2, 9)), 301, Status.STOP),
    Case("one commit is stopped at once", ((100, 1000, 50),), 101, Status.STOP),
    Case(
        "a log end at the commit recently holds STOP back",
        GROWING,
        9999,
        Status.WARN,
        broker_offsets=(5000, 5100, 5250),
    ),
    Case(
        "a log end before the commit recently holds STOP back too",
        GROWING,
        9999,
        Status.WARN,
        broker_offsets=(5250, 4999),
    ),
    Case(
        "a log end just past the commit does not",
        GROWING,
        9999,
        Status.STOP,
        broker_offsets=(5001,),
    ),
    Case("without log ends nothing holds it back", GROWING, 9999, Status.STOP, broker_offsets=()),
    # REWIND
    Case("a step back is REWIND", REWOUND, 401, Status.REWIND),
    Case(
        "a step back that was made good is not",
        ((100, 1000, 50), (200, 900, 200), (300, 1000, 250)),
        301,
        Status.WARN,
    ),
    Case(
        "made good before a second step back counts for the first only",
        ((100, 50, 9), (200, 40, 9), (300, 60, 9), (400, 10, 9)),
        401,
        Status.WARN,
    ),
    Case("REWIND counts although lag was zero once", ((1, 9, 0), (2, 5, 4)), 2, Status.REWIND),
    # zero lag in the window
    Case("zero lag in the window is OK", ((100, 1, 0), (200, 2, 50), (300, 3, 99)), 301, Status.OK),
    Case("zero lag excuses a stall", ((100, 1, 0), (200, 1, 50)), 201, Status.OK),
    Case("allowed lag in the window is OK", STALLED, 301, Status.OK, allowed_lag=50),
    Case(
        "lag that was not known is not zero",
        ((100, 1, UNKNOWN), (200, 1, 50), (300, 1, UNKNOWN)),
        301,
        Status.STALL,
    ),
    # STALL
    Case("the same offset with lag is STALL", STALLED, 301, Status.STALL),
    Case("STALL too while the lag stands", ((1, 5, 9), (2, 5, 9), (3, 5, 9)), 3, Status.STALL),
    # patience
    Case("one commit tells of no rhythm", ((100, 1000, 50),), 160, Status.OK, patience=60),
    Case(
        "one commit is STOP beyond the patience", ((100, 1000, 50),), 161, Status.STOP, patience=60
    ),
    Case("silence that is usual is not STOP", GROWING, 1200, Status.WARN, patience=700),
    Case("silence that is not usual is", GROWING, 1201, Status.STOP, patience=700),
    Case("patience shorter than the window is nothing", GROWING, 901, Status.STOP, patience=60),
    # WARN
    Case("lag that grows is WARN", GROWING, 501, Status.WARN),
    Case("lag that never shrinks is WARN", EVEN, 301, Status.WARN),
    Case("lag that shrinks once is OK", SHRINKING, 301, Status.OK),
    Case(
        "unknown lag between two is skipped",
        ((1, 1, 90), (2, 2, UNKNOWN), (3, 3, 80)),
        4,
        Status.OK,
    ),
    Case(
        "known lags that grow around an unknown one are WARN",
        ((1, 1, 80), (2, 2, UNKNOWN), (3, 3, 90)),
        4,
        Status.WARN,
    ),
    Case("no lag known at all is WARN", ((1, 1, UNKNOWN), (2, 2, UNKNOWN)), 3, Status.WARN),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case: Case) -> None:
    status = window_status(
        window(*case.commits),
        case.broker_offsets,
        current_lag=case.current_lag,
        now_ms=case.now * 1000,
        allowed_lag=case.allowed_lag,
        patience_ms=case.patience * 1000,
    )
    assert status is case.expected


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(-1, 99)), max_size=10), st.integers(0, 9))
def test_a_partition_without_lag_is_never_worse_than_ok(
    commits: list[tuple[int, int]], now: int
) -> None:
    found = window(*((i, offset, lag) for i, (offset, lag) in enumerate(commits)))
    assert window_status(found, [], current_lag=0, now_ms=now * 1000) is Status.OK


class Polls:
    """A group on one topic, polled every 15 s."""

    def __init__(self, *, minimum_complete: float = 1.0) -> None:
        self.commits = CommitWindows()
        self.topics = {"t": TopicLog()}
        self.count = 0
        self.rules = StatusRules(minimum_complete=minimum_complete)
        self.now = 0.0

    def poll(
        self,
        committed: dict[int, int],
        ends: dict[int, int],
        *,
        seconds: float = 15.0,
    ) -> GroupStatus:
        self.now += seconds
        self.count += 1
        self.topics["t"].ends.see(ends, self.now, self.now - 9 * 15)
        self.commits.observe({"t": committed}, {"t": ends}, self.now, self.count)
        return group_status(
            {"t": committed},
            {"t": ends},
            self.commits,
            self.topics,
            now=self.now,
            poll=self.count,
            rules=self.rules,
        )

    def window(self, partition: int) -> CommitWindow | None:
        return self.commits.all(self.count).get("t", {}).get(partition)


def test_a_consumer_that_stops_is_stop_and_its_group_err() -> None:
    polls = Polls()
    for i in range(10):
        polls.poll({0: 100 * i}, {0: 100 * i + 50})
    found = [polls.poll({0: 900}, {0: 1000 + 100 * i}) for i in range(12)]
    assert found[0].status <= Status.WARN
    assert found[-1].status is Status.ERR
    assert [p.status for p in found[-1].partitions] == [Status.STOP]
    assert [p.current_lag for p in found[-1].partitions] == [1200]


@pytest.mark.parametrize(
    ("latency", "expected"), [(5, Status.OK), (14, Status.OK), (25, Status.WARN)]
)
def test_what_came_since_the_last_commit_is_no_lag_that_does_not_shrink(
    latency: int, expected: Status
) -> None:
    polls = Polls()
    for second in range(15, 15 * 30, 15):  # a message a second, each committed so much later
        found = polls.poll({0: second - latency}, {0: second})
    assert found.status is expected


def test_a_group_is_not_judged_before_a_window_was_watched() -> None:
    polls = Polls()
    found = [polls.poll({0: 100}, {0: 200 + i}) for i in range(10)]
    assert [f.status for f in found[:9]] == [Status.OK] * 9
    assert [f.complete for f in found] == [0.0] * 9 + [1.0]
    assert found[9].status is Status.ERR


def test_with_burrows_own_default_it_is_judged_at_once() -> None:
    polls = Polls(minimum_complete=0.0)
    polls.poll({0: 100}, {0: 200})
    assert polls.poll({0: 100}, {0: 200}).partitions[0].status is Status.STOP


def test_the_window_holds_ten_commits() -> None:
    polls = Polls()
    for i in range(25):
        polls.poll({0: i}, {0: 1000})
    found = polls.window(0)
    assert found is not None
    assert found.offsets == list(range(15, 25))
    assert found.times == [15_000 * (i + 1) for i in range(15, 25)]
    assert found.lags == [1000 - i for i in range(15, 25)]


def test_an_unchanged_offset_is_no_commit() -> None:
    polls = Polls()
    for _ in range(5):
        polls.poll({0: 7}, {0: 9})
    found = polls.window(0)
    assert found is not None
    assert found.offsets == [7]


def test_a_commit_that_stood_is_known_since_the_first_poll_before_and_after_it_changes() -> None:
    polls = Polls()
    for end in (9, 10, 11):
        polls.poll({0: 5}, {0: end})
    stood = polls.window(0)
    assert stood is not None
    assert (stood.times, stood.offsets, stood.lags, stood.polls) == ([15_000], [5], [4], 3)
    polls.poll({0: 7}, {0: 12})
    moved = polls.window(0)
    assert moved is not None
    assert (moved.times, moved.offsets, moved.lags) == ([15_000, 60_000], [5, 7], [4, 5])
    assert moved.polls == 4


def test_broker_offsets_are_a_ring_of_ten_that_a_truncation_empties() -> None:
    window = EndWindow()
    for i in range(12):
        window.see({0: i}, 15.0 * i, 15.0 * (i - 9))
    assert window.ends(0) == list(range(2, 12))
    window.see({0: 5}, 200.0, 45.0)
    assert window.ends(0) == [5]
    assert window.ends(1) == []


def test_broker_offsets_of_before_the_window_are_gone_though_none_came_since() -> None:
    window = EndWindow()
    window.see({0: 1}, 15.0, 0.0)
    window.see({0: 2}, 30.0, 0.0)
    window.go_on(30.0)
    assert window.ends(0) == [2]
    window.go_on(45.0)
    assert window.ends(0) == []


def test_the_group_is_as_bad_as_its_worst_partition_capped_to_err() -> None:
    polls = Polls()
    for i in range(12):
        found = polls.poll({0: i, 1: i, 2: 40}, {0: i, 1: 2 * i + 10, 2: 50})
    assert found.status is Status.ERR
    assert {p.partition: p.status for p in found.partitions} == {1: Status.WARN, 2: Status.STOP}
    assert found.partition_count == 3
    assert found.complete == 1.0


def test_warn_alone_makes_the_group_warn() -> None:
    polls = Polls()
    for i in range(12):
        found = polls.poll({0: i}, {0: 2 * i + 10})
    assert found.status is Status.WARN


def test_a_group_of_which_nothing_can_be_judged_is_not_found() -> None:
    polls = Polls()
    assert polls.poll({0: 5}, {}).status is Status.NOTFOUND
    assert polls.poll({}, {0: 5}).status is Status.NOTFOUND


def test_a_partition_that_has_no_commit_any_more_is_forgotten() -> None:
    polls = Polls()
    polls.poll({0: 5, 1: 5}, {0: 9, 1: 9})
    polls.poll({0: 5}, {0: 9, 1: 9})
    assert polls.window(1) is None
