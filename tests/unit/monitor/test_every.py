"""Repeating a job on the monotonic clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

import monitor.every
from monitor.every import Every, cause_of, one_line
from tests.support.waiting import wait_for


def stopping(every: Every) -> Callable[[], None]:
    return lambda: every.stop(wait_s=5)


def test_a_wall_clock_that_is_set_back_delays_nothing(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    runs: list[float] = []
    every = Every("x", lambda: runs.append(time.monotonic()))
    request.addfinalizer(stopping(every))
    every.start(0.05)
    wait_for("a run", lambda: runs)
    set_back = time.time() - 3_600
    monkeypatch.setattr(time, "time", lambda: set_back)
    before = len(runs)
    time.sleep(0.5)
    assert 5 <= len(runs) - before <= 11


def test_runs_keep_their_pace_though_each_takes_a_while(request: pytest.FixtureRequest) -> None:
    runs: list[float] = []

    def work() -> None:
        runs.append(time.monotonic())
        time.sleep(0.2)

    every = Every("x", work)
    request.addfinalizer(stopping(every))
    every.start(0.4)
    wait_for("runs", lambda: len(runs) >= 5)
    assert (runs[4] - runs[0]) / 4 == pytest.approx(0.4, rel=0.2)


def test_what_a_run_raises_is_logged_once_and_ends_nothing(request: pytest.FixtureRequest) -> None:
    faults = iter([None, ValueError("x"), ValueError("y"), KeyError("x"), None, None])
    told: list[str | None] = []

    def work() -> None:
        fault = next(faults)
        if fault is not None:
            raise fault

    every = Every("x", work)
    with capture_logs() as logs:
        for _ in range(6):
            every.run_once()
            told.append(every.error and every.error.partition(" ")[0])
    assert told == [None, "ValueError", "ValueError", "KeyError", None, None]
    assert [line["event"] for line in logs] == ["failed", "failed", "works again"]
    assert every.succeeded_at is not None


def test_a_run_that_hangs_is_told_while_it_hangs_and_no_other_begins(
    request: pytest.FixtureRequest,
) -> None:
    released, runs, overdue = threading.Event(), [], []

    def work() -> None:
        runs.append(1)
        released.wait(20)

    every = Every("x", work, overdue=lambda: overdue.append(1))
    request.addfinalizer(stopping(every))
    with capture_logs() as logs:
        every.start(0.05)
        wait_for("overdue", lambda: len(overdue) >= 3)
        assert len(runs) == 1
        released.set()
        wait_for("another run", lambda: len(runs) >= 2)
    assert [line["event"] for line in logs] == [
        "skipped, as the last run has not ended",
        "in time again",
    ]


def test_a_watchdog_that_fails_does_not_end_the_pace(request: pytest.FixtureRequest) -> None:
    released, runs, overdue = threading.Event(), [], []

    def bark() -> None:
        overdue.append(1)
        raise ValueError

    def work() -> None:
        runs.append(1)
        released.wait(20)

    every = Every("x", work, overdue=bark)
    request.addfinalizer(stopping(every))
    every.start(0.05)
    wait_for("overdue twice", lambda: len(overdue) >= 2)
    released.set()
    wait_for("another run", lambda: len(runs) >= 2)


def test_nothing_runs_once_it_is_stopped() -> None:
    runs: list[int] = []
    every = Every("x", lambda: runs.append(1))
    every.start(0.02)
    wait_for("a run", lambda: runs)
    every.stop(wait_s=5)
    count = len(runs)
    time.sleep(0.1)
    assert len(runs) == count
    assert not any(thread.is_alive() for thread in every._threads)


def test_a_cause_says_what_and_where_in_one_line_and_not_what_a_server_said() -> None:
    with pytest.raises(ValueError, match="hunter2") as raised:
        int("password=hunter2\nsecond line")
    cause = cause_of(raised.value)
    assert cause.startswith("ValueError at test_every.py:")
    assert "hunter2" not in cause
    assert len(one_line("x\n" * 1_000)) == monitor.every.MAX_CAUSE_CHARACTERS


def test_an_end_between_two_runs_leaves_none_under_way() -> None:
    for _ in range(300):
        every = Every("x", lambda: None)
        every.start(0.0002)
        time.sleep(0.001)
        every.stop(wait_s=5)
        assert not every.is_running
