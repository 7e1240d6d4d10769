"""What was recorded from the running order system, and what is read out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scaling.recorded import FOLDER, IN_FLIGHT, Row, capacities, load, read
from benchmarks.scaling.world import World
from benchmarks.scaling_record import SCENARIOS

MOST_BYTES = 50_000
FILES = sorted(FOLDER.glob("*.csv"))


def row(second: int, *, came: tuple[int, ...], done: tuple[int, ...], owners: str = "") -> Row:
    return Row(float(second), owners or "abcdef"[: len(came)], came, done, 0.0)


def test_a_row_is_read_as_it_was_written() -> None:
    written = Row(12.25, "aab-", (1, 2, 3, 4), (4, 3, 2, 1), 7.5)
    assert Row.of([str(cell) for cell in written.cells()]) == written


@pytest.mark.parametrize(
    "cells", [["1.0", "ab", "1", "2", "3", "0.0"], ["1.0", "a", "1", "x", "0.0"]]
)
def test_a_row_that_is_none_is_refused(cells: list[str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whoever reads the file sees which line it is
        Row.of(cells)


def test_what_one_manages_is_what_those_did_for_whom_messages_waited() -> None:
    filled = row(0, came=(1_000, IN_FLIGHT), done=(0, 0))
    rows = [filled, *(row(second, came=(0, 3), done=(20, 3)) for second in range(1, 21))]
    assert capacities(rows) == [20.0] * 21


def test_it_is_not_known_where_nobody_ever_had_a_backlog() -> None:
    rows = [row(second, came=(5, 5), done=(5, 5)) for second in range(20)]
    with pytest.raises(ValueError, match="no consumer ever had a backlog"):
        capacities(rows)


def test_in_a_rebalance_consumers_manage_next_to_nothing() -> None:
    rows = [
        row(0, came=(5_000,), done=(0,)),
        *(row(second, came=(0,), done=(20,)) for second in range(1, 30)),
        *(row(second, came=(0,), done=(0,), owners="-") for second in range(30, 50)),
        *(row(second, came=(0,), done=(20,)) for second in range(50, 80)),
    ]
    found = capacities(rows)
    assert found[15] == found[65] == 20.0
    assert 0 < found[40] < 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recording_is_whole_small_and_of_what_is_described(file: Path) -> None:
    told, rows = read(file)
    scenario = SCENARIOS[file.stem]
    assert (told, len(rows)) == (scenario.told, scenario.seconds)
    assert file.stat().st_size < MOST_BYTES
    for partition in range(len(rows[0].owners)):
        came = sum(each.came[partition] for each in rows)
        assert came >= sum(each.done[partition] for each in rows) > 0


def test_the_simulation_comes_to_the_lag_that_was_seen() -> None:
    _, rows = read(FOLDER / "step.csv")
    curve = load(FOLDER / "step.csv")
    assert {len(set(each.owners)) for each in rows} == {curve.consumers_at_first}
    world = World(curve)
    for _ in rows:
        world.step()
    assert max(world.lag_seconds) == pytest.approx(max(each.lag_seconds for each in rows), rel=0.2)
