"""The history's tables on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError
from structlog.testing import capture_logs

from monitor.history.kept_rows import KeptRow
from monitor.history.store import KEPT_SECONDS, Store
from monitor.history.summary import POLL, Gap, Summary, with_gaps
from monitor.history.tables import METADATA
from tests.conftest import Database

DAY = 86_400.0
START = 1_800_000_000.0  # a multiple of every resolution


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'history.sqlite'}"
    else:
        database: Database = request.getfixturevalue("database")
        url = database.url
    store = Store(url)
    store.create()
    store.create()  # a second monitor may be as early
    yield store
    store.close()


def write(store: Store, summaries: Sequence[Summary], cluster: str = "c") -> None:
    store.write(cluster, summaries, at=summaries[-1].at, patience_s=45)


def ats(store: Store, since: float, until: float, group: str = "g") -> list[tuple[int, float]]:
    return [(each.seconds, each.at - START) for each in store.read("c", group, since, until)]


def test_what_is_written_is_read_oldest_first_with_the_row_that_holds_at_the_beginning(
    store: Store,
) -> None:
    whole = Summary("g", START + 20, 5, 1.5, START + 18.5, 2, 1, 10.0, 9.5, 3)
    write(store, [whole, Summary("g", START), Summary("other", START + 20)])
    write(store, [Summary("g", START + 60)])
    write(store, [Summary("g", START + 30)], "elsewhere")
    assert store.read("c", "g", START + 20, START + 60)[0] == whole
    assert ats(store, START + 40, START + 100) == [(POLL, 20), (POLL, 60)]
    assert ats(store, START + 10, START + 30) == [(POLL, 0), (POLL, 20)]
    assert ats(store, START - 100, START - 50) == []
    assert store.read("c", "unknown", START, START + 100) == []
    store.write("c", [], at=START + 80, patience_s=45)


def test_rows_are_joined_to_coarser_ones_once_and_the_worst_counts(store: Store) -> None:
    for second, lag, status in ((10, 1, 1), (20, 9, 3), (290, 2, 2), (310, 4, 1)):
        write(store, [Summary("g", START + second, lag, lag / 1, None, 1, status, 2.0 * lag, 1.0)])
    store.condense(START + 310)
    store.condense(START + 320)  # nothing is joined twice
    joined = store.read("c", "g", START, START + 300)
    assert [(each.seconds, each.at - START) for each in joined if each.seconds == 300] == []
    # the single polls are there for a day; then what is left of them is the joined row
    store.condense(START + 2 * DAY)
    joined = store.read("c", "g", START, START + 900)
    assert [(each.seconds, each.at - START) for each in joined][:2] == [(300, 0), (300, 300)]
    assert (joined[0].lag, joined[0].status) == (9, 3)
    assert joined[0].produced == pytest.approx(8.0)


def test_where_a_finer_row_begins_the_coarse_one_before_it_holds(store: Store) -> None:
    look(store, 2 * DAY)
    write(store, [Summary("g", START + 10, 5)])
    write(store, [Summary("g", START + DAY + 200, 7)])
    store.condense(START + 2 * DAY)
    assert ats(store, START + DAY + 100, START + 2 * DAY) == [(300, 300), (POLL, DAY + 200)]
    # until all of its span goes
    store.condense(START + 2 * DAY + 299)
    assert ats(store, START + DAY + 100, START + 2 * DAY)[-1] == (POLL, DAY + 200)
    store.condense(START + 2 * DAY + 300)
    assert ats(store, START + DAY + 100, START + 2 * DAY)[0] == (300, DAY)


def test_what_is_kept_long_becomes_hours_and_ends(store: Store) -> None:
    write(store, [Summary("g", START + 30, 7)])
    for days in (2, 40):
        store.condense(START + days * DAY)
    assert ats(store, START, START + DAY)[0] == (3_600, 0)
    store.condense(START + KEPT_SECONDS[3_600] + DAY)
    assert ats(store, START, START + DAY) == []


def joined_lags(store: Store, now: float) -> list[tuple[float, int | None]]:
    """Return when a row of the group begins, and its lag, as it is told when single polls are gone."""
    store.condense(now)
    store.condense(now + 1)  # nothing is joined twice
    return [(each.at - START, each.lag) for each in store.read("c", "g", START, now)]


def look(store: Store, until: float, since: float = 0) -> None:
    """Have polls follow each other from one second to another, that find nothing new."""
    store.write("c", [], at=START + since, patience_s=45)
    store.write("c", [], at=START + until, patience_s=inf)


@pytest.mark.parametrize("ended", [10, 150, 299, 300, 1_000, 3_590, 3_600])
def test_a_group_that_ended_is_not_known_after_it(store: Store, ended: float) -> None:
    look(store, DAY)
    write(store, [Summary("g", START + 5, 7)])
    write(store, [Summary("g", START + ended)])

    def known_until(now: float) -> float:
        rows = joined_lags(store, now)
        end = min(at for at, lag in rows if lag is None)
        assert all(lag == (7 if at < end else None) for at, lag in rows)
        return end

    assert ended <= known_until(START + 2 * DAY) <= ended + 300
    assert ended <= known_until(START + 40 * DAY) <= ended + 3_600


def test_what_holds_after_a_span_is_its_last_row_and_not_the_worst(store: Store) -> None:
    look(store, DAY)
    write(store, [Summary("g", START + 10, 9, 4.0, START + 6, 2, 4)])
    write(store, [Summary("g", START + 20, 1, 2.0, START + 18, 1, 1)])
    # in the hour what is unread was there for longer than in the first five minutes
    for days, seconds, behind in ((2, 300, 4.0), (40, 3_600, 282.0)):
        store.condense(START + days * DAY)
        worst, held = store.read("c", "g", START, START + days * DAY)
        assert (worst.at, worst.lag, worst.behind, worst.status) == (START, 9, behind, 4)
        # no one record was unread in all of it, of which the lag in seconds grew
        assert worst.behind_since is None
        assert (held.at, held.lag, held.status) == (START + seconds, 1, 1)
        # what is unread grew older
        assert (held.behind, held.behind_since) == (seconds - 18, START + 18)


@pytest.mark.parametrize(("changed", "lag"), [(900, 0), (900.001, 9), (1_190, 9)])
def test_what_held_when_a_span_began_counts_in_it(store: Store, changed: float, lag: int) -> None:
    look(store, DAY)
    write(store, [Summary("g", START + 10, 9)])
    write(store, [Summary("g", START + changed, 0)])
    assert joined_lags(store, START + 2 * DAY) == [(0, 9), (300, 9), (900, lag), (1_200, 0)]


@pytest.mark.parametrize(("away_until", "told"), [(200, [9, 1]), (320, [9, 1, 1])])
def test_what_nobody_saw_holds_in_no_span(store: Store, away_until: float, told: list[int]) -> None:
    """When somebody looked again, one group was gone, and the other was seen anew."""
    write(store, [Summary("gone", START + 10, 9), Summary("g", START + 10, 9)])
    look(store, DAY, since=away_until)
    write(store, [Summary("g", START + away_until, 1)])
    rows = joined_lags(store, START + 2 * DAY)
    assert rows == [(300 * number, lag) for number, lag in enumerate(told)]
    gone = store.read("c", "gone", START, START + DAY)
    assert [(each.at - START, each.lag) for each in gone] == [(0, 9), (300, None)]
    store.condense(START + 40 * DAY)
    gone = store.read("c", "gone", START, START + DAY)
    assert [(each.at - START, each.lag) for each in gone] == [(0, 9), (3_600, None)]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_a_coarse_row_says_the_worst_of_what_was_so_in_its_time(
    store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    now, last_at, told = START, -inf, None
    while now < START + 7_200:
        lag = chance.choice((None, 1, 2, 3)) if chance.random() < (0.01, 0.03, 0.3)[seed] else told
        is_new = lag != told or (now - last_at > 45 and lag is not None)
        store.write("c", [Summary("g", now, lag)] if is_new else [], at=now, patience_s=45)
        last_at, told = now, lag
        now += chance.choice((60, 250, 1_000)) if chance.random() < 0.02 else 15
        if chance.random() < 0.03:
            store.condense(now - 45)

    def shown() -> list[tuple[float, int | None]]:
        rows = store.read("c", "g", START, last_at)
        gaps = store.gaps("c", rows[0].at, last_at, 45)
        return [(row.at, row.lag) for row in with_gaps(rows, gaps)]

    fine = shown()
    for days, seconds in ((2, 300), (40, 3_600)):
        store.condense(START + days * DAY)
        coarse = shown()
        for moment in range(int(START) + 1, int(last_at), 20):
            begin = moment // seconds * seconds
            true = {lag for at, lag in fine if begin < at < begin + seconds}
            true.add(value_at(fine, begin))
            assert value_at(coarse, moment) in {None, *sorted(filter(None, true))[-1:]} & true


def value_at(rows: list[tuple[float, int | None]], moment: float) -> int | None:
    return next((lag for at, lag in reversed(rows) if at <= moment), None)


def test_a_span_that_is_not_whole_is_joined_when_it_is(store: Store) -> None:
    look(store, 600)
    write(store, [Summary("g", START + 10, 9)])
    for now in (299, 300, 599):
        store.condense(START + now)
    write(store, [Summary("g", START + 595, 12)])
    assert joined_lags(store, START + 2 * DAY) == [(0, 9), (300, 12), (600, 12)]


def test_single_polls_go_before_what_was_joined_of_them(store: Store) -> None:
    for minute in range(60):
        write(store, [Summary("g", START + 60 * minute + 1, minute)])
    store.condense(START + 3_600)
    found = ats(store, START, START + 3_600)
    assert [seconds for seconds, _ in found] == [POLL] * 60


def test_a_gap_is_where_polls_did_not_follow_each_other(store: Store) -> None:
    for second in (0, 30, 60, 500, 530, 575):
        store.write("c", [], at=START + second, patience_s=45)
    store.write("elsewhere", [], at=START + 200, patience_s=45)

    def gaps(since: float, until: float) -> list[tuple[float, float]]:
        found = store.gaps("c", START + since, START + until, patience_s=45)
        return [(begin - START, end - START) for begin, end in found]

    assert gaps(0, 600) == gaps(-50, 620) == [(60, 500)]
    assert gaps(40, 300) == [(60, inf)]  # until then nobody had looked again
    assert gaps(0, 100) == []
    assert gaps(510, 620) == []
    assert gaps(510, 621) == [(575, inf)]
    assert gaps(-500, -100) == []


def test_two_monitors_and_a_clock_that_goes_back_make_no_gap(store: Store) -> None:
    for second in (100, 130, 115, 160, 20, 50, 145):
        store.write("c", [], at=START + second, patience_s=45)
    assert store.gaps("c", START, START + 170, patience_s=45) == [(START + 50, START + 100)]


def test_a_gap_is_a_row_that_knows_nothing() -> None:
    def at(second: float, seconds: int = POLL) -> Summary:
        return Summary("g", second, 7, seconds=seconds)

    def nothing(second: float) -> Summary:
        return Summary("g", second + 0.001)

    gap = Gap(400, 1_000)
    assert with_gaps([], [gap]) == []
    assert with_gaps([at(100), at(1_000)], [gap]) == [at(100), nothing(400), at(1_000)]
    assert with_gaps([at(400), at(1_000)], [gap]) == [at(400), nothing(400), at(1_000)]
    assert with_gaps([at(500)], [gap]) == [at(500)]  # before its first row nothing is told anyway
    # a row of many polls begins where the gap ends in it
    coarse = [at(0, 300), at(300, 300), at(900, 300), at(1_200, 300)]
    cut = [at(0, 300), at(300, 300), nothing(400), at(1_000, 300), at(1_200, 300)]
    assert with_gaps(coarse, [gap]) == cut
    assert with_gaps(coarse[2:], [gap]) == cut[3:]
    # and is too coarse for one of its own, if what it says was seen again
    assert with_gaps(coarse, [Gap(40, 50)]) == coarse
    assert with_gaps(coarse, [Gap(400, 500)]) == [*coarse[:2], nothing(400), *coarse[2:]]
    assert with_gaps(coarse, [Gap(310, 350), gap]) == [*cut[:2], nothing(310), *cut[2:]]
    assert with_gaps(coarse, [Gap(20, 50), gap]) == cut


LONG = "".join(random.Random(7).choices("0123456789abcdef", k=30_000))  # that no index compresses
ODD = ["nul\0nul", LONG, f"{LONG}\0", "half a pair \ud800", "\0", ""]
"""Ids of groups that Kafka takes, and PostgreSQL or a driver does not, but for the last."""


@pytest.mark.parametrize("groups", [0, 1, 20])
def test_what_the_database_does_not_take_costs_only_itself_and_is_told_once(
    store: Store, groups: int
) -> None:
    well = [f"g{number}" for number in range(groups)]
    names = [*well, *ODD]
    random.Random(3).shuffle(names)
    with capture_logs() as told:
        for second in (0, 15):
            rows = [Summary(name, START + second, second) for name in names]
            store.write("c", rows, at=START + second, patience_s=45)
            kept = [KeptRow("group", name, "{}") for name in names]
            store.keep("c", [KeptRow("polls", "", "{}"), *kept], anew=second == 0)
    for name in (*well, ""):
        assert [row.lag for row in store.read("c", name, START, START + 15)] == [0, 15]
    assert {row.name for row in store.kept("c")} >= {*well, ""}
    assert ("polls", "", "{}") in store.kept("c")
    assert store.gaps("c", START, START + 15, 45) == []
    not_taken = [name for name in ODD if not store.read("c", name, START, START + 15)]
    assert len(store.not_taken) == len(not_taken)
    assert len(told) == len(not_taken)  # once each
    assert "half a pair \ud800" in not_taken
    for line in told:
        assert len(line["name"]) <= 80
        assert line["name"].isprintable()
        assert line["cluster"] == "c"
    # one that is gone, or too large to be kept, is none that can be asked for either
    store.keep("c", [KeptRow("group", name, None) for name in names], anew=False)
    assert [row.name for row in store.kept("c")] == [""]


def test_a_number_that_the_database_does_not_take_costs_its_group_only(store: Store) -> None:
    write(store, [Summary("huge", START, 2**70), Summary("g", START, 5)])
    assert [row.lag for row in store.read("c", "g", START, START)] == [5]
    assert not store.read("c", "huge", START, START)


def test_a_fault_that_no_row_causes_is_none_of_any_row(store: Store) -> None:
    METADATA.drop_all(store._engine)
    with pytest.raises(SQLAlchemyError):
        write(store, [Summary("nul\0nul", START), Summary("g", START)])
    with pytest.raises((SQLAlchemyError, ValueError)):
        write(store, [Summary("g", START), Summary("h", START)], cluster="half \ud800")
    assert not len(store.not_taken)


def test_ids_without_end_do_not_fill_the_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.history.not_taken.MAX_REMEMBERED", 3)
    for number in range(10):
        write(store, [Summary(f"{number}\ud800", START + number)])
    assert len(store.not_taken) <= 3


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:geheim@h/d", "postgresql:/", "sqlite"])
def test_a_url_of_another_kind_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///FILE") as refused:
        Store(url)
    assert "geheim" not in str(refused.value)
