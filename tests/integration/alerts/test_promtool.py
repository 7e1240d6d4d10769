"""promtool's verdict on rules, their tests and prometheus.yml; and that those tests notice changes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.alert_pace import Pace
from tests.support.programs import program
from tests.support.rule_lint import load_rules


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = program("promtool", "prometheus")
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False)


def files(directory: Path) -> list[Path]:
    found = sorted(directory.glob("*.yml"))
    assert found
    return found


def test_rules_are_sound(repository: Path) -> None:
    rules = files(repository / "alerts/rules")
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *rules)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_sound_at_another_pace(repository: Path, tmp_path: Path) -> None:
    # written anew from their syntax trees, which a text in quotes does not always survive
    for path in files(repository / "alerts/rules"):
        paced = Pace().rules(yaml.safe_load(path.read_text()))
        (tmp_path / path.name).write_text(yaml.safe_dump(paced))
    done = promtool("check", "rules", *files(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_wait_and_clear_as_their_tests_say(repository: Path) -> None:
    done = promtool("test", "rules", *files(repository / "alerts/tests"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration(repository: Path) -> None:
    done = promtool("check", "config", repository / "prometheus/prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    rules = len(files(repository / "alerts/rules"))
    assert f"{rules} rule files found" in done.stdout


def without_wait(rule: dict[str, Any]) -> None:
    rule["for"] = "0s"


def never(rule: dict[str, Any]) -> None:
    rule["expr"] = f"({rule['expr']}) unless on () vector(1)"


def sticky(rule: dict[str, Any]) -> None:
    """Once it fires it does not clear."""
    rule["expr"] = f"last_over_time(({rule['expr']})[1h:1m])"


@pytest.mark.parametrize("break_it", [without_wait, never, sticky])
def test_breaking_any_alert_fails_its_tests(
    repository: Path, tmp_path: Path, break_it: Callable[[dict[str, Any]], None]
) -> None:
    alerts = shutil.copytree(repository / "alerts", tmp_path / "alerts")
    for path in files(alerts / "rules"):
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    break_it(rule)
        path.write_text(yaml.safe_dump(content))
    # each alert has a test in the others too
    others = ("scenarios", "slo-slow-burn")
    tests = [path for path in files(alerts / "tests") if path.stem not in others]
    done = promtool("test", "rules", *tests)
    noticed = set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr))
    assert noticed == {rule.name for rule in load_rules(alerts / "rules") if rule.is_alert}
