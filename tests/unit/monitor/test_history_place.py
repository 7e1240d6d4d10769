"""Where `serve` keeps its history where nobody says, and that it starts without where it can't."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from monitor.commands.starting import history_of
from monitor.exposition.families.history import UP
from monitor.history.place import FOLDER, NoPlaceError, lock_of, own_place, place_of
from monitor.settings import MonitorSettings

PORT = 9308


@pytest.fixture(autouse=True)
def _nobody_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONITOR_HISTORY_URL")


def test_a_test_keeps_nothing_in_the_home_of_who_runs_it(tmp_path: Path) -> None:
    place = own_place(None, PORT)
    assert isinstance(place, Path)
    assert place.is_relative_to(tmp_path.parent)
    assert not place.is_relative_to(Path.home() / ".local")


def test_each_port_has_a_file_in_the_users_state_directory(tmp_path: Path) -> None:
    found = place_of(None, PORT, {"XDG_STATE_HOME": str(tmp_path), "HOME": "/nobody"})
    assert found == tmp_path / FOLDER / "history-9308.sqlite"
    assert found != place_of(None, PORT + 1, {"XDG_STATE_HOME": str(tmp_path)})
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700


@pytest.mark.parametrize("told", [{}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "here/below"}])
def test_without_an_absolute_one_it_is_below_the_home(told: dict[str, str], tmp_path: Path) -> None:
    found = place_of(None, PORT, {"HOME": str(tmp_path), **told})
    assert found == tmp_path / ".local" / "state" / FOLDER / "history-9308.sqlite"


def test_a_service_of_systemd_has_its_own_directory(tmp_path: Path) -> None:
    told = {"STATE_DIRECTORY": f"{tmp_path}/one:{tmp_path}/two", "XDG_STATE_HOME": "/proc"}
    assert place_of(None, PORT, told) == tmp_path / "one" / "history-9308.sqlite"


@pytest.mark.parametrize("given", ["off", " off "])
def test_it_can_be_switched_off(given: str) -> None:
    assert place_of(given, PORT, {}) is None


def test_a_port_that_nobody_finds_again_has_no_history() -> None:
    assert place_of(None, 0, {}) is None
    assert place_of("sqlite:///named.sqlite", 0, {}) == "sqlite:///named.sqlite"


def _file_in_the_way(tmp_path: Path) -> str:
    (tmp_path / "file").touch()
    return str(tmp_path / "file")


# as a container has it: no home, and a root that is read-only; /proc is so for root, too
@pytest.mark.parametrize("home", [lambda _: "/proc/nonexistent", _file_in_the_way])
def test_where_nothing_can_be_written_it_starts_without_and_says_so(
    home: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(home)
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", home(tmp_path))
    with pytest.raises(NoPlaceError, match=FOLDER):
        own_place(None, PORT)
    with capture_logs() as told:
        recorder, block = history_of(MonitorSettings())
    assert recorder is None
    assert block is not None
    assert block.samples() == {UP: {(): 0}}
    (line,) = told
    assert (line["event"], line["log_level"]) == ("no history is kept", "warning")
    assert FOLDER in line["cause"]


def test_who_has_no_home_at_all_has_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(NoPlaceError, match="no home"):
        place_of(None, PORT, {})


def test_a_bare_serve_keeps_its_history_and_one_that_is_told_off_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no URL could say it
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "100% mine?"))
    recorder, block = history_of(MonitorSettings())
    assert recorder is not None
    assert block is not None
    recorder._create()
    recorder.stop()
    file = tmp_path / "100% mine?" / FOLDER / "history-9308.sqlite"
    assert file.read_bytes().startswith(b"SQLite format 3")
    assert lock_of(file).exists()
    monkeypatch.setenv("MONITOR_HISTORY_URL", "off")
    assert history_of(MonitorSettings()) == (None, None)


def test_the_container_image_has_a_place_that_its_user_may_write(repository: Path) -> None:
    text = (repository / "deploy" / "Dockerfile").read_text()
    assert "ENV STATE_DIRECTORY=/var/lib/kafka-lag-monitor\n" in text
    assert "--mode 0700 --owner app --group app /var/lib/kafka-lag-monitor\n" in text
