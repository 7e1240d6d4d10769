from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.retention import NO_RISK, Retention, RetentionRisk, retention_risk

NOW = 500_000.0
DAY = Retention(milliseconds=86_400_000)


def risk(committed: int, retention: Retention = DAY, **known: float | None) -> RetentionRisk:
    age = known.pop("record_age", 3600.0)
    size = known.pop("log_bytes", None)
    return retention_risk(
        committed,
        100,
        200,
        now=NOW,
        expires_at=None
        if age is None or retention.milliseconds is None
        else NOW + retention.milliseconds / 1000 - age,
        retention=retention,
        log_bytes=None if size is None else int(size),
        produced_per_second=known.pop("produced_per_second", None),
    )


def test_nothing_unread_is_no_risk() -> None:
    assert risk(200) == NO_RISK
    assert risk(250) == NO_RISK  # past the end


def test_what_was_deleted_unread_is_no_part_of_what_is_left() -> None:
    assert risk(60) == RetentionRisk(1.0, NOW + 82_800.0)


def test_the_share_of_the_retained_log_that_is_unread() -> None:
    assert risk(150).unread_share == 0.5
    assert risk(199).unread_share == pytest.approx(0.01)


def test_an_empty_log_whose_unread_messages_are_all_gone() -> None:
    found = retention_risk(50, 200, 200, now=NOW, expires_at=None, retention=DAY)
    assert found == NO_RISK


def test_a_log_start_past_the_end_is_another_logs() -> None:
    assert retention_risk(0, 5_000, 10, now=NOW, expires_at=NOW + 1, retention=DAY) == NO_RISK


@pytest.mark.parametrize(
    "retention",
    [Retention(), Retention(86_400_000, deletes=False)],
    ids=["unlimited", "compacted only"],
)
def test_what_is_kept_for_ever_is_never_deleted(retention: Retention) -> None:
    assert risk(150, retention).deleted_at is None


def test_an_age_that_is_not_known_leaves_the_time_unknown() -> None:
    assert risk(150, record_age=None).deleted_at is None


def test_what_is_over_age_has_no_time_left() -> None:
    assert risk(150, record_age=90_000.0).deleted_at == NOW - 3_600


def test_retention_by_size_counts_when_sizes_are_known() -> None:
    by_size = Retention(bytes_per_partition=100_000)
    known = {"log_bytes": 100_000.0, "produced_per_second": 0.5}
    # 50 % of 100 kB lie ahead of it, 50 kB of room, 500 B/s come in
    assert risk(150, by_size, **known).deleted_at == pytest.approx(NOW + 100)
    assert risk(150, by_size).deleted_at is None
    both = Retention(86_400_000, 100_000)
    assert risk(150, both, **known).deleted_at == pytest.approx(NOW + 100)
    assert risk(150, both).deleted_at == NOW + 82_800


@given(st.integers(0, 300), st.integers(0, 200), st.integers(0, 100))
def test_shares_are_shares(committed: int, start: int, length: int) -> None:
    found = retention_risk(
        committed, start, start + length, now=NOW, expires_at=NOW + 1, retention=DAY
    )
    assert 0 <= found.unread_share <= 1
