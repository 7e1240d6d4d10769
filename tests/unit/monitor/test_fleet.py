"""Many clusters in one process: one page, each on its own, read again while they run."""

from __future__ import annotations

import gc
import gzip
import itertools
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitor.configuration import Configuration, Watched, read_configuration
from monitor.exposition.families import process
from monitor.exposition.render import Page, Parts, page_of
from monitor.exposition.series import Block
from monitor.fleet import Fleet, Watch
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC
from monitor.poller import Poller
from monitor.web.app import create_app
from tests.support.asgi import Client
from tests.unit.monitor.fake_brokers import FakeBrokers

EAST, WEST = "east", "west"
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def configured(tmp_path: Path, *names: str, **settings: Any) -> Configuration:
    entries = "".join(
        f"  - {{name: {name}, poll_interval: {settings.get(name, 3600)}, "
        f"kafka: {{bootstrap_servers: {name}:9092}}}}\n"
        for name in names
    )
    file = tmp_path / "monitor.yml"
    file.write_text(f"clusters:\n{entries}" if names else "")
    return read_configuration(file)


class Clusters:
    """Stand-ins for the brokers of each cluster, each with a group of its name."""

    def __init__(self) -> None:
        self.brokers: dict[str, FakeBrokers] = {}
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.refused: set[str] = set()

    def open(self, watched: Watched, published: Callable[[], None]) -> Watch:
        name = watched.settings.cluster or ""
        if name in self.refused:
            raise ValueError(name)
        self.opened.append(name)
        brokers = self.brokers[name] = FakeBrokers(
            groups={1: [ListedGroup(f"of-{name}", CLASSIC, "Empty", "consumer")]},
            commits={f"of-{name}": GroupCommits({"t": {0: 4}})},
        )
        poller = Poller(
            Collector(brokers, Intervals()),
            stale_after_s=45,
            cluster=watched.settings.cluster,
            published=published,
        )
        return Watch(watched, poller, lambda: self.closed.append(name))


def found(page: bytes) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def labelled(series: Series, name: str) -> set[str]:
    return {dict(labels).get("cluster", "") for (of, labels) in series if of == name}


@pytest.fixture
def clusters() -> Clusters:
    return Clusters()


def test_one_page_has_each_metric_once_and_the_series_of_all(
    clusters: Clusters, tmp_path: Path
) -> None:
    fleet = Fleet(
        configured(tmp_path, EAST, WEST), clusters.open, own_blocks=lambda: [process.block()]
    )
    for poller in fleet.pollers.values():
        poller.poll()
    page = fleet.page()
    text = page.plain
    assert gzip.decompress(page.gzipped) == text
    assert page.length == len(text)
    heads = [line for line in text.decode().splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
    series = found(text)
    for name in ("kafka_consumergroup_lag", "kafka_monitor_up", "kafka_monitor_data_age_seconds"):
        assert labelled(series, name) == {EAST, WEST}
    assert labelled(series, "process_open_fds") == {""}
    assert labelled(series, "kafka_monitor_config_last_reload_successful") == {""}


def test_a_cluster_is_not_ready_before_the_page_of_all_shows_it(
    clusters: Clusters, tmp_path: Path
) -> None:
    reasons: list[str | None] = []

    def blocks() -> list[Block]:
        # asked for while the page is made: the last one is served still
        if reasons:
            reasons.append(fleet.unready_reason())
        return []

    fleet = Fleet(configured(tmp_path), clusters.open, own_blocks=blocks)
    reasons.append(fleet.unready_reason())
    (poller,) = fleet.pollers.values()
    poller.poll()
    assert reasons == ["the first poll has not ended", "its first page is being made"]
    assert fleet.unready_reason() is None


def test_a_poll_joins_the_page_of_all_and_one_cluster_s_only_who_asks_for_it(
    clusters: Clusters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(configured(tmp_path, EAST, WEST), clusters.open)
    joined = []

    def joining(*parts: Parts) -> Page:
        joined.append(len(parts))
        return page_of(*parts)

    monkeypatch.setattr("monitor.fleet.page_of", joining)
    monkeypatch.setattr("monitor.poller.page_of", joining)
    for poller in fleet.pollers.values():
        poller.poll()
    assert joined == [3, 3]  # of both, and of the process
    fleet.page()
    assert len(joined) == 2  # a scrape joins nothing
    first, second = fleet.page_of(EAST), fleet.page_of(EAST)
    assert first is not None
    assert second is not None
    assert first.body is second.body
    assert joined == [3, 3, 1]
    assert labelled(found(first.plain), "kafka_monitor_up") == {EAST}


def test_a_cluster_that_is_away_costs_only_itself(clusters: Clusters, tmp_path: Path) -> None:
    fleet = Fleet(configured(tmp_path, EAST, WEST), clusters.open)
    clusters.brokers[WEST].down = {1, 2}
    for poller in fleet.pollers.values():
        poller.poll()
    series = found(fleet.page().plain)
    assert labelled(series, "kafka_consumergroup_lag") == {EAST}
    assert series["kafka_monitor_up", frozenset({("cluster", WEST)})] == 0
    assert fleet.unready_reason() is None
    clusters.brokers[EAST].down = {1, 2}
    alone = Fleet(configured(tmp_path, WEST), clusters.open)
    clusters.brokers[WEST].down = {1, 2}
    next(iter(alone.pollers.values())).poll()
    assert str(alone.unready_reason()).startswith("west: ")


def test_one_cluster_without_a_name_keeps_its_series(clusters: Clusters, tmp_path: Path) -> None:
    fleet = Fleet(configured(tmp_path), clusters.open)
    fleet.pollers[""].poll()
    series = found(fleet.page().plain)
    assert labelled(series, "kafka_consumergroup_lag") == {""}
    assert labelled(series, "kafka_monitor_up") == {"cluster"}
    of_poller = found(fleet.pollers[""].page().plain)
    assert of_poller.keys() <= series.keys()


def test_what_is_beside_the_clusters_and_fails_costs_itself(
    clusters: Clusters, tmp_path: Path
) -> None:
    def fail() -> Any:
        raise IndexError

    fleet = Fleet(
        configured(tmp_path),
        clusters.open,
        own_blocks=lambda: (Block((), fail, name="databases"), process.block()),
        own_failed=lambda: {("databases", ""): "no connection"},
    )
    fleet.pollers[""].poll()
    series = found(fleet.page().plain)
    failed = {dict(labels)["step"] for name, labels in series if name.endswith("internal_errors")}
    assert failed == {"exposition", "databases"}
    assert labelled(series, "process_open_fds") == {""}
    assert labelled(series, "kafka_consumergroup_lag") == {""}


def test_a_named_cluster_without_a_list_has_its_name_on_every_series(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_CLUSTER", EAST)
    fleet = Fleet(read_configuration(), clusters.open, own_blocks=lambda: [process.block()])
    for poller in fleet.pollers.values():
        poller.poll()
    series = found(fleet.page().plain)
    assert {dict(labels).get("cluster") for _, labels in series} == {EAST}


# -- read again -------------------------------------------------------------------------------


def test_settings_that_are_read_again_touch_only_the_clusters_that_changed(
    clusters: Clusters, tmp_path: Path
) -> None:
    fleet = Fleet(configured(tmp_path, EAST, WEST), clusters.open)
    fleet.start()
    same = fleet.pollers[EAST]
    fleet.reload(configured(tmp_path, EAST, "north", west=1800))
    assert list(fleet.pollers) == [EAST, "north"]
    assert fleet.pollers[EAST] is same
    assert clusters.closed == [WEST]
    fleet.reload(configured(tmp_path, EAST, "north", north=1800))
    assert fleet.pollers[EAST] is same
    assert clusters.closed == [WEST, "north"]
    assert labelled(found(fleet.page().plain), "kafka_monitor_up") == {EAST, "north"}
    fleet.stop()
    assert clusters.closed == [WEST, "north", EAST, "north"]


def test_what_cannot_be_opened_leaves_all_as_it_was(clusters: Clusters, tmp_path: Path) -> None:
    fleet = Fleet(configured(tmp_path, EAST), clusters.open)
    clusters.refused = {WEST}
    with pytest.raises(ValueError, match=WEST):
        fleet.reload(configured(tmp_path, EAST, "a", WEST))
    assert list(fleet.pollers) == [EAST]
    assert EAST not in clusters.closed
    assert sorted(clusters.closed) == sorted(set(clusters.opened) - {EAST})


def test_the_page_says_whether_the_last_settings_are_in_force(
    clusters: Clusters, tmp_path: Path
) -> None:
    fleet = Fleet(configured(tmp_path, EAST), clusters.open)
    name = ("kafka_monitor_config_last_reload_successful", frozenset[tuple[str, str]]())
    at = ("kafka_monitor_config_last_reload_success_timestamp_seconds", name[1])
    first = found(fleet.page().plain)
    fleet.note_reload(failed=True)
    wrong = found(fleet.page().plain)
    assert (first[name], wrong[name]) == (1, 0)
    assert wrong[at] == first[at]
    fleet.reload(configured(tmp_path, EAST))
    assert found(fleet.page().plain)[name] == 1


# -- on the web -------------------------------------------------------------------------------


def test_a_probe_answers_for_a_configured_name_only(clusters: Clusters, tmp_path: Path) -> None:
    fleet = Fleet(configured(tmp_path, EAST, WEST), clusters.open)
    for poller in fleet.pollers.values():
        poller.poll()
    client = Client(create_app(fleet))
    page = client.get("/probe?target=west")
    assert labelled(found(page.content), "kafka_consumergroup_lag") == {WEST}
    for query, status in {"": 400, "?target=": 400, "?target=10.0.0.1:9092": 404}.items():
        refused = client.get(f"/probe{query}")
        assert refused.status_code == status
        assert "east, west" in refused.json()["error"]["message"]


def test_the_status_page_turns_from_one_cluster_to_another(
    clusters: Clusters, tmp_path: Path
) -> None:
    fleet = Fleet(configured(tmp_path, EAST, WEST), clusters.open)
    clusters.brokers[WEST].down = {1, 2}
    for poller in fleet.pollers.values():
        poller.poll()
    client = Client(create_app(fleet))
    # the one that needs somebody comes first
    assert "Kafka lag: west" in client.get("/").text
    east = client.get("/?cluster=east").text
    assert "Kafka lag: east" in east
    assert 'href="/?cluster=west"' in east
    assert "of-east" in east
    assert client.get("/?cluster=none").status_code == 404


def test_a_cluster_that_is_watched_no_more_takes_no_memory(
    clusters: Clusters, tmp_path: Path
) -> None:
    fleet = Fleet(configured(tmp_path, EAST, WEST), clusters.open)
    client = Client(create_app(fleet))
    for poller in fleet.pollers.values():
        poller.poll()
        assert client.get(f"/?cluster={poller.cluster}").status_code == 200
    del poller
    gone = weakref.ref(fleet.pollers[WEST])
    fleet.reload(configured(tmp_path, EAST))
    gc.unfreeze()  # as every hundredth poll does
    gc.collect()
    assert gone() is None


def test_a_reload_by_http_is_allowed_by_a_setting_only(clusters: Clusters, tmp_path: Path) -> None:
    fleet = Fleet(configured(tmp_path, EAST), clusters.open)
    assert Client(create_app(fleet)).request("POST", "/-/reload").status_code == 403
    answers = itertools.cycle([None, "monitor.yml:1: no YAML"])
    client = Client(create_app(fleet, reload=lambda: next(answers)))
    assert client.request("GET", "/-/reload").status_code == 405
    assert client.request("POST", "/-/reload").status_code == 200
    wrong = client.request("POST", "/-/reload")
    assert wrong.status_code == 500
    assert wrong.json()["error"]["message"] == "monitor.yml:1: no YAML"
