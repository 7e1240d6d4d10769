"""The history's tables on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

import pytest

from monitor.history.store import KEPT_SECONDS, Store
from monitor.history.summary import POLL, Gap, Summary, with_gaps
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
    assert [(each.seconds, each.at - START) for each in joined] == [(300, 300), (300, 600)]
    assert (joined[0].lag, joined[0].status) == (9, 3)
    assert joined[0].produced == pytest.approx(8.0)
    assert ats(store, START, START + 900) == [(300, 300), (300, 600)]


def test_what_is_kept_long_becomes_hours_and_ends(store: Store) -> None:
    write(store, [Summary("g", START + 30, 7)])
    for days in (2, 40):
        store.condense(START + days * DAY)
    assert ats(store, START, START + DAY) == [(3_600, 3_600)]
    store.condense(START + KEPT_SECONDS[3_600] + DAY)
    assert ats(store, START, START + DAY) == []


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
    # what stands for a time ends where the gap begins in it
    coarse = [at(300, 300), at(600, 300), at(1_200, 300)]
    cut = [at(300, 300), at(400, 300), nothing(400), at(1_200, 300)]
    assert with_gaps(coarse, [gap]) == cut
    # and is too coarse for one of its own
    assert with_gaps(coarse, [Gap(400, 500)]) == coarse
    assert with_gaps(coarse, [Gap(310, 350), gap]) == cut


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:geheim@h/d", "postgresql:/", "sqlite"])
def test_a_url_of_another_kind_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///FILE") as refused:
        Store(url)
    assert "geheim" not in str(refused.value)
