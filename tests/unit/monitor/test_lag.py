from __future__ import annotations

from monitor.analysis.lag import GroupLag, lag_of_group
from monitor.model import Group, Offsets, Snapshot


def lag_of(
    group: Group,
    ends: dict[str, dict[int, int]],
    *,
    stale: dict[str, dict[int, float]] | None = None,
    stable: dict[str, dict[int, int]] | None = None,
) -> GroupLag:
    snapshot = Snapshot(
        "c",
        taken_at=100.0,
        monotonic_at=1.0,
        end_offsets=Offsets(ends, 100.0, stale or {}),
        stable_offsets=Offsets(stable or {}, 100.0),
    )
    return lag_of_group(group, snapshot, {})


def test_lag_is_end_minus_commit_and_absent_where_either_is_unknown() -> None:
    group = Group("g", commits={"t": {0: 4, 1: 10, 2: 5}, "gone": {0: 3}})
    lag = lag_of(group, {"t": {0: 10, 1: 10, 3: 99}})
    assert lag.partitions == {"t": {0: 6, 1: 0}}
    assert lag.topics == {"t": 6}
    assert lag.total == 6
    assert lag.get("t", 2) is None
    assert lag.get("gone", 0) is None
    assert lag.get("t", 3) is None  # not committed: no phantom


def test_a_commit_past_the_log_end_is_no_lag_and_is_named() -> None:
    lag = lag_of(Group("g", commits={"t": {0: 12, 1: 1}}), {"t": {0: 10, 1: 3}})
    assert lag.partitions == {"t": {0: 0, 1: 2}}
    assert lag.past_end == {"t": {0: 2}}
    assert lag.total == 2


def test_past_an_end_that_is_an_earlier_polls_the_lag_is_not_known() -> None:
    group = Group("g", commits={"t": {0: 12, 1: 1}})
    lag = lag_of(group, {"t": {0: 10, 1: 3}}, stale={"t": {0: 60.0}})
    assert lag.partitions == {"t": {1: 2}}
    assert lag.past_end == {}


def test_read_committed_lag_ends_at_the_last_stable_offset_and_flags_no_reader_beyond_it() -> None:
    group = Group("g", commits={"t": {0: 4, 1: 9}})
    lag = lag_of(group, {"t": {0: 10, 1: 10}}, stable={"t": {0: 7, 1: 7}})
    assert lag.partitions == {"t": {0: 3, 1: 0}}
    assert lag.past_end == {}


def test_a_lag_that_the_coordinator_told_goes_before_ours() -> None:
    group = Group("g", type="share", commits={"t": {0: 4, 1: 4}}, lags={"t": {0: 2}})
    assert lag_of(group, {"t": {0: 10, 1: 10}}).partitions == {"t": {0: 2, 1: 6}}


def test_groups_that_are_caught_up_share_one_mapping_of_zeros() -> None:
    ends = {"t": {0: 10, 1: 10}}
    snapshot = Snapshot("c", 1.0, 1.0, end_offsets=Offsets(ends, 1.0))
    zeros: dict[str, dict[int, int]] = {}
    one, two = (
        lag_of_group(Group(name, commits={"t": {0: 10, 1: 10}}), snapshot, zeros)
        for name in ("one", "two")
    )
    assert one.partitions == two.partitions == {"t": {0: 0, 1: 0}}
    assert one.partitions["t"] is two.partitions["t"]
