"""`python -m dashboards`, which `make dashboards` runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dashboards import __main__ as command


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "GENERATED", tmp_path)
    return tmp_path


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dashboards", *arguments])
    return command.main()


def test_a_difference_fails_the_check_and_is_gone_after_a_build(
    generated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (generated / "deleted.json").write_text("{}")
    assert _run(monkeypatch, "--check") == 1
    assert "overview.json: differs from its source" in capsys.readouterr().out
    assert _run(monkeypatch) == 0
    assert not (generated / "deleted.json").exists()
    assert _run(monkeypatch, "--check") == 0


def test_a_mistake_in_a_source_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "SOURCES", tmp_path)
    (tmp_path / "wrong.yaml").write_text(
        "- {name: p, project: {dashboards: [d]}}\n- {name: d, dashboard: {titel: x}}\n"
    )
    assert _run(monkeypatch) == 2
    assert capsys.readouterr().err == "dashboard 'd': unknown keys ['titel']\n"


def test_a_key_that_is_missing_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "SOURCES", tmp_path)
    (tmp_path / "wrong.yaml").write_text(
        "- {name: p, project: {dashboards: [d]}}\n- {name: d, dashboard: {uid: x}}\n"
    )
    assert _run(monkeypatch) == 2
    assert "missing keys ['description', 'rows', 'tags', 'title']" in capsys.readouterr().err
