"""Prometheus' and Alertmanager's own tools read what docker compose gives them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.programs import program
from tests.unit.deploy import compose


def _check(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_configuration_with_its_rules(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    service = compose.services("docker-compose.yml")["prometheus"]
    folder = compose.container_files(service, "/etc/prometheus", tmp_path)
    output = _check([promtool, "check", "config", str(folder / "prometheus.yml")])
    rules = list((compose.REPOSITORY / "alerts" / "rules").glob("*.yml"))
    assert rules
    assert f"{len(rules)} rule files found" in output


def test_promtool_refuses_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    source = compose.REPOSITORY / "deploy" / "prometheus" / "prometheus.yml"
    wrong = tmp_path / "prometheus.yml"
    wrong.write_text(source.read_text().replace("dns_sd_configs", "dns_configs"))
    with pytest.raises(AssertionError, match="dns_configs"):
        _check([promtool, "check", "config", str(wrong)])


def test_amtool_accepts_alertmanagers_configuration(tmp_path: Path) -> None:
    amtool = program("amtool", "prometheus-alertmanager")
    service = compose.services("docker-compose.yml")["alertmanager"]
    folder = compose.container_files(service, "/etc/alertmanager", tmp_path)
    output = _check([amtool, "check-config", str(folder / "alertmanager.yml")])
    assert "1 templates" in output
