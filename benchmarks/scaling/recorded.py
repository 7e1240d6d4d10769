"""Curves that `python -m benchmarks.scaling_record` recorded from the running order system."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Self

from benchmarks.scaling.curves import Curve

FOLDER: Final = Path(__file__).parent / "recorded"
NOBODY: Final = "-"
# Consumers commit once a batch: over so many seconds on either side progress is even.
WINDOW_SECONDS: Final = 4
# What is fetched and not yet committed is no backlog.
IN_FLIGHT: Final = 30
# Where all stand still, as in a rebalance: the simulation divides by what one manages.
LEAST_CAPACITY: Final = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """One look at a group: `seconds` since the start, and what happened since the look before.

    `owners` has a letter for the member of each partition; `came` and `done` are messages by partition.
    """

    seconds: float
    owners: str
    came: tuple[int, ...]
    done: tuple[int, ...]
    lag_seconds: float

    def cells(self) -> list[object]:
        """Return it as a row of the file."""
        return [
            f"{self.seconds:.2f}", self.owners, *self.came, *self.done, f"{self.lag_seconds:.1f}"
        ]  # fmt: skip

    @classmethod
    def of(cls, cells: Sequence[str]) -> Self:
        """Return what a row of the file says; raises ValueError where it says nothing of the kind."""
        seconds, owners, *counts, lag_seconds = cells
        partitions = len(owners)
        came, done = counts[:partitions], counts[partitions:]
        if len(came) != len(done):
            raise ValueError(f"{len(counts)} counts of {partitions} partitions: {cells}")
        return cls(
            float(seconds), owners, tuple(map(int, came)), tuple(map(int, done)), float(lag_seconds)
        )


def heading(partitions: int) -> list[str]:
    """Return the names of the columns."""
    return [
        "seconds", "owners",
        *(f"{what} {number}" for what in ("came", "done") for number in range(partitions)),
        "lag seconds",
    ]  # fmt: skip


def read(file: Path) -> tuple[str, list[Row]]:
    """Return what was done to the system, and what was seen of it."""
    told, _, *lines = file.read_text().splitlines()
    return told.removeprefix("# "), [Row.of(cells) for cells in csv.reader(lines)]


def load(file: Path) -> Curve:
    """Return what came, and what one consumer managed meanwhile, second by second."""
    told, rows = read(file)
    seconds = len(rows)
    managed = capacities(rows)
    usual = median(managed)
    return Curve(
        f"recorded {file.stem}",
        told,
        rate=lambda second: float(sum(rows[second].came)),
        seconds=seconds,
        capacity=lambda second: managed[second],
        usual_capacity=usual,
        recorded=[row.came for row in rows],
        partitions=len(rows[0].owners),
    )


def capacities(rows: Sequence[Row]) -> list[float]:
    """Return what one consumer managed around each second; known only while messages waited for it.

    Where none waited it is what it was before, or what it came to be: a consumer without backlog shows
    only what came.
    """
    found: list[float | None] = []
    unread = _unread(rows)
    for number in range(len(rows)):
        first = max(0, number - WINDOW_SECONDS)
        window = range(first, min(len(rows), number + WINDOW_SECONDS + 1))
        found.append(_managed(rows, unread, window))
    known = next((each for each in found if each is not None), None)
    if known is None:
        raise ValueError("no consumer ever had a backlog: what one manages was not recorded")
    managed = []
    for each in found:
        known = known if each is None else max(each, LEAST_CAPACITY)
        managed.append(known)
    return managed


def _managed(rows: Sequence[Row], unread: Sequence[Sequence[int]], window: range) -> float | None:
    """Return the mean rate of the consumers for which messages waited all the time; None without any."""
    held: dict[str, list[int]] = {}
    for partition in range(len(rows[0].owners)):
        owners = [rows[second].owners[partition] for second in window]
        # in the middle of a rebalance nobody is told to hold it: whoever did, stands still
        owner = next((each for each in reversed(owners) if each != NOBODY), NOBODY)
        held.setdefault(owner, []).append(partition)
    elapsed = rows[window[-1]].seconds - rows[window[0]].seconds
    rates = [
        sum(rows[second].done[p] for second in window[1:] for p in partitions) / elapsed
        for partitions in held.values()
        if all(sum(unread[second][p] for p in partitions) > IN_FLIGHT for second in window)
    ]
    return sum(rates) / len(rates) if rates else None


def _unread(rows: Sequence[Row]) -> list[list[int]]:
    """Return what waited after each row, by partition; nothing waited before the first."""
    waiting = [0] * len(rows[0].owners)
    found = []
    for row in rows:
        waiting = [
            w + came - done for w, came, done in zip(waiting, row.came, row.done, strict=True)
        ]
        found.append(list(waiting))
    return found
