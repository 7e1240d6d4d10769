"""The history's tables on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.history.store import KEPT_SECONDS, POLL, Store, Summary
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


def ats(store: Store, since: float, until: float, group: str = "g") -> list[tuple[int, float]]:
    return [(each.seconds, each.at - START) for each in store.read("c", group, since, until)]


def test_what_is_written_is_read_oldest_first_with_the_row_that_holds_at_the_beginning(
    store: Store,
) -> None:
    whole = Summary("g", START + 20, 5, 1.5, START + 18.5, 2, 1, 10.0, 9.5, 3)
    store.write("c", [whole, Summary("g", START), Summary("other", START + 20)])
    store.write("c", [Summary("g", START + 60)])
    store.write("elsewhere", [Summary("g", START + 30)])
    assert store.read("c", "g", START + 20, START + 60)[0] == whole
    assert ats(store, START + 40, START + 100) == [(POLL, 20), (POLL, 60)]
    assert ats(store, START + 10, START + 30) == [(POLL, 0), (POLL, 20)]
    assert ats(store, START - 100, START - 50) == []
    assert store.read("c", "unknown", START, START + 100) == []
    store.write("c", [])


def test_rows_are_joined_to_coarser_ones_once_and_the_worst_counts(store: Store) -> None:
    for second, lag, status in ((10, 1, 1), (20, 9, 3), (290, 2, 2), (310, 4, 1)):
        store.write(
            "c", [Summary("g", START + second, lag, lag / 1, None, 1, status, 2.0 * lag, 1.0)]
        )
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
    store.write("c", [Summary("g", START + 30, 7)])
    for days in (2, 40):
        store.condense(START + days * DAY)
    assert ats(store, START, START + DAY) == [(3_600, 3_600)]
    store.condense(START + KEPT_SECONDS[3_600] + DAY)
    assert ats(store, START, START + DAY) == []


def test_single_polls_go_before_what_was_joined_of_them(store: Store) -> None:
    for minute in range(60):
        store.write("c", [Summary("g", START + 60 * minute + 1, minute)])
    store.condense(START + 3_600)
    found = ats(store, START, START + 3_600)
    assert [seconds for seconds, _ in found] == [POLL] * 60


def test_the_newest_memory_counts(store: Store) -> None:
    assert store.load_memory("c") is None
    store.save_memory("c", START, b"one")
    store.save_memory("c", START + 5, b"two")
    store.save_memory("c", START + 1, b"late")
    assert store.load_memory("c") == (START + 5, b"two")
    assert store.load_memory("d") is None


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:geheim@h/d", "postgresql:/", "sqlite"])
def test_a_url_of_another_kind_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///FILE") as refused:
        Store(url)
    assert "geheim" not in str(refused.value)
