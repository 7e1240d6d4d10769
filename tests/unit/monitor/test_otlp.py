from __future__ import annotations

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from monitor.commands import main
from monitor.exposition.series import Level
from monitor.otlp.push import Pusher
from monitor.otlp.settings import push_interval
from monitor.settings import SettingsError
from order_services.local.ports import free_port
from tests.support.collector import StandInCollector, standing_in
from tests.unit.monitor.watched_cluster import WatchedCluster


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInCollector]:
    with standing_in() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
        yield collector


def make(**poller: Any) -> WatchedCluster:
    watched = WatchedCluster(**poller)
    watched.cluster.create("orders", 3)
    watched.cluster.append_to_all("orders", 10)
    watched.cluster.commit("g", "orders", 4, 10, 10)
    watched.cluster.join("g", "orders")
    watched.poll(2)
    return watched


def test_groups_are_pushed_with_the_names_of_the_page(collector: StandInCollector) -> None:
    watched = make(cluster="east")
    pusher = Pusher(lambda: [watched.poller])
    assert pusher.push()
    assert collector.paths == ["/v1/metrics"]
    points = collector.points()
    assert points["kafka_consumergroup_lag"] == [({"cluster": "east", "consumergroup": "g"}, 6)]
    assert points["kafka_monitor_up"] == [({"cluster": "east"}, 1)]
    page = watched.poller.page().plain.decode()
    assert set(points) <= {line.split()[2] for line in page.splitlines() if line[:6] == "# TYPE"}
    assert not any("partition" in labels for of in points.values() for labels, _ in of)
    seen_ns = round(watched.clock.wall() * 1e9)
    by_name = {metric.name: metric for metric in collector.metrics()}
    (point,) = by_name["kafka_consumergroup_lag"].gauge.data_points
    assert abs(point.time_unix_nano - seen_ns) < 1_000
    seconds = by_name["kafka_consumergroup_lag_seconds_max"]
    assert (seconds.unit, seconds.description != "") == ("s", True)
    counter = by_name["kafka_consumergroup_rebalances_total"].sum
    assert counter.is_monotonic
    assert counter.aggregation_temporality == 2  # cumulative
    assert 0 < counter.data_points[0].start_time_unix_nano <= time.time_ns()
    pusher.stop()


def test_partitions_are_pushed_where_that_is_asked_for(collector: StandInCollector) -> None:
    watched = make()
    pusher = Pusher(lambda: [watched.poller], Level.PARTITION)
    assert pusher.push()
    lags = collector.points()["kafka_consumergroup_lag"]
    assert sorted((labels["partition"], value) for labels, value in lags) == [
        ("0", 6),
        ("1", 0),
        ("2", 0),
    ]
    assert all("cluster" not in labels for labels, _ in lags)
    pusher.stop()


def test_several_clusters_are_one_push(collector: StandInCollector) -> None:
    east, west = make(cluster="east"), make(cluster="west")
    pusher = Pusher(lambda: [east.poller, west.poller])
    assert pusher.push()
    assert len(collector.pushes) == 1
    lags = collector.points()["kafka_consumergroup_lag"]
    assert [labels["cluster"] for labels, _ in lags] == ["east", "west"]
    pusher.stop()


def test_the_standard_variables_are_heard(
    collector: StandInCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "lag")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{collector.url}/other")
    pusher = Pusher(lambda: [make().poller])
    assert pusher.push()
    assert collector.paths == ["/other"]
    assert collector.headers[0]["api-key"] == "secret"
    assert collector.headers[0]["content-encoding"] == "gzip"
    resource = collector.resource()
    assert (resource["service.name"], resource["deployment.environment"]) == ("lag", "test")
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    pusher = Pusher(lambda: [make().poller])
    assert pusher.push()
    assert collector.resource()["service.name"] == "kafka-lag-monitor"


def test_a_group_that_is_gone_is_pushed_no_more(collector: StandInCollector) -> None:
    watched = make()
    pusher = Pusher(lambda: [watched.poller])
    pusher.push()
    del watched.cluster.groups["g"]
    watched.poll(2)
    pusher.push()
    assert "kafka_consumergroup_lag" not in collector.points()
    pusher.stop()


def told(pusher: Pusher) -> dict[str, float]:
    """Return what the page has about pushing."""
    found: dict[str, float] = {}
    for metric, series in pusher.block().samples().items():
        assert isinstance(series, dict)
        if series:
            (found[metric.name],) = series.values()
    return found


def test_a_collector_that_is_away_costs_a_metric_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = make()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with capture_logs() as logs:
        pusher = Pusher(lambda: [watched.poller])
        assert told(pusher) == {}
        assert not pusher.push()
        assert not pusher.push()
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "the OpenTelemetry collector takes nothing")
    ]
    assert logs[0]["cause"] == "Connection refused"
    assert told(pusher) == {"kafka_monitor_otlp_up": 0}
    assert watched.poller.unready_reason() is None
    pusher.stop()


def test_a_collector_that_refuses_and_is_well_again(collector: StandInCollector) -> None:
    watched = make()
    pusher = Pusher(lambda: [watched.poller])
    collector.status = HTTPStatus.UNAUTHORIZED
    with capture_logs() as logs:
        assert not pusher.push()
        assert told(pusher)["kafka_monitor_otlp_up"] == 0
        collector.status = HTTPStatus.OK
        assert pusher.push()
    assert "401" in logs[0]["cause"]
    assert logs[1]["event"] == "the OpenTelemetry collector takes what is pushed"
    now = told(pusher)
    assert now["kafka_monitor_otlp_up"] == 1
    assert abs(now["kafka_monitor_otlp_last_push_timestamp_seconds"] - time.time()) < 10
    pusher.stop()


def test_it_pushes_by_itself_beside_the_polls(collector: StandInCollector) -> None:
    watched = make()
    pusher = Pusher(lambda: [watched.poller])
    pusher.start(3_600)
    assert collector.came.wait(10)
    pusher.stop()


def test_stopping_waits_for_no_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    watched = make()
    pusher = Pusher(lambda: [watched.poller])
    pusher.start(3_600)
    time.sleep(0.5)
    began = time.monotonic()
    pusher.stop()
    assert time.monotonic() - began < 4


def test_nothing_is_pushed_unless_it_is_asked_for() -> None:
    assert push_interval({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}) is None
    assert push_interval({"OTEL_METRICS_EXPORTER": "none"}) is None
    asked = {"OTEL_METRICS_EXPORTER": "otlp"}
    assert push_interval(asked) == 60
    assert push_interval({**asked, "OTEL_METRIC_EXPORT_INTERVAL": "15000"}) == 15
    assert push_interval({**asked, "OTEL_SDK_DISABLED": "true"}) is None
    for name, value in (
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ):
        with pytest.raises(SettingsError, match=name):
            push_interval({**asked, name: value})


def test_a_setting_that_cannot_be_used_is_one_line_and_exit_code_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    result = CliRunner().invoke(main, ["serve"])
    assert result.exit_code == 2
    assert "only http/protobuf is spoken" in result.output
    assert len(result.output.strip().splitlines()) == 1
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    monkeypatch.setitem(__import__("sys").modules, "monitor.otlp.push", None)
    result = CliRunner().invoke(main, ["serve"])
    assert result.exit_code == 2
    assert "pip install 'kafka-lag-monitor[otlp]'" in result.output
