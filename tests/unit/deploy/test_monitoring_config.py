"""Prometheus and Grafana inside docker compose, against the compose files and our own sources."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from order_services.domain.services import SERVICES
from tests.unit.deploy import compose

DEPLOY = compose.REPOSITORY / "deploy"


def _yaml(path: str) -> dict[str, Any]:
    found = yaml.safe_load((compose.REPOSITORY / path).read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def prometheus() -> dict[str, Any]:
    return _yaml("deploy/prometheus/prometheus.yml")


def _job(prometheus: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [job for job in prometheus["scrape_configs"] if job["job_name"] == name]
    assert isinstance(found, dict)
    return found


def test_the_jobs_and_intervals_are_those_that_rules_and_dashboards_were_written_for(
    prometheus: dict[str, Any],
) -> None:
    ours = _yaml("prometheus/prometheus.yml")
    assert {**prometheus["global"], "external_labels": None} == {
        **ours["global"],
        "external_labels": None,
    }
    names = {job["job_name"] for job in ours["scrape_configs"]}
    assert {job["job_name"] for job in prometheus["scrape_configs"]} == names


@pytest.mark.parametrize("name", compose.FILES)
def test_every_replica_of_every_service_is_found_by_its_name_and_port(
    prometheus: dict[str, Any], name: str
) -> None:
    definitions = compose.services(name)
    job = _job(prometheus, "order-services")
    (rule,) = job["relabel_configs"]
    assert rule["source_labels"] == ["__meta_dns_name"]
    assert rule["target_label"] == "service"
    found = {}
    for lookup in job["dns_sd_configs"]:
        (host,) = lookup["names"]
        assert lookup["type"] == "A"
        assert int(definitions[host]["environment"]["PORT"]) == lookup["port"]
        match = re.fullmatch(rule["regex"], host)  # Prometheus, too, matches the whole text
        assert match
        found[match[1]] = host
        assert definitions[host]["command"] == ["run", match[1]]
    assert set(found) == set(SERVICES)


def test_the_monitor_and_alertmanager_are_where_prometheus_looks(
    prometheus: dict[str, Any],
) -> None:
    definitions = compose.services("docker-compose.yml")
    (monitor,) = _job(prometheus, "kafka-monitor")["static_configs"]
    assert monitor["targets"] == [
        f"monitor:{definitions['monitor']['environment']['MONITOR_PORT']}"
    ]
    (manager,) = prometheus["alerting"]["alertmanagers"]
    (target,) = manager["static_configs"]
    assert target["targets"] == ["alertmanager:9093"]


ADDRESSES = {"dashboards": "DASHBOARDS_URL", "runbooks": "RUNBOOKS_URL"}


def test_links_of_alerts_begin_with_two_addresses_from_the_environment(
    prometheus: dict[str, Any],
) -> None:
    labels = {name: f"${{{variable}}}" for name, variable in ADDRESSES.items()}
    assert prometheus["global"]["external_labels"] == labels
    environment = compose.services("docker-compose.yml")["prometheus"]["environment"]
    assert set(environment) == set(ADDRESSES.values())
    # a browser on this machine finds both in Grafana, which serves runbooks below /public
    grafana = compose.services("docker-compose.yml")["grafana"]
    (address,) = {
        f"http://{host}:{port}"
        for host, port, inside in compose.published(grafana)
        if inside == 3000
    }
    assert environment["DASHBOARDS_URL"] == address
    assert environment["RUNBOOKS_URL"] == f"{address}/public"


@pytest.mark.parametrize("path", ["prometheus/prometheus.yml", "deploy/prometheus/prometheus.yml"])
def test_the_addresses_are_no_labels_of_alerts(path: str) -> None:
    (rule,) = _yaml(path)["alerting"]["alert_relabel_configs"]
    assert rule["action"] == "labeldrop"
    assert all(re.fullmatch(rule["regex"], name) for name in ADDRESSES)
    assert not re.fullmatch(rule["regex"], "cluster")


def test_the_commented_addresses_are_what_rules_ask_for() -> None:
    text = (compose.REPOSITORY / "prometheus/prometheus.yml").read_text()
    shown = yaml.safe_load(
        "\n".join(re.findall(r"(?m)^  # (external_labels:|  \w+: https://\S+)$", text))
    )
    assert set(shown["external_labels"]) == set(ADDRESSES)
    assert not any(url.endswith("/") for url in shown["external_labels"].values())


def test_grafana_asks_our_prometheus() -> None:
    (source,) = _yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
    assert source["isDefault"], "dashboards leave the choice to a variable, which begins with it"
    host, port = re.fullmatch(r"http://([a-z]+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]  # no match is a failure, too
    definition = compose.services("docker-compose.yml")[host]
    assert int(port) in {container for _, _, container in compose.published(definition)}
    interval = _yaml("deploy/prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


def test_grafana_loads_every_dashboard_that_we_generate() -> None:
    (provider,) = _yaml("deploy/grafana/provisioning/dashboards/dashboards.yml")["providers"]
    grafana = compose.services("docker-compose.yml")["grafana"]
    sources = {target: source for source, target, _ in compose.mounts(grafana)}
    folder = compose.REPOSITORY / sources[provider["options"]["path"]]
    files = sorted(folder.glob("*.json"))
    assert files, f"no dashboard in {folder}"
    uids = [json.loads(file.read_text())["uid"] for file in files]
    assert len(set(uids)) == len(uids), "Grafana loads one of two dashboards with the same uid"


def test_grafana_has_the_runbooks_where_alerts_link_to() -> None:
    grafana = compose.services("docker-compose.yml")["grafana"]
    targets = {source: target for source, target, _ in compose.mounts(grafana)}
    # Grafana serves this folder as /public/
    assert targets["./alerts/runbooks"] == "/usr/share/grafana/public/alerts/runbooks"
