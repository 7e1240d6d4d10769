"""Replicas of a running system: asked for in a file, started and stopped by the supervisor."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from order_services.cli import cli
from order_services.local import rescaling
from order_services.local.plan import Plan, ServiceReplica
from order_services.local.process import StartError
from order_services.local.replicas import NotRunningError, Replicas
from order_services.local.rescaling import Rescaling


class Programs:
    """Stands in for the supervisor."""

    def __init__(self) -> None:
        self.started: list[ServiceReplica] = []
        self.dismissed: list[str] = []
        self.leaving: set[str] = set()
        self.broken = False

    def start(self, replica: ServiceReplica) -> None:
        if self.broken:
            raise StartError("it can't be executed")
        self.started.append(replica)

    def dismiss(self, name: str) -> None:
        self.dismissed.append(name)
        self.leaving.add(name)

    def is_leaving(self, name: str) -> bool:
        return name in self.leaving

    def see_off(self) -> None:
        """Forget nothing: a test says when one has ended."""


class Running:
    def __init__(self, data_dir: Path) -> None:
        self.replicas = Replicas(data_dir)
        self.programs = Programs()
        self.said: list[str] = []
        plan = Plan({"payment": 2}, 4000, 9308, 9092, 5432)
        self.rescaling = Rescaling(
            plan, self.replicas, self.programs, self.programs.start, self.said.append
        )
        self.rescaling.go_on()


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(rescaling, "is_free", lambda _: True)
    return Running(tmp_path)


def test_replicas_that_are_asked_for_are_started_on_their_own_ports(running: Running) -> None:
    running.replicas.ask({"payment": 4})
    assert running.rescaling.go_on()
    assert [(each.name, each.port) for each in running.programs.started] == [
        ("payment-3", 4021),
        ("payment-4", 4031),
    ]
    assert running.replicas.running()["payment"] == 4
    assert running.said == ["replicas: payment 2 -> 4"]
    assert not running.rescaling.go_on()
    assert running.rescaling.plan.replicas["payment"] == 4


def test_the_last_are_stopped_first_and_none_starts_in_the_place_of_one_that_has_not_ended(
    running: Running,
) -> None:
    running.replicas.ask({"payment": 1, "inventory": 2})
    assert running.rescaling.go_on()
    assert running.programs.dismissed == ["payment-2"]
    assert [each.name for each in running.programs.started] == ["inventory-2"]
    running.replicas.ask({"payment": 2})
    assert not running.rescaling.go_on()
    assert running.replicas.refused() == {"payment": "payment-2 has not ended yet"}
    running.programs.leaving.clear()
    assert running.rescaling.go_on()
    assert running.replicas.refused() == {}
    assert running.replicas.running() == {
        "gateway": 1,
        "payment": 2,
        "inventory": 2,
        "shipping": 1,
        "analytics": 1,
    }


def test_what_can_not_be_started_is_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.programs.broken = True
    running.replicas.ask({"payment": 3})
    assert not running.rescaling.go_on()
    assert running.replicas.refused() == {"payment": "it can't be executed"}
    monkeypatch.setattr(rescaling, "is_free", lambda _: False)
    assert not running.rescaling.go_on()
    assert running.replicas.refused() == {"payment": "port 4021 (payment-3) is taken"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"payment": 0}', '{"payment": 99, "x": 2}'])
def test_a_file_of_nonsense_asks_for_nothing(
    running: Running, tmp_path: Path, content: str
) -> None:
    (tmp_path / "replicas.wanted.json").write_text(content)
    assert not running.rescaling.go_on()
    assert running.replicas.running()["payment"] == 2


def test_a_system_that_was_killed_does_not_run(running: Running, tmp_path: Path) -> None:
    told = json.loads((tmp_path / "replicas.json").read_text())
    assert told["pid"] == os.getpid()
    (tmp_path / "replicas.json").write_text(json.dumps({**told, "pid": 2**22 + 1}))
    with pytest.raises(NotRunningError, match="no system runs in"):
        running.replicas.ask({"payment": 3})


# -- the commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scale", "payment=3"], "no system runs in"),
        (["scale"], "Missing argument"),
        (["scale", "payments=3"], "'payments' is no service"),
        (["scale", "payment=0"], "with N from 1 to"),
        (["autoscale", "payment"], "no system runs in"),
        (["autoscale", "payments"], "payments"),
        (["autoscale", "--least", "3", "--most", "2"], "--least 3 is more than --most 2"),
        (["autoscale", "--monitor", "file:///etc"], "say http://HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, [*arguments, "--data-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert said in result.stderr


def test_scale_waits_until_it_is_so(running: Running, tmp_path: Path) -> None:
    asked = CliRunner().invoke(
        cli, ["scale", "payment=3", "--wait", "0", "--data-dir", str(tmp_path)]
    )
    assert asked.exit_code == 1
    assert "not done after 0 s" in asked.stderr
    running.rescaling.go_on()
    done = CliRunner().invoke(cli, ["scale", "payment=3", "--data-dir", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (0, "payment: 3 -> 3\n")
