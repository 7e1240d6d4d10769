"""A fault in the analysis of one group, topic or partition costs that one only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from monitor.analysis import group, unread
from monitor.analysis.activity import GroupActivity
from monitor.analysis.analyst import Analyst
from monitor.analysis.group_history import GroupHistory
from monitor.analysis.losses import Losses
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.readable import ReadableLogs
from monitor.analysis.rebalances import Rebalances
from monitor.analysis.timelag import TimeLag
from monitor.analysis.topic import EndWindow
from monitor.exposition.families.monitor import INTERNAL_ERRORS, faults
from monitor.model import (
    Group,
    LogLook,
    Member,
    Offsets,
    Partition,
    Snapshot,
    Topic,
    TopicConfig,
)

NOW = 45.0
WALL = 1_800_000_000.0
APPENDED_AT = WALL - 500
NAMES = ("good", "bad")


def snapshot(poll: int) -> Snapshot:
    """Two groups alike, each on a topic of its own: both lag, one partition moves, one stands."""
    now = 15.0 * poll
    ends = {"good": {0: 100 + 20 * poll, 1: 100}, "bad": {0: 101 + 20 * poll, 1: 100}}
    return Snapshot(
        "c",
        taken_at=WALL + now,
        monotonic_at=now,
        topics={n: Topic(n, {0: Partition(1, (1,), (1,)), 1: Partition(1)}, id=n) for n in NAMES},
        start_offsets=Offsets({name: {0: 5 * poll, 1: 5 * poll} for name in NAMES}, now),
        end_offsets=Offsets(ends, now),
        topic_configs={n: TopicConfig(3_600_000, -1, frozenset({"delete"})) for n in NAMES},
        groups={
            name: Group(
                name,
                state="Stable",
                members=(Member(f"m{poll}", "client", "/host", {name: (0, 1)}),),
                commits={name: {0: 40 + 10 * poll, 1: 8}},
            )
            for name in NAMES
        },
    )


def times(wanted: Mapping[str, Mapping[int, int]]) -> dict[str, dict[int, tuple[int, int]]]:
    at = int(APPENDED_AT * 1000)
    return {
        topic: {p: (0, at) if asked <= at else (-1, -1) for p, asked in partitions.items()}
        for topic, partitions in wanted.items()
    }


def looks(wanted: Mapping[str, Mapping[int, int]]) -> dict[str, dict[int, LogLook]]:
    return {t: {p: LogLook(at, at, 10_000) for p, at in of.items()} for t, of in wanted.items()}


def run(analyst: Analyst, first: int, polls: int) -> list[dict[str, GroupMeasures]]:
    return [analyst.measure(snapshot(first + n)) for n in range(polls)]


def is_bad(*given: object) -> bool:
    """Tell whether a call is about the group, the topic, or the partition named bad."""
    for each in given:
        name = getattr(each, "id", getattr(each, "group", each))
        if name == "bad" or (isinstance(each, tuple) and each and each[0] == "bad"):
            return True
        if isinstance(each, dict) and (each.keys() == {"bad"} or each.get(0, 0) % 20 == 1):
            return True  # its commits, or the ends of its log
    return False


# step, subject, where it is done
FAULTS: list[tuple[str, str, object, str]] = [
    ("lag", "bad", unread, "lag_of_group"),
    ("positions", "bad", unread, "positions"),
    ("looks", "bad", unread, "unread_of"),
    ("looks", "bad-1", ReadableLogs, "_learn"),
    ("commit_windows", "bad", GroupHistory, "observe_commits"),
    ("end_windows", "bad", EndWindow, "_next"),
    ("times", "bad", TimeLag, "_see"),
    ("times", "bad-0", TimeLag, "_want_of"),
    ("times", "bad-0", TimeLag, "_question"),
    ("times", "bad", TimeLag, "oldest_at"),
    ("retention", "bad", TimeLag, "expires_at"),
    ("retention", "bad", group, "retention_risks"),
    ("facts", "bad", group, "group_facts"),
    ("facts", "bad", group, "uncommitted_partitions"),
    ("activity", "bad", group, "topics_not_consumed"),
    ("activity", "bad", GroupActivity, "observe"),
    ("status", "bad", group, "group_status"),
    ("rates", "bad", group, "group_rates"),
    ("imbalance", "bad", group, "imbalance_of"),
    ("losses", "bad", Losses, "observe"),
    ("losses", "bad", group, "unread_deleted"),
    ("rebalances", "bad", Rebalances, "observe"),
    ("advice", "bad", group, "advise"),
]


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[object, str], None]]:
    def break_it(where: object, name: str) -> None:
        right = getattr(where, name)

        def wrong(*given: Any, **named: Any) -> Any:
            if is_bad(*given):
                raise ZeroDivisionError("on purpose")
            return right(*given, **named)

        is_static = name == "_next"
        monkeypatch.setattr(where, name, staticmethod(wrong) if is_static else wrong)

    yield break_it
    monkeypatch.undo()


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{step}-{name}" for step, _, _, name in FAULTS])
def test_a_fault_costs_the_one_that_it_is_about(
    fault: tuple[str, str, object, str],
    breaking: Callable[[object, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, subject, where, name = fault
    right = run(Analyst(times, looks), 1, 6)
    analyst = Analyst(times, looks)
    run(analyst, 1, 1)
    breaking(where, name)
    with capture_logs() as lines:
        found = run(analyst, 2, 3)
    assert [each["good"] for each in found] == [each["good"] for each in right[1:4]]
    told = {s for (of, s) in analyst.findings.failures if of == step}
    assert subject in told
    assert all(s == "bad" or s.startswith("bad-") for s in told)
    assert all(
        w.startswith("ZeroDivisionError at test_isolation.py")
        for w in analyst.findings.failures.values()
    )
    logged = [line for line in lines if line["log_level"] == "error" and line["step"] == step]
    assert len(logged) == len(told)  # at the first time, not at each poll
    monkeypatch.undo()
    healed = run(analyst, 5, 2)[-1]
    assert analyst.findings.failures == {}
    assert healed["good"] == right[-1]["good"]
    assert healed["bad"].lag == right[-1]["bad"].lag
    assert healed["bad"].facts.members == 1


def test_what_failed_is_absent_and_never_zero(breaking: Callable[[object, str], None]) -> None:
    analyst = Analyst(times, looks)
    breaking(TimeLag, "oldest_at")
    found = run(analyst, 1, 3)[-1]["bad"]
    assert found.behind(NOW) is None
    assert found.behind_by_partition("bad", NOW) == {}
    assert found.lag.total  # all else is told


@pytest.mark.parametrize("step", ["times", "looks"])
def test_brokers_that_cannot_be_asked_cost_what_they_would_have_told(step: str) -> None:
    def fails(_: object) -> Any:
        raise OSError("no route")

    analyst = Analyst(*((fails, looks) if step == "times" else (times, fails)))
    found = run(analyst, 1, 2)[-1]
    assert analyst.findings.failures.keys() == {(step, "")}
    assert found["good"].lag.total
    assert (found["good"].behind(NOW) is None) == (step == "times")


def test_the_page_names_what_failed(breaking: Callable[[object, str], None]) -> None:
    analyst = Analyst(times, looks)
    breaking(group, "advise")
    seen = snapshot(1)
    analyst.measure(seen)
    found = faults("c", lambda: analyst.findings.failures).samples()
    assert found[INTERNAL_ERRORS] == {("c", "advice", "bad"): 1}
