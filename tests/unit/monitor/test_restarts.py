"""A monitor that is stopped and started anew tells what one that ran through tells.

Both see the same cluster, poll by poll. What is kept goes through the rows of the database, which
are text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from monitor.analysis import kept as kept_module
from monitor.analysis.kept import Kept
from monitor.exposition.series import Level
from monitor.history.kept_rows import POLLS, KeptRow, kept_of, rows_of
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import Ask
from monitor.poller import Poller
from tests.states.model import Samples, parse
from tests.unit.monitor.model_cluster import Clock, ModelCluster, ModelGroup

INTERVAL_S: Final = 15.0
ALWAYS: Final = Intervals(metadata=1.0, start_offsets=1.0, topic_configs=1.0)
LATE: Final = 4  # series: two partitions, two groups
TOPICS: Final = ("orders", "quiet", "payments")


@dataclass
class Shelf:
    """Keeps rows as the database does; `heap` has what came, as it came."""

    rows: dict[tuple[str, str], KeptRow] = field(default_factory=dict)
    heap: list[Kept] = field(default_factory=list)
    restored: bool | None = None
    cause: str | None = None

    def keep(self, _cluster: str, kept: Kept) -> None:
        self.heap.append(kept)
        for row in rows_of(kept):
            if row.data is None:
                self.rows.pop((row.kind, row.name), None)
            else:
                self.rows[row.kind, row.name] = row

    def take_up(self, _cluster: str, restore: Callable[[Kept], None]) -> bool:
        self.restored = False
        try:
            kept = kept_of(iter(self.rows.values()))
            if kept is not None:
                restore(kept)
                self.restored = True
        except ValueError as error:
            self.cause = str(error)
        return self.restored


class Own(Clock):
    """The monotonic clock of another boot: it shows another time, and goes as fast."""

    def __init__(self, clock: Clock, ahead: float) -> None:
        self._clock, self._ahead = clock, ahead

    def wall(self) -> float:
        return self._clock.wall()

    def monotonic(self) -> float:
        return self._clock.monotonic() + self._ahead


class Seen:
    """A cluster whose answers come at moments of another monotonic clock."""

    def __init__(self, model: ModelCluster, ahead: float) -> None:
        self._model, self._ahead = model, ahead

    def ask(self, asks: Sequence[Ask[Any]], *given: Any, **named: Any) -> None:
        self._model.ask(asks, *given, **named)
        for ask in asks:
            ask.answered_at += self._ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Cluster:
    """Groups of every kind, to which things happen that are drawn once for all monitors."""

    def __init__(self, seed: int) -> None:
        self.clock = Clock()
        self.model = ModelCluster(self.clock, tells_ids=True, hides_coordinators=False)
        self.dice = random.Random(seed)
        for topic in TOPICS:
            self.model.create(topic, 2)
            for partition in (0, 1):
                self.model.append(topic, 40, partition)
        for group in ("steady", "slow", "dead", "left", "stuck", "flink"):
            self.model.groups[group] = ModelGroup()
            self.model.commit(group, "orders", 10, 10)
        self.model.commit("dead", "quiet", 5)
        for group in ("steady", "slow", "left", "stuck"):
            self.model.join(group, "orders")
        self.steps = 0

    def go_on(self) -> None:
        """Let one poll interval pass, with what happens in it."""
        self.steps += 1
        self.clock.go_on(INTERVAL_S)
        for partition in (0, 1):
            self.model.append("orders", self.dice.randint(0, 6), partition)
        self.read("steady", 8)
        self.read("flink", 5)
        if self.steps % 4 == 0:
            self.read("slow", 5)
        if self.steps % 9 == 0:
            self.model.groups["left"].members = ()
        elif self.steps % 9 == 5:
            self.model.join("left", "orders")
        if self.steps % 11 == 0:  # an operator moves it back
            self.model.groups["steady"].commits["orders"][0] = 3
        if self.steps % 13 == 0:  # unread records are deleted
            log = self.model.topics["orders"].logs[1]
            log.delete_to(min(log.start + 15, log.end))

    def read(self, group: str, most: int) -> None:
        for partition in (0, 1):
            log = self.model.topics["orders"].logs[partition]
            commits = self.model.groups[group].commits["orders"]
            commits[partition] = min(log.end, max(log.start, commits[partition]) + most)


class Monitor:
    """One process of the monitor."""

    def __init__(self, cluster: Cluster, shelf: Shelf | None, ahead: float = 0.0) -> None:
        clock = Own(cluster.clock, ahead)
        self.poller = Poller(
            Collector(
                Seen(cluster.model, ahead), ALWAYS, clock=clock.wall, monotonic=clock.monotonic
            ),
            stale_after_s=3 * INTERVAL_S,
            measures_level=Level.PARTITION,
            clock=clock.wall,
            monotonic=clock.monotonic,
            keeper=shelf,
        )

    def poll(self) -> None:
        self.poller.poll()

    def page(self) -> Samples:
        """Poll, and return what is on the page about groups."""
        self.poll()
        page = parse(self.poller.page().plain)
        return Samples({k: v for k, v in page.items() if k[0].startswith("kafka_consumergroup_")})


def differing(one: Samples, other: Samples) -> dict[Any, Any]:
    """Return what two pages tell differently, and by more than clocks and brackets do."""
    return {
        key: (one.get(key), other.get(key))
        for key in {*one, *other}
        if key not in one or key not in other
        or abs(one[key] - other[key]) > (2.0 if "seconds" in key[0] else 1e-3)
    }  # fmt: skip


def run(
    seed: int, stop_after: int, away: int, polls: int
) -> tuple[list[Samples], list[Samples], Samples, Shelf]:
    """Return the pages of a monitor that runs through, and of one that is started anew meanwhile.

    While the second is away the first makes no poll either: it missed those.
    """
    cluster, shelf = Cluster(seed), Shelf()
    through, stopped = Monitor(cluster, None), Monitor(cluster, shelf)
    for _ in range(stop_after):
        cluster.go_on()
        through.poll()
        stopped.poll()
    for _ in range(away):
        cluster.go_on()
    before = Samples(parse(stopped.poller.page().plain))
    began_anew = Monitor(cluster, shelf, ahead=-9_000.0)
    pages: tuple[list[Samples], list[Samples]] = ([], [])
    for _ in range(polls):
        cluster.go_on()
        pages[0].append(through.page())
        pages[1].append(began_anew.page())
    return (*pages, before, shelf)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("stop_after", "away"), [(3, 0), (14, 0), (44, 1)])
def test_a_restart_changes_nothing_that_is_told(seed: int, stop_after: int, away: int) -> None:
    through, anew, _, shelf = run(seed, stop_after, away, polls=14)
    assert shelf.restored, shelf.cause
    assert differing(through[0], anew[0]) == {}
    for number, (one, other) in enumerate(zip(through, anew, strict=True)):
        told = differing(one, other)
        # after a step back its search begins with fewer points, and may take a poll more
        seconds = {key for key in told if "lag_seconds" in key[0]}
        late = {key for key in seconds if None in told[key]}
        groups = {dict(labels)["consumergroup"] for _, labels in late}
        # what is told of the group is the most of those partitions that are known
        of_late = {key for key in seconds if dict(key[1])["consumergroup"] in groups}
        assert not told.keys() - of_late, f"poll {number} after the restart"
        assert len(late) <= LATE


# A wait through which nobody watched is longer than what was seen of it; one that missed polls takes
# it for a wait, and is too patient to advise anything.
RHYTHM: Final = ("kafka_consumergroup_commit_patience_seconds", "kafka_consumergroup_advice")


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.parametrize("away", [8, 40])
def test_minutes_away_are_polls_that_were_missed(seed: int, away: int) -> None:
    through, anew, before, shelf = run(seed, 44, away, polls=14)
    assert shelf.restored, shelf.cause
    for number, (one, other) in enumerate(zip(through, anew, strict=True)):
        told = {key for key in differing(one, other) if key[0] not in RHYTHM}
        late = {key for key in told if "lag_seconds" in key[0]}
        assert not told - late, f"poll {number} after the restart"
        assert len(late) <= LATE
    patience = {key: value for key, value in anew[0].items() if key[0] == RHYTHM[0]}
    assert {key: value for key, value in before.items() if key[0] == RHYTHM[0]} == patience


def test_without_what_was_kept_it_begins_anew() -> None:
    """The test of the tests above: that what they compare does tell a restart."""
    cluster = Cluster(0)
    through = Monitor(cluster, None)
    for _ in range(44):
        cluster.go_on()
        through.poll()
    cluster.go_on()
    names = {key[0] for key in differing(through.page(), Monitor(cluster, None).page())}
    for name in ("status", "rewinds_total", "rebalances_total", "commit_age_seconds",
                 "commit_patience_seconds", "messages_lost_total"):  # fmt: skip
        assert f"kafka_consumergroup_{name}" in names


def kept_for(polls: int) -> tuple[Cluster, Shelf]:
    cluster, shelf = Cluster(1), Shelf()
    monitor = Monitor(cluster, shelf)
    for _ in range(polls):
        cluster.go_on()
        monitor.poll()
    return cluster, shelf


def spoil_json(shelf: Shelf) -> None:
    shelf.rows["group", "slow"] = shelf.rows["group", "slow"]._replace(data="{broken")


def spoil_types(shelf: Shelf) -> None:
    row = shelf.rows["topic", "orders"]
    shelf.rows["topic", "orders"] = row._replace(
        data=str(row.data).replace('"times":[', '"times":["x",')
    )


def spoil_window(shelf: Shelf) -> None:
    row = shelf.rows["group", "steady"]
    data = json.loads(str(row.data))
    data["commits"]["orders"]["windows"]["0"].pop()
    shelf.rows["group", "steady"] = row._replace(data=json.dumps(data))


def another(shelf: Shelf, **fields: Any) -> None:
    row = shelf.rows[POLLS, ""]
    shelf.rows[POLLS, ""] = row._replace(data=json.dumps({**json.loads(str(row.data)), **fields}))


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (spoil_json, "this version"),
        (spoil_types, "this version"),
        (spoil_window, "within a commit"),
        (lambda shelf: another(shelf, version=kept_module.VERSION + 1), "another version"),
        (lambda shelf: another(shelf, cluster_id="other"), "another cluster, other"),
        (lambda shelf: another(shelf, times=[]), "no poll"),
        (lambda shelf: shelf.rows.pop((POLLS, "")), "another version"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_as_if_nothing_was_kept(
    spoil: Callable[[Shelf], None], cause: str
) -> None:
    cluster, shelf = kept_for(14)
    spoil(shelf)
    cluster.go_on()
    anew, unknowing = Monitor(cluster, shelf), Monitor(cluster, None)
    assert differing(anew.page(), unknowing.page()) == {}
    assert shelf.restored is False
    assert cause in str(shelf.cause)
    cluster.go_on()
    assert Monitor(cluster, shelf).page()  # and what was written then is whole again
    assert shelf.restored


@pytest.mark.parametrize(
    ("seconds", "cause"), [(2 * 86_400.0, "48 h ago"), (-600.0, "yet to come")]
)
def test_what_is_too_old_or_of_a_clock_that_was_set_is_not_gone_on_from(
    seconds: float, cause: str
) -> None:
    cluster, shelf = kept_for(14)
    if seconds > 0:
        cluster.clock.go_on(seconds)
    else:
        cluster.clock.set_wall(seconds)
    Monitor(cluster, shelf).poll()
    assert shelf.restored is False
    assert cause in str(shelf.cause)


def test_what_is_gone_is_not_kept() -> None:
    cluster, shelf = kept_for(3)
    del cluster.model.groups["dead"]
    cluster.model.topics.pop("payments")
    monitor = Monitor(cluster, shelf)
    for _ in range(3):
        cluster.go_on()
        monitor.poll()
    assert ("group", "slow") in shelf.rows
    assert ("group", "dead") not in shelf.rows
    assert ("topic", "payments") not in shelf.rows


def test_nothing_is_written_of_what_nothing_happens_to() -> None:
    cluster, shelf = kept_for(14)
    monitor = Monitor(cluster, shelf)
    cluster.go_on()
    monitor.poll()
    shelf.heap.clear()
    kept = shelf.heap
    for _ in range(6):
        cluster.clock.go_on(INTERVAL_S)
        monitor.poll()
    assert [one.polls.number for one in kept] == [16, 17, 18, 19, 20, 21]
    assert not any(one.topics for one in kept[1:])
    assert not any("dead" in one.groups for one in kept)


def test_of_two_that_were_not_written_yet_the_later_counts() -> None:
    cluster, shelf = Cluster(2), Shelf()
    kept = shelf.heap
    monitor = Monitor(cluster, shelf)
    for _ in range(5):
        cluster.go_on()
        monitor.poll()
    joined = kept[0]
    for one in kept[1:]:
        joined = joined.followed_by(one)
    assert joined.polls == kept[-1].polls
    assert joined.groups["steady"] == kept[-1].groups["steady"]
    assert joined.groups.keys() >= cluster.model.groups.keys()


def test_no_row_is_larger_than_it_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, shelf = Cluster(2), Shelf()
    kept = shelf.heap
    cluster.go_on()
    Monitor(cluster, shelf).poll()
    assert {row.name for row in rows_of(kept[0])} >= {"steady", "orders"}
    monkeypatch.setattr("monitor.history.kept_rows.MAX_BYTES", 10)
    assert {row.data for row in rows_of(kept[0]) if row.kind == "group"} == {None}
