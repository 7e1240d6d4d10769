from __future__ import annotations

from monitor.analysis.lag import lag_of_group
from monitor.model import Group


def test_lag_is_end_minus_commit_and_absent_where_either_is_unknown() -> None:
    group = Group("g", commits={"t": {0: 4, 1: 10, 2: 5}, "gone": {0: 3}})
    lag = lag_of_group(group, {"t": {0: 10, 1: 10, 3: 99}})
    assert lag.partitions == {"t": {0: 6, 1: 0}}
    assert lag.topics == {"t": 6}
    assert lag.total == 6
    assert lag.get("t", 2) is None
    assert lag.get("gone", 0) is None
    assert lag.get("t", 3) is None  # not committed: no phantom


def test_a_commit_past_the_log_end_is_no_lag_and_is_named() -> None:
    lag = lag_of_group(Group("g", commits={"t": {0: 12, 1: 1}}), {"t": {0: 10, 1: 3}})
    assert lag.partitions == {"t": {0: 0, 1: 2}}
    assert lag.past_end == {"t": (0,)}
    assert lag.total == 2
