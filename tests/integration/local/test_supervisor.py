import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from order_services.local import process as process_module
from order_services.local import supervisor as supervisor_module
from order_services.local.process import ManagedProcess
from order_services.local.supervisor import AlreadyRunningError, Supervisor
from order_services.process.settings import EXIT_MARGIN_SECONDS, ServiceSettings
from tests.support.waiting import wait_for

SLEEPER = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def program(tmp_path: Path, name: str, code: str = SLEEPER) -> ManagedProcess:
    return ManagedProcess(name, [sys.executable, "-c", code], tmp_path / f"{name}.log")


def test_a_second_supervisor_is_refused_the_same_data_directory(tmp_path: Path) -> None:
    first = Supervisor(tmp_path, print)
    first.acquire()
    with pytest.raises(AlreadyRunningError, match="choose another --data-dir"):
        Supervisor(tmp_path, print).acquire()
    first.release()


def test_what_a_killed_supervisor_left_is_ended_and_nothing_else(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER])
    code = f"""
import os, signal, sys
from pathlib import Path
from order_services.local.process import ManagedProcess
from order_services.local.supervisor import Supervisor
supervisor = Supervisor(Path({str(tmp_path)!r}), print)
supervisor.acquire()
child = ManagedProcess("child", [sys.executable, "-c", {SLEEPER!r}], Path({str(tmp_path)!r}) / "child.log")
supervisor.start(child)
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    orphan = psutil.Process(int(killed.stdout))
    assert orphan.is_running()
    said: list[str] = []
    supervisor = Supervisor(tmp_path, said.append)
    try:
        supervisor.acquire()
        assert said == ["an earlier run was killed: ending what it left behind (child)"]
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        assert stranger.poll() is None
    finally:
        supervisor.release()
        stranger.kill()
        stranger.wait()


def test_a_recycled_process_id_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    try:
        tmp_path.joinpath("run.json").write_text(
            f'[{{"name": "kafka", "pid": {stranger.pid}, "create_time": 1.0}}]'
        )
        supervisor = Supervisor(tmp_path, print)
        supervisor.acquire()
        assert stranger.poll() is None
        supervisor.release()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_program_that_dies_is_started_again_but_not_for_ever(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(tmp_path, said.append)
    supervisor.acquire()
    dying = program(tmp_path, "payment-1", "print('no database'); raise SystemExit(3)")
    supervisor.start(dying)
    for _ in range(7):
        dying.wait(10)
        supervisor.revive()
    assert said.count("payment-1 ended with exit code 3: starting it again") == 5
    assert "stays down" in said[-1]
    assert "no database" in said[-1]
    supervisor.stop()
    supervisor.release()


def test_a_program_that_ignores_the_stop_is_killed_when_somebody_is_in_a_hurry(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    supervisor = Supervisor(tmp_path, said.append)
    supervisor.acquire()
    stubborn = program(tmp_path, "shipping-1", STUBBORN)
    supervisor.start(stubborn)
    time.sleep(0.3)  # until it ignores the signal
    supervisor.stop(hurry=lambda: True)
    assert said == ["shipping-1 was killed at once, as asked"]
    assert not psutil.pid_exists(stubborn.pid)
    supervisor.release()


def test_a_program_that_ignores_the_stop_is_killed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_TIMEOUT_S", 0.5)
    said: list[str] = []
    supervisor = Supervisor(tmp_path, said.append)
    supervisor.acquire()
    supervisor.start(program(tmp_path, "shipping-1", STUBBORN))
    time.sleep(0.3)  # until it ignores the signal
    supervisor.stop()
    assert said == ["shipping-1 did not stop in time and was killed"]
    supervisor.release()


def test_a_service_gets_its_whole_budget_before_it_is_killed() -> None:
    budget = ServiceSettings.model_fields["shutdown_timeout_seconds"].default
    assert budget + EXIT_MARGIN_SECONDS == supervisor_module.STOP_TIMEOUT_S


def test_a_log_stays_within_its_bounds_while_its_program_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "MAX_LOG_BYTES", 100_000)
    code = "while True: print('x' * 999, flush=True)"
    supervisor = Supervisor(tmp_path, print)
    supervisor.acquire()
    chatty = program(tmp_path, "payment-1", code)
    chatty.log_file.write_text("earlier\n" + "y" * 200_000)
    supervisor.start(chatty)
    assert (tmp_path / "payment-1.log.1").read_text().startswith("earlier")
    for _ in range(5):
        wait_for("a large log", lambda: chatty.log_file.stat().st_size > 100_000)
        chatty.pause()
        supervisor.revive()
        assert chatty.log_file.stat().st_size == 0
        chatty.resume()
    wait_for("a log that goes on", lambda: chatty.log_tail(1) == "x" * 999)
    assert {file.name for file in tmp_path.glob("*.log*")} == {"payment-1.log", "payment-1.log.1"}
    supervisor.stop()
    supervisor.release()


def test_a_program_that_starts_while_all_is_stopped_does_not_stay_behind(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, print)
    supervisor.acquire()
    supervisor.stop()
    late = program(tmp_path, "kafka")
    supervisor.start(late)
    assert not late.running
    supervisor.release()


def test_a_dismissed_program_ends_in_good_order_and_is_not_started_again(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, print)
    supervisor.acquire()
    stays, goes = program(tmp_path, "payment-1"), program(tmp_path, "payment-2")
    supervisor.start(stays)
    supervisor.start(goes)
    supervisor.dismiss("payment-2")
    goes.wait(30)
    supervisor.revive()
    supervisor.see_off()
    assert not goes.running
    assert stays.running
    assert not supervisor.is_leaving("payment-2")
    supervisor.stop()
    supervisor.release()


def test_a_dismissed_program_that_hangs_is_killed_and_none_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    supervisor = Supervisor(tmp_path, said.append)
    supervisor.acquire()
    hangs = program(
        tmp_path,
        "payment-2",
        STUBBORN.replace("time.sleep", "print('deaf', flush=True); time.sleep"),
    )
    supervisor.start(hangs)
    wait_for("program that ignores SIGTERM", hangs.log_tail)
    supervisor.dismiss("payment-2")
    # what is dismissed is still remembered: a crash must not leave it behind
    assert supervisor.is_leaving("payment-2")
    monkeypatch.setattr(supervisor_module, "STOP_TIMEOUT_S", 0.0)
    supervisor.stop()
    assert not hangs.running
    supervisor.release()
