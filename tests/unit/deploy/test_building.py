"""The control plane's programs, where they are not built."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kubernetes import building


@pytest.fixture(autouse=True)
def nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CACHE", tmp_path)


def test_a_users_test_is_skipped_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"python -m tests\.kubernetes\.building"):
        building.built("helm")


def test_on_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="helm not built"):
        building.built("helm")


def test_what_is_built_is_used(tmp_path: Path) -> None:
    [path] = building._paths(["etcd"]).values()
    path.touch()
    assert building.built("etcd") == {"etcd": path}
    assert path.parent == tmp_path
