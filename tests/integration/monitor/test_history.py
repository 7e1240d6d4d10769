"""Polls are kept beside the polls, and read again over HTTP; a database that fails costs only that."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from monitor.exposition.families.history import (
    LAST_WRITE,
    NOT_TAKEN,
    NOT_WRITTEN,
    RESTORED,
    UP,
)
from monitor.exposition.series import ByPartition
from monitor.history import recorder as recorders
from monitor.history import store as stores
from monitor.history.claim import InUseError
from monitor.history.kept_rows import KeptRow
from monitor.history.recorder import Recorder
from monitor.history.store import Store
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC
from monitor.poller import Poller
from monitor.web.app import create_app
from tests.conftest import Database
from tests.support.asgi import Client
from tests.support.waiting import wait_for
from tests.unit.monitor.fake_brokers import FakeBrokers

PATIENCE_S = 45.0


class Watched:
    """A poller of a group that is behind, whose polls are recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self.brokers = FakeBrokers(
            groups={1: [ListedGroup("a/b", CLASSIC, "Empty", "consumer")]},
            commits={"a/b": GroupCommits({"t": {0: 4}})},
        )
        self.recorder = recorder

        def clock() -> float:
            return self.brokers.now

        self.poller = Poller(
            Collector(self.brokers, Intervals(), clock=clock, monotonic=clock),
            stale_after_s=PATIENCE_S,
            clock=clock,
            monotonic=clock,
            published=lambda: recorder.record(self.poller.latest.state),
        )
        self.client = Client(create_app(self.poller, history=recorder.read))

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            self.brokers.now += 15
            self.poller.poll()

    def points(self) -> list[dict[str, Any]]:
        # nothing while the tables are not there yet
        address = f"/api/v1/history/a/b?since=0&until={int(self.brokers.now) + 15}"  # before the next poll
        return list(self.client.get(address).json().get("points", ()))


def value(recorder: Recorder, metric: Any) -> float:
    series = recorder.block().samples()[metric]
    assert not isinstance(series, ByPartition)
    return series[()]


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.sqlite'}"


def test_what_a_group_did_is_read_again(tmp_path: Path) -> None:
    recorder = Recorder(Store(url(tmp_path)), PATIENCE_S)
    watched = Watched(recorder)
    recorder.start()
    watched.poll()
    wait_for("the first row", watched.points)
    watched.brokers.commits["a/b"] = GroupCommits({"t": {0: 7}})
    watched.poll()
    wait_for("the second", lambda: len(watched.points()) == 2)
    recorder.stop()
    first, second = watched.points()
    assert (first["lag"], second["lag"]) == (6, 3)
    assert second["at"] - first["at"] == 15
    assert first["lag_seconds"] == pytest.approx(first["at"] - first["behind_since"], abs=1)
    assert (first["members"], first["seconds"]) == (0, 0)
    assert value(recorder, UP) == 1
    assert value(recorder, LAST_WRITE) == pytest.approx(time.time(), abs=60)


def test_nothing_is_written_of_a_group_to_which_nothing_happens(tmp_path: Path) -> None:
    store = Store(url(tmp_path))
    recorder = Recorder(store, PATIENCE_S)
    watched = Watched(recorder)
    recorder.start()
    for _ in range(5):
        watched.poll()
    wait_for("a row", watched.points)
    recorder.stop()
    assert len(watched.points()) <= 3  # as a status comes in, and rates


def begun(tmp_path: Path) -> Watched:
    """Return one whose recorder writes."""
    watched = Watched(Recorder(Store(url(tmp_path)), PATIENCE_S))
    watched.recorder.start()
    return watched


def lags(watched: Watched) -> list[int | None]:
    return [point["lag"] for point in watched.points()]


def unknown(watched: Watched) -> list[float]:
    return [point["at"] for point in watched.points() if point["lag"] is None]


def test_where_nobody_looked_nothing_is_known(tmp_path: Path) -> None:
    watched = begun(tmp_path)
    watched.poll(12)
    wait_for("it to be written", lambda: watched.points() and watched.recorder.is_written)
    assert None not in lags(watched)
    stopped_at = watched.brokers.now
    watched.brokers.now += 600
    assert lags(watched)[-2:] == [6, None]  # and nobody has looked again
    watched.poll()
    wait_for("the polls after it", lambda: watched.recorder.is_written)
    # nothing happened to the group, and yet it is told anew
    assert lags(watched)[-2:] == [None, 6]
    assert unknown(watched) == [pytest.approx(stopped_at, abs=0.01)]
    watched.recorder.stop()


def test_what_is_not_reached_is_not_known(tmp_path: Path) -> None:
    watched = begun(tmp_path)
    watched.poll(3)
    last_reached_at = watched.brokers.now
    watched.brokers.down = {1, 2}
    watched.poll(10)
    watched.brokers.down = set()
    watched.poll(3)
    wait_for("all to be written", lambda: watched.recorder.is_written)
    assert unknown(watched) == [pytest.approx(last_reached_at, abs=0.01)]
    assert lags(watched)[-1] == 6
    watched.recorder.stop()


@pytest.mark.parametrize("how", ["silent", "deleted"])
def test_of_a_group_that_is_not_known_any_more_nothing_holds_on(tmp_path: Path, how: str) -> None:
    watched = begun(tmp_path)
    watched.poll(3)
    listed, commits = watched.brokers.groups[1], dict(watched.brokers.commits)
    if how == "silent":
        watched.brokers.down = {1}
    else:
        watched.brokers.delete_group("a/b")
    watched.poll(6)
    wait_for("all to be written", lambda: watched.recorder.is_written)
    assert lags(watched)[-2:] == [6, None]
    watched.brokers.down, watched.brokers.groups[1] = set(), listed
    watched.brokers.commits.update(commits)
    watched.poll(3)
    wait_for("all to be written", lambda: watched.recorder.is_written)
    assert lags(watched).count(None) == 1
    assert lags(watched)[-1] == 6
    watched.recorder.stop()


def test_what_a_restart_finds_as_it_was_was_not_seen_to_be_so(tmp_path: Path) -> None:
    first = Recorder(Store(url(tmp_path)), PATIENCE_S)
    watched = Watched(first)
    first.start()
    watched.poll()
    wait_for("it to be written", lambda: watched.points() and first.is_written)
    first.stop()
    second = Recorder(Store(url(tmp_path)), PATIENCE_S)
    again = Watched(second)
    again.brokers.now = watched.brokers.now + 600
    second.start()
    again.poll()
    wait_for("it to be written again", lambda: second.is_written)
    assert lags(again) == [6, None, 6]
    second.stop()


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    recorder = Recorder(Store(url(tmp_path)), PATIENCE_S)
    watched = Watched(recorder)
    watched.poll()
    for query in ("since=5&until=4", "since=x", "until=-1", "what=1"):
        assert watched.client.get(f"/api/v1/history/g?{query}").status_code == 400
    # the tables are not there yet
    assert watched.client.get("/api/v1/history/g").status_code == 503
    without = Client(create_app(watched.poller))
    refused = without.get("/api/v1/history/g")
    assert refused.status_code == 404
    assert "MONITOR_HISTORY_URL" in refused.json()["error"]["message"]


def test_a_group_whose_id_the_database_does_not_take_costs_the_others_nothing(
    address: str,
) -> None:
    store = Store(address)
    watched = Watched(Recorder(store, PATIENCE_S))
    odd = "nul\0nul\ud800"
    watched.brokers.groups[1].append(ListedGroup(odd, CLASSIC, "Empty", "consumer"))
    watched.brokers.commits[odd] = GroupCommits({"t": {0: 4}})
    watched.recorder.start()
    for _ in range(3):
        watched.poll()
    wait_for("all to be written", lambda: watched.recorder.is_written)
    assert lags(watched) == [6]
    assert value(watched.recorder, UP) == 1
    assert value(watched.recorder, NOT_WRITTEN) == 0
    assert value(watched.recorder, NOT_TAKEN) == 1
    for name in ("x%00y", "%ED%A0%80", "x" * 9_000):
        answer = watched.client.get(f"/api/v1/history/{name}?since=0")
        assert answer.status_code == 200, answer.text
        assert answer.json()["points"] == []
    watched.recorder.stop()


class Failing(Store):
    """A database that fails, or hangs, until it is mended."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.fails = True
        self.hangs_s = 0.0

    def write(self, *args: Any, **options: Any) -> None:
        time.sleep(self.hangs_s)
        if self.fails:
            raise OperationalError("insert", {}, Exception("geheim"))
        super().write(*args, **options)


def test_a_database_that_fails_costs_its_polls_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_SECONDS", 0.01)
    store = Failing(url(tmp_path))
    recorder = Recorder(store, PATIENCE_S)
    watched = Watched(recorder)
    recorder.start()
    watched.poll()
    wait_for("the fault", lambda: value(recorder, UP) == 0)
    assert watched.poller.unready_reason() is None
    assert value(recorder, NOT_WRITTEN) == 1
    store.fails = False
    watched.brokers.commits["a/b"] = GroupCommits({"t": {0: 9}})
    watched.poll()
    wait_for("it works again", lambda: value(recorder, UP) == 1)
    recorder.stop()
    assert [point["lag"] for point in watched.points()] == [1]


def test_what_a_lost_poll_found_is_told_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_SECONDS", 0.01)
    store = Failing(url(tmp_path))
    store.fails = False
    recorder = Recorder(store, PATIENCE_S)
    watched = Watched(recorder)
    recorder.start()
    watched.poll()
    wait_for("the first row", watched.points)
    store.fails = True
    watched.brokers.commits["a/b"] = GroupCommits({"t": {0: 9}})
    watched.poll()
    wait_for("the fault", lambda: value(recorder, UP) == 0)
    store.fails = False
    for _ in range(3):  # in which nothing happens
        watched.poll()
    wait_for("it works again", lambda: value(recorder, UP) == 1)
    wait_for("all to be written", lambda: recorder.is_written)
    recorder.stop()
    assert lags(watched)[-1] == 1


def test_of_a_group_that_was_deleted_in_a_lost_poll_nothing_holds_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_SECONDS", 0.01)
    store = Failing(url(tmp_path))
    store.fails = False
    watched = Watched(Recorder(store, PATIENCE_S))
    watched.recorder.start()
    watched.poll()
    wait_for("the first row", watched.points)
    store.fails = True
    watched.brokers.delete_group("a/b")
    watched.poll()
    wait_for("the fault", lambda: value(watched.recorder, NOT_WRITTEN) == 1)
    watched.poll()
    wait_for("another", lambda: value(watched.recorder, NOT_WRITTEN) == 2)
    store.fails = False
    watched.poll()
    wait_for("all to be written", lambda: watched.recorder.is_written)
    assert lags(watched) == [6, None]
    watched.poll()
    wait_for("all to be written", lambda: watched.recorder.is_written)
    assert lags(watched) == [6, None]
    watched.recorder.stop()


def test_a_database_that_hangs_holds_up_no_poll_and_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "STOP_SECONDS", 0.1)
    store = Failing(url(tmp_path))
    store.hangs_s = 2.0
    recorder = Recorder(store, PATIENCE_S)
    watched = Watched(recorder)
    recorder.start()
    for offset in range(recorders.MAX_WAITING + 5):
        watched.brokers.commits["a/b"] = GroupCommits({"t": {0: offset}})
        watched.poll()
    assert recorder._waiting.qsize() <= recorders.MAX_WAITING
    assert value(recorder, UP) == 0
    assert value(recorder, NOT_WRITTEN) >= 3
    recorder.stop()


def test_rows_are_joined_by_the_calendar(tmp_path: Path) -> None:
    class Condensed(Store):
        until: float | None = None

        def condense(self, now: float) -> None:
            super().condense(now)
            Condensed.until = now

    recorder = Recorder(Condensed(url(tmp_path)), PATIENCE_S, clock=lambda: 1_000.0)
    recorder.start()
    (job,) = recorder._calendar.get_jobs()
    job.func(*job.args)
    # a poll may yet follow the last one
    wait_for("it", lambda: Condensed.until == 1_000.0 - PATIENCE_S)
    recorder.stop()


class Kept:
    """What a monitor of the watched group keeps, and one that is started after it takes up."""

    def __init__(self, store: Store) -> None:
        self.recorder = Recorder(store, PATIENCE_S)
        self.brokers = FakeBrokers(
            groups={1: [ListedGroup("g", CLASSIC, "Empty", "consumer")]},
            commits={"g": GroupCommits({"t": {0: 4}})},
        )
        self.poller = self.start()

    def start(self) -> Poller:
        def clock() -> float:
            return self.brokers.now

        return Poller(
            Collector(self.brokers, Intervals(), clock=clock, monotonic=clock),
            stale_after_s=PATIENCE_S,
            cluster="c",
            clock=clock,
            monotonic=clock,
            keeper=self.recorder,
        )

    def poll(self) -> None:
        self.brokers.now += 15
        self.poller.poll()

    def watched_for(self) -> int:
        """Return how many polls the window of the group's commits has seen."""
        return self.poller.commit_windows("g")["t"][0].polls

    def restored(self) -> float | None:
        series = self.recorder.block().samples()[RESTORED]
        assert not isinstance(series, ByPartition)
        return next(iter(series.values()), None)

    def waits_for_writing(self) -> None:
        wait_for("what is kept to be written", lambda: not self.recorder._to_keep)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return url(tmp_path)
    database: Database = request.getfixturevalue("database")
    return database.url


def test_a_restart_goes_on_from_what_the_database_has(address: str) -> None:
    kept = Kept(Store(address))
    kept.recorder.start()
    for _ in range(3):
        kept.poll()
    assert kept.restored() == 0
    kept.waits_for_writing()
    kept.recorder.stop()
    later = Kept(Store(address))
    later.brokers.now = kept.brokers.now
    later.poll()
    assert later.restored() == 1
    assert later.watched_for() == 4
    later.recorder.stop()


def test_of_a_group_that_was_deleted_while_the_monitor_was_restarted_nothing_holds_on(
    address: str,
) -> None:
    """For less than its patience: that nobody looked is not told."""
    kept = Kept(Store(address))
    kept.recorder.start()
    for _ in range(3):
        kept.poll()
        kept.recorder.record(kept.poller.latest.state)
    kept.waits_for_writing()
    wait_for("all to be written", lambda: kept.recorder.is_written)
    kept.recorder.stop()
    later = Kept(Store(address))
    later.brokers.now = kept.brokers.now
    later.brokers.delete_group("g")
    later.recorder.start()
    later.poll()
    later.recorder.record(later.poller.latest.state)
    wait_for("all to be written", lambda: later.recorder.is_written)
    rows = later.recorder.read("c", "g", 0, later.brokers.now)
    assert rows is not None
    assert [row.lag for row in rows][-2:] == [6, None]
    later.recorder.stop()


def test_what_was_not_written_yet_is_taken_up_by_a_monitor_of_the_same_process(
    tmp_path: Path,
) -> None:
    kept = Kept(Store(url(tmp_path)))  # its recorder is not started: nothing is written
    kept.poll()
    kept.poller = kept.start()
    kept.poll()
    assert kept.restored() == 1
    assert kept.watched_for() == 2
    kept.recorder.stop()


class Refusing(Store):
    """A database that takes nothing of what is to be kept until it is mended, and reads slowly."""

    fails = True
    reads_after: threading.Event | None = None

    def keep(self, cluster: str, rows: Any, *, anew: bool) -> None:
        if self.fails:
            raise OperationalError("insert", {}, Exception("geheim"))
        super().keep(cluster, rows, anew=anew)

    def kept(self, cluster: str) -> list[KeptRow]:
        if self.reads_after:
            self.reads_after.wait()
        return super().kept(cluster)


def test_what_the_database_did_not_take_is_written_with_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_SECONDS", 0.01)
    store = Refusing(url(tmp_path))
    kept = Kept(store)
    kept.recorder.start()
    kept.poll()
    wait_for("the fault", lambda: value(kept.recorder, UP) == 0)
    store.fails = False
    kept.poll()
    kept.waits_for_writing()
    kept.recorder.stop()
    assert {row.kind for row in Store(url(tmp_path)).kept("c")} == {"polls", "group", "topic"}


def test_a_database_that_does_not_answer_delays_no_start_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "TAKE_UP_SECONDS", 0.1)
    store = Refusing(url(tmp_path))
    store.reads_after = threading.Event()
    kept = Kept(store)
    kept.poll()
    assert kept.restored() == 0
    assert kept.poller.unready_reason() is None
    store.reads_after.set()
    kept.recorder.stop()


def test_what_another_version_wrote_is_not_gone_on_from_and_replaced(tmp_path: Path) -> None:
    store = Store(url(tmp_path))
    store.create()
    store.keep("c", [KeptRow("polls", "", "{}"), KeptRow("group", "old", "{}")], anew=True)
    kept = Kept(store)
    kept.recorder.start()
    kept.poll()
    assert kept.restored() == 0
    kept.waits_for_writing()
    kept.recorder.stop()
    assert {row.name for row in Store(url(tmp_path)).kept("c")} == {"", "g", "t"}


def causes(told: list[Any]) -> set[str]:
    """Return why the history failed, by the lines of the log."""
    return {line["cause"] for line in told if "cause" in line}


def test_two_monitors_of_one_file_do_not_write_each_others_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_SECONDS", 0.01)
    first, second = Kept(Store(url(tmp_path))), Kept(Store(url(tmp_path)))
    first.recorder.start()
    first.poll()
    first.waits_for_writing()
    second.recorder.start()
    with capture_logs() as told:
        second.poll()
        wait_for("the fault", lambda: value(second.recorder, UP) == 0)
    assert second.restored() == 0
    assert causes(told) == {"another monitor keeps its history there"}
    assert second.poller.unready_reason() is None
    first.poll()
    first.waits_for_writing()
    assert value(first.recorder, UP) == 1
    first.recorder.stop()
    # what it waits to write it writes as soon as it may
    second.poll()
    second.waits_for_writing()
    assert value(second.recorder, UP) == 1
    second.recorder.stop()


HOLDS = """
import sys, time
from pathlib import Path
from monitor.history.claim import Claim
claim = Claim(Path(sys.argv[1]))
claim.take()
print("held", flush=True)
time.sleep(600)
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    database = tmp_path / "history.sqlite"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(database)], stdout=subprocess.PIPE, text=True
    )
    store = Store(url(tmp_path))
    with holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(InUseError):
                store.create()
        finally:
            holder.kill()
    store.create()
    store.close()


def _of_somebody_else(file: Path) -> str:
    file.write_bytes(b"no database at all, but long enough to be taken for one" * 50)
    return "file is not a database"


def _a_directory(file: Path) -> str:
    file.mkdir()
    return "unable to open database file"


def _without_its_tables(file: Path) -> str:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE monitor_kept (other INTEGER)")
        connection.execute("CREATE TABLE monitor_group_summaries (other INTEGER)")
    return "column"  # there is no such one


@pytest.mark.parametrize("spoil", [_of_somebody_else, _a_directory, _without_its_tables])
def test_a_file_that_is_none_of_ours_costs_the_history_only_and_is_left_as_it_is(
    spoil: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_SECONDS", 0.01)
    file = tmp_path / "history.sqlite"
    cause = spoil(file)
    before = None if file.is_dir() else file.read_bytes()
    kept = Kept(Store(file))
    kept.recorder.start()
    with capture_logs() as told:
        kept.poll()
        wait_for("the fault", lambda: value(kept.recorder, UP) == 0)
    assert kept.poller.unready_reason() is None
    assert kept.restored() == 0
    assert all(cause in each for each in causes(told)), told
    kept.recorder.stop()
    if _without_its_tables is not spoil:
        assert before == (None if file.is_dir() else file.read_bytes())


def test_a_file_that_another_program_has_locked_costs_the_history_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(recorders, "TAKE_UP_SECONDS", 0.1)
    monkeypatch.setattr(stores, "BUSY_MS", 10)
    file = tmp_path / "history.sqlite"
    before = Store(file)
    before.create()
    before.close()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    kept = Kept(Store(file))
    kept.recorder.start()
    kept.poll()
    wait_for("the fault", lambda: value(kept.recorder, UP) == 0)
    assert kept.poller.unready_reason() is None
    other.execute("COMMIT")
    other.close()
    kept.poll()
    kept.waits_for_writing()
    assert value(kept.recorder, UP) == 1
    kept.recorder.stop()
