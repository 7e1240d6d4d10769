"""Keep a set of programs running, restart what dies, stop everything in order."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO

import psutil

from order_services.local.process import ManagedProcess, ProcessIdentity, StartError
from order_services.process.settings import KILL_AFTER_SECONDS
from order_services.process.signals import FOR_GOOD

# A service that is asked to end has its budget, and the margin for leaving Python; what is slower
# hangs. Kafka, PostgreSQL and the monitor have no more to do.
STOP_TIMEOUT_S = KILL_AFTER_SECONDS
# A program that dies again and again is broken, not unlucky: stop restarting and say so.
MAX_RESTARTS = 5
RESTART_WINDOW_S = 60.0


class AlreadyRunningError(Exception):
    """Another supervisor uses the same data directory."""


class Supervisor:
    """Own the programs of one data directory.

    `run.json` there names every program that was started, so that the start after a crash can end
    what the crash left behind, and nothing else.
    """

    def __init__(self, data_dir: Path, say: Callable[[str], None]) -> None:
        self.data_dir = data_dir
        self._say = say
        self._lock: IO[str] | None = None
        self._state_file = data_dir / "run.json"
        self._processes: list[ManagedProcess] = []
        # asked to end while the others go on, and until when they may take
        self._leaving: list[tuple[ManagedProcess, float]] = []
        self._restarts: dict[str, deque[float]] = {}
        self._given_up: set[str] = set()
        self._stopping = False
        self._mutex = threading.Lock()

    def acquire(self) -> None:
        """Take the data directory and end leftovers; raises AlreadyRunningError."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = (self.data_dir / "lock").open("w")
        try:
            # the system takes this lock back when its holder dies, however it dies
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise AlreadyRunningError(
                f"another `order-services up` uses {self.data_dir}: stop it, or choose another --data-dir"
            ) from None
        self._lock = lock
        self._end_leftovers()

    def release(self) -> None:
        """Give the data directory back."""
        if self._lock is not None:
            self._state_file.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def adopt(self, process: ManagedProcess) -> None:
        """Watch a program that has been started; safe to call from several threads."""
        with self._mutex:
            if not self._stopping:
                self._processes.append(process)
                self._remember()
                return
        # started while everything else was being stopped: it would stay behind
        process.kill()

    def start(self, process: ManagedProcess) -> None:
        """Start a program and watch it."""
        process.start()
        self.adopt(process)

    def dismiss(self, name: str) -> None:
        """Have a service end in good order, without waiting for it, and not start it again."""
        with self._mutex:
            for process in [each for each in self._processes if each.name == name]:
                self._processes.remove(process)
                process.request_stop(FOR_GOOD)
                self._leaving.append((process, time.monotonic() + STOP_TIMEOUT_S))
        self._restarts.pop(name, None)
        self._given_up.discard(name)

    def is_leaving(self, name: str) -> bool:
        """Say whether a program that was dismissed has not ended yet."""
        return any(process.name == name for process, _ in self._leaving)

    def see_off(self) -> None:
        """Forget the dismissed programs that have ended, and kill those that take too long."""
        for process, until in list(self._leaving):
            if process.running and time.monotonic() > until:
                self._say(f"{process.name} did not stop in time and was killed")
                process.kill()
            if not process.running:
                self._leaving.remove((process, until))
                self._remember()

    @property
    def has_programs(self) -> bool:
        """Whether anything was started that is not stopped yet."""
        return bool(self._processes)

    def check_alive(self) -> None:
        """Raise StartError if a program has ended while the system was starting."""
        for process in self._processes:
            if not process.running:
                raise StartError(
                    f"{process.name} ended with exit code {process.exit_code}; "
                    f"the end of its log ({process.log_file}):\n{process.log_tail()}"
                )

    def revive(self) -> None:
        """Start again whatever has died, and keep the logs within their bounds."""
        for process in self._processes:
            process.bound_log()
            if process.running or process.name in self._given_up:
                continue
            recent = self._restarts.setdefault(process.name, deque())
            now = time.monotonic()
            while recent and now - recent[0] > RESTART_WINDOW_S:
                recent.popleft()
            if len(recent) >= MAX_RESTARTS:
                self._given_up.add(process.name)
                self._say(
                    f"{process.name} died {MAX_RESTARTS} times within {RESTART_WINDOW_S:.0f} s and stays down; "
                    f"the end of its log ({process.log_file}):\n{process.log_tail()}"
                )
                continue
            recent.append(now)
            self._say(f"{process.name} ended with exit code {process.exit_code}: starting it again")
            try:
                process.start()
            except StartError as error:
                self._say(str(error))
            self._remember()

    def stop(self, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop everything, the last started first, each stage in parallel.

        `hurry` is asked while waiting: once it says so, what still runs is killed.
        """
        with self._mutex:
            self._stopping = True
            self._processes.extend(process for process, _ in self._leaving)
            self._leaving.clear()
        for stage in self._stages():
            for process in stage:
                process.request_stop()
            deadline = time.monotonic() + STOP_TIMEOUT_S
            in_a_hurry = False
            while any(process.running for process in stage) and time.monotonic() < deadline:
                in_a_hurry = hurry()
                if in_a_hurry:
                    break
                time.sleep(0.05)
            for process in stage:
                if process.running:
                    why = (
                        "was killed at once, as asked"
                        if in_a_hurry
                        else "did not stop in time and was killed"
                    )
                    self._say(f"{process.name} {why}")
                    process.kill()
        self._processes.clear()

    def _stages(self) -> Iterable[list[ManagedProcess]]:
        """Yield what may stop together: programs first, the servers that they need last."""
        servers = [process for process in self._processes if process.name in ("kafka", "postgres")]
        programs = [process for process in self._processes if process not in servers]
        doors = [process for process in programs if process.name.startswith("gateway")]
        # the gateway first: no order is accepted that nobody is left to carry out now
        yield doors
        yield [process for process in programs if process not in doors]
        yield servers

    def _remember(self) -> None:
        programs = [*self._processes, *(process for process, _ in self._leaving)]
        identities = [ProcessIdentity.of(process) for process in programs if process.running]
        fresh = self._state_file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(identity) for identity in identities if identity]))
        # atomic: a crash while writing must not lose the list that it would be needed for
        fresh.replace(self._state_file)

    def _end_leftovers(self) -> None:
        if not self._state_file.exists():
            return
        try:
            remembered = [
                ProcessIdentity(**entry) for entry in json.loads(self._state_file.read_text())
            ]
        except (ValueError, TypeError):
            self._say(
                f"{self._state_file} is unreadable: leftovers of an earlier run can't be found"
            )
            return
        alive = [(identity, found) for identity in remembered if (found := identity.find())]
        if alive:
            names = ", ".join(identity.name for identity, _ in alive)
            self._say(f"an earlier run was killed: ending what it left behind ({names})")
        for _, process in alive:
            _signal_group(process, signal.SIGCONT)
            _signal_group(process, signal.SIGTERM)
        _, stubborn = psutil.wait_procs([process for _, process in alive], timeout=STOP_TIMEOUT_S)
        for process in stubborn:
            _signal_group(process, signal.SIGKILL)
        psutil.wait_procs(stubborn, timeout=5)
        self._state_file.unlink()


def _signal_group(process: psutil.Process, number: int) -> None:
    # each program leads its own group, so this reaches its children and nobody else's
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
