"""amtool's verdict on alertmanager.yml, also with the receivers that are there to be uncommented."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import program


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = program("amtool", "prometheus-alertmanager")
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def config(repository: Path) -> Path:
    return repository / "prometheus/alertmanager.yml"


def test_alertmanager_takes_its_configuration_and_templates(config: Path) -> None:
    done = amtool("check-config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 templates" in done.stdout


def test_the_places_for_pager_and_chat_work_when_they_are_uncommented(
    config: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(config.parent, tmp_path / "prometheus") / config.name
    text, changed = re.subn(
        r"(?m)^    # ( *(?:pagerduty|slack)_configs:|  )", r"    \1", copy.read_text()
    )
    assert changed > 5
    assert "# " not in text.split("receivers:")[1].split("inhibit_rules:")[0].split("\n", 3)[3]
    copy.write_text(text)
    done = amtool("check-config", copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "pager"), ("warning", "chat"), ("info", "chat")]
)
def test_only_what_is_critical_pages(config: Path, severity: str, receiver: str) -> None:
    done = amtool("config", "routes", "test", f"--config.file={config}", f"severity={severity}")
    assert done.stdout.strip() == receiver
