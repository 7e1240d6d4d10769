"""The monitor's chart, as far as it can be held to anything without Helm."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from monitor.configuration import read_configuration
from monitor.settings import MonitorSettings
from scripts.kubernetes import CHART
from tests.unit.deploy import dockerfile
from tests.unit.deploy.compose import REPOSITORY

FOLDER = REPOSITORY / CHART
SCHEMA: dict[str, Any] = json.loads((FOLDER / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
TEMPLATES = "\n".join(path.read_text() for path in sorted((FOLDER / "templates").rglob("*.*")))


def refuse(change: Mapping[str, Any]) -> None:
    values = copy.deepcopy(VALUES)
    for path, value in change.items():
        *parents, last = path.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_the_default_values_are_valid_and_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 2},
        {"serviceMonitor.enable": True},
        {"replicaCount": "two"},
        {"serviceMonitor.interval": "15"},
        {"image.digest": "abc"},
        {"service.port": 0},
        # the chart's own: a probe would ask elsewhere
        {"config": {"port": 9000}},
        {"config": {"host": "127.0.0.1"}},
        {"history.claim": "mine"},
    ],
)
def test_a_misspelt_or_impossible_value_is_refused(change: dict[str, Any]) -> None:
    refuse(change)


def _paths(section: Mapping[str, Any], names: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Yield the path of every value that the schema knows; maps of the user's own are one value."""
    for name, schema in names.items():
        inner = schema.get("properties")
        if inner is None:
            yield f"{before}{name}"
        else:
            assert section[name].keys() == inner.keys(), f"{before}{name}"
            yield from _paths(section[name], inner, f"{before}{name}.")


def test_every_value_has_a_default_and_is_used() -> None:
    names = {name: each for name, each in SCHEMA["properties"].items() if name != "global"}
    assert VALUES.keys() == names.keys()
    for path in _paths(VALUES, names):
        assert re.search(rf"\.Values\.{re.escape(path)}\b", TEMPLATES), path
    for used in re.findall(r"\.Values\.([A-Za-z.]+)", TEMPLATES):
        section: Any = VALUES
        for part in used.split("."):
            assert part in section, f"a template uses {used}, which is no value"
            section = section[part]


def test_the_default_settings_file_is_one_that_the_monitor_reads(tmp_path: Path) -> None:
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml.safe_dump(VALUES["config"]))
    kafka, _ = read_configuration(file).one()
    assert kafka.bootstrap_servers == ("kafka:9092",)


def test_the_chart_is_of_the_packages_version_and_serves_the_monitors_port() -> None:
    chart = yaml.safe_load((FOLDER / "Chart.yaml").read_text())
    version = re.search(
        r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert version
    assert chart["appVersion"] == version[1]
    assert VALUES["service"]["port"] == MonitorSettings.model_fields["port"].default


def test_the_history_is_where_the_image_keeps_it() -> None:
    deployment = (FOLDER / "templates" / "deployment.yaml").read_text()
    place = dockerfile.environment("monitor")["STATE_DIRECTORY"]
    assert f"- name: history\n              mountPath: {place}\n" in deployment
    assert f"USER {VALUES['podSecurityContext']['fsGroup']}:" in dockerfile.PATH.read_text()
