"""The log of `serve`: each change of state once, in one line that anything may read."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from monitor import logs
from monitor.guard import Guard
from monitor.model import Group, Offsets, Refused, Silent
from monitor.poller import Poller
from order_services.local.ports import free_port
from tests.unit.monitor.test_poller import Brokers, Clock, Told, make, poll_on


def told_of(poller: Poller, clock: Clock, polls: int = 1) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        for _ in range(polls):
            poll_on(poller, clock)
    return [dict(line) for line in lines]


def events(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


@pytest.fixture
def told() -> tuple[Told, Poller, Clock]:
    clock = Clock(Brokers())
    source = Told(clock)
    return source, Poller(source, stale_after_s=45, clock=clock, monotonic=clock), clock


def test_a_cluster_that_is_well_is_told_of_once() -> None:
    _, poller, clock = make()
    (line,) = told_of(poller, clock, polls=5)
    assert line == {
        "event": "the cluster was reached", "log_level": "info", "cluster": "cluster",
        "brokers": 2, "topics": 1, "groups": 1,
    }  # fmt: skip


def test_a_broker_that_falls_silent_and_comes_back_is_two_lines() -> None:
    brokers, poller, clock = make()
    poller.poll()
    brokers.down = {2}
    (silent,) = told_of(poller, clock, polls=5)
    assert (silent["event"], silent["address"]) == ("a broker does not answer", "two:9092")
    brokers.down = set()
    assert events(told_of(poller, clock, polls=3)) == ["a broker answers again"]


def test_a_cluster_that_is_away_and_comes_back(told: tuple[Told, Poller, Clock]) -> None:
    brokers, poller, clock = make()
    poller.poll()
    brokers.down = {1, 2}
    away = told_of(poller, clock, polls=5)
    assert events(away).count("polls fail") == 1
    assert events(away).count("a broker does not answer") == 2
    brokers.down = set()
    back = events(told_of(poller, clock, polls=5))
    assert back.count("polls succeed again") == 1
    assert len(back) == 4  # and two brokers, and the group


def test_a_refused_login_is_an_error_and_not_a_silent_broker(
    told: tuple[Told, Poller, Clock],
) -> None:
    source, poller, clock = told
    poller.poll()
    source.changes = {"broker_errors": {1: "the login was refused (bad password)"}}
    lines = told_of(poller, clock, polls=3)
    assert ("a broker refused the login", "error") in {
        (line["event"], line["log_level"]) for line in lines
    }
    assert events(lines).count("a broker refused the login") == 1


def test_groups_and_partitions_that_are_refused_share_a_line_for_each_cause(
    told: tuple[Told, Poller, Clock],
) -> None:
    source, poller, clock = told
    poller.poll()
    refused = Refused("GROUP_AUTHORIZATION_FAILED")
    groups = {f"g{n:03}": Group(f"g{n:03}", answer=refused) for n in range(200)}
    groups["away"] = Group("away", answer=Silent(clock(), "away"))
    source.changes = {
        "groups": groups,
        "end_offsets": Offsets({}, clock(), refused={"t": {0: "no leader", 1: "no leader"}}),
    }
    lines = told_of(poller, clock, polls=3)
    assert [(line["event"], line["count"]) for line in lines] == [
        ("a group is refused", 200),
        ("a group is not answered for", 1),
        ("a partition is refused", 2),
    ]
    assert lines[0]["names"] == ["g000", "g001", "g002", "g003", "g004"]
    assert lines[2]["names"] == ["t-0", "t-1"]
    source.changes = {}
    assert events(told_of(poller, clock, polls=3)) == [
        "a group is told again, or gone",
        "a partition is told again, or gone",
    ]


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logging_as_before")
def test_a_line_of_text_is_one_line_whatever_a_group_is_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("INFO", "text")
    structlog.get_logger("x").info("a group is refused", names=["a\nb", "\x1b[2J"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"info: a group is refused names=['a\nb', '\x1b[2J']")


@pytest.mark.usefixtures("_logging_as_before")
def test_json_has_one_object_a_line_also_of_traces_and_libraries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("INFO", "json")
    secret = "hunter2"
    try:
        int(f"x{secret!r}"[:1])
    except ValueError as error:
        structlog.get_logger("x").error("failed", exc_info=error)
    logging.getLogger("a library").warning("beware of %s", "dogs")
    logging.getLogger("a library").info("not told")
    structlog.get_logger("x").debug("not told")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["level"] == "error"
    assert "ValueError" in first["exception"]
    assert secret not in first["exception"]
    assert (second["event"], second["level"]) == ("beware of dogs", "warning")


@pytest.mark.usefixtures("_logging_as_before")
def test_a_command_tells_the_cause_of_a_fault_and_no_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(traces=False)
    guard = Guard()
    guard.attempt("lag", "g", lambda: 1 // 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "a part failed step='lag' subject='g' cause='ZeroDivisionError at" in line


@pytest.mark.usefixtures("_logging_as_before")
def test_the_level_is_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("ERROR", "text")
    structlog.get_logger("x").warning("not told")
    assert capsys.readouterr().err == ""


def test_serve_logs_json_on_standard_error_and_refuses_other_formats() -> None:
    command = [sys.executable, "-m", "monitor", "serve", "--wait", "--port", str(free_port())]
    command += ["--bootstrap-servers", f"127.0.0.1:{free_port()}"]
    program = subprocess.Popen(
        command,
        env={**os.environ, "MONITOR_LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stderr is not None
    line = json.loads(program.stderr.readline())
    assert (line["event"], line["level"]) == ("polls fail", "error")
    assert "connection refused" in line["cause"]
    program.terminate()
    told, _ = program.communicate(timeout=30)
    assert told.startswith("Watching ")
    assert program.returncode == 0
    refused = subprocess.run(
        command,
        check=False,
        env={**os.environ, "MONITOR_LOG_FORMAT": "xml"},
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "MONITOR_LOG_FORMAT" in refused.stderr
