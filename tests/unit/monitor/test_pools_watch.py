"""The watch of databases: what fails or hangs takes its figures off the page, and is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

import monitor.pools.collector
import monitor.pools.watch
from monitor.exposition.render import Renderer
from monitor.pools.model import DatabaseSnapshot
from monitor.pools.settings import DatabaseSettings
from monitor.pools.watch import DatabaseWatch
from tests.support.waiting import wait_for


class Looks:
    """Stands in for the collector: a database can't be made to answer what breaks our own code."""

    def __init__(self, _: DatabaseSettings) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.count = 0
        self.closed = False

    def collect(self) -> DatabaseSnapshot:
        self.count += 1
        self.go_on.wait(30)
        return DatabaseSnapshot(postgres=None, pgbouncer=None, services=(), taken_at=1_000.0)

    def close(self) -> None:
        self.closed = True


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[DatabaseWatch, Clock]]:
    monkeypatch.setattr(monitor.pools.collector, "DatabaseCollector", Looks)
    monkeypatch.setattr(
        monitor.pools.watch, "samples", lambda *_: {monitor.pools.metrics.PG_UP: {(): 1}}
    )
    clock = Clock()
    made = DatabaseWatch(DatabaseSettings(service_urls=("http://127.0.0.1:1",)), monotonic=clock)
    yield made, clock
    made.stop()


def page(watch: DatabaseWatch) -> str:
    text = Renderer().render(watch.blocks()).plain.decode()
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


GOOD = "pg_up 1\ndb_pools_last_look_timestamp_seconds 1000.0\n"
OLD = "db_pools_last_look_timestamp_seconds 1000.0\n"


@pytest.mark.parametrize("step", ["analyse", "samples", "collect"])
def test_a_look_that_raises_takes_the_figures_off_and_the_watch_goes_on(
    step: str, watch: tuple[DatabaseWatch, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, _ = watch
    assert page(watched) == ""
    watched.start(0.05)
    wait_for("a look", lambda: page(watched) == GOOD)

    def fail(*_: Any) -> Any:
        raise KeyError("what a server said")

    with capture_logs() as logs, monkeypatch.context() as patched:
        if step == "collect":
            patched.setattr(Looks, step, fail)
        else:
            patched.setattr(monitor.pools.watch, step, fail)
        wait_for("a failure", watched.failed)
        assert page(watched) == OLD
        (cause,) = watched.failed().values()
        assert list(watched.failed()) == [("databases", "")]
        assert cause.startswith("KeyError at test_pools_watch.py")
    wait_for("figures again", lambda: page(watched) == GOOD)
    assert watched.failed() == {}
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["failed"]


def test_a_look_that_hangs_takes_the_figures_off_when_they_are_too_old(
    watch: tuple[DatabaseWatch, Clock],
) -> None:
    watched, clock = watch
    watched.start(10)
    wait_for("a look", lambda: page(watched) == GOOD)
    clock.now += 29
    assert page(watched) == GOOD
    clock.now += 2
    assert page(watched) == OLD


def test_its_end_closes_the_connections(watch: tuple[DatabaseWatch, Clock]) -> None:
    watched, _ = watch
    watched.start(0.05)
    wait_for("a look", lambda: page(watched) == GOOD)
    looks: Any = watched._collector
    watched.stop()
    assert looks.closed


def test_a_database_that_does_not_answer_sets_no_group_free_of_its_budget(
    watch: tuple[DatabaseWatch, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, clock = watch
    known = (3, "PostgreSQL has connections for no more, at 5 a replica")
    budgets = [known]
    monkeypatch.setattr(
        monitor.pools.watch, "replicas_within", lambda *_: budgets[-1] if budgets else None
    )
    assert watched.budget_of("payment-service-group") is None
    watched.start(10)
    wait_for("a look", lambda: watched.budget_of("payment-service-group") == known)
    # all connections are taken: the monitor gets none either
    budgets.clear()
    assert watched.budget_of("payment-service-group") == known
    # nor does an old look say that there is room
    clock.now += 100
    assert watched.budget_of("payment-service-group") == known
    assert watched.budget_of("other-group") is None
