"""States of several monitors under one Prometheus, and of several clusters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.states import promtool
from tests.states.fake_states import MINUTES, FakeScene
from tests.states.model import Fired, Samples
from tests.states.stage import run, watching

GROUP = "shared"


def pages(set_up: Callable[[FakeScene], None], **settings: Any) -> Sequence[Samples]:
    scene = FakeScene(GROUP)
    set_up(scene)
    watch = watching(scene.cluster, scene.clock, None, settings)
    run(scene.clock.go_on, scene.steps, [watch], MINUTES)
    return watch.pages


def behind(scene: FakeScene) -> None:
    """A live group with a few messages to go."""
    scene.live(lag=5)


def stopped(scene: FakeScene) -> None:
    """A group that loses its member in the fifth minute while others go on writing."""
    scene.live()

    def stop() -> None:
        scene.cluster.groups[GROUP].members = ()
        scene.steps[:] = [lambda _: scene.cluster.append_to_all(GROUP, 5)]

    scene.at(5, stop)


def all_read(scene: FakeScene) -> None:
    """A group that has read everything, and lost its members."""
    scene.live()

    def stop() -> None:
        scene.cluster.groups[GROUP].members = ()
        scene.steps.clear()

    scene.at(5, stop)


def names(fired: Sequence[Fired], cluster: str | None = None) -> set[str]:
    return {
        one.name
        for one in fired
        if one.labels.get("severity") != "info" and one.labels.get("cluster", cluster) == cluster
    }


def test_a_pair_of_monitors_tells_what_one_does(tmp_path: Path) -> None:
    ill, well = pages(stopped), pages(behind)
    one, two, healthy = promtool.fired(
        [{"a": ill}, {"a": ill, "b": ill}, {"a": well, "b": well}], tmp_path
    )
    assert "KafkaConsumerGroupWithoutMembers" in {alert.name for alert in one}
    assert {alert.name for alert in one} == {alert.name for alert in two}
    # each once, not once for each monitor
    assert len(one) == len(two)
    assert not healthy


def test_groups_of_one_id_in_two_clusters_are_two(tmp_path: Path) -> None:
    east, west = pages(behind, cluster="east"), pages(all_read, cluster="west")
    ill = pages(stopped, cluster="west")
    neither, one = promtool.fired([{"a": east, "b": west}, {"a": east, "b": ill}], tmp_path)
    # a lag here and no members there are no dead group
    assert not neither
    assert "KafkaConsumerGroupWithoutMembers" in names(one, "west")
    assert not names(one, "east")


def test_no_panel_looks_back_for_less_than_four_scrapes_of_a_minute(repository: Path) -> None:
    short = re.compile(r"\[(?:[1-3]m|\d+s)\]")
    found = [
        f"{path.name}: {query}"
        for path in sorted((repository / "dashboards").rglob("*.yaml"))
        for query in _queries(yaml.safe_load(path.read_text()))
        if short.search(query)
    ]
    assert not found


def _queries(part: Any) -> list[str]:
    """Return all texts of a panel's source: a window is in none but queries."""
    if isinstance(part, dict):
        return [query for value in part.values() for query in _queries(value)]
    if isinstance(part, list):
        return [query for value in part for query in _queries(value)]
    return [part] if isinstance(part, str) else []
