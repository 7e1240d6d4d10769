"""A program of ours in a process group of its own, with its output in a log file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

# A log that is larger is set aside, in the place of the one that was set aside before.
MAX_LOG_BYTES = 20 * 1024 * 1024


class StartError(Exception):
    """A program did not come up; the message says which, why, and where its log is."""


@dataclass
class ManagedProcess:
    """Start, pause, kill and stop one program.

    The program gets a session of its own: Ctrl-C in the terminal reaches the supervisor only, which
    then stops everything in order.
    """

    name: str
    command: Sequence[str]
    log_file: Path
    environment: Mapping[str, str] | None = None
    user: str | None = None
    working_directory: Path | None = None
    stop_signal: int = signal.SIGTERM
    _popen: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the program; raises StartError when it can't be executed."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self.bound_log()
        with self.log_file.open("ab") as log:
            self._popen = self._spawn(log)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.environment is None else dict(self.environment),
                cwd=self.working_directory,
                user=self.user,
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f"{self.name} can't be started: {error}") from error

    @property
    def pid(self) -> int:
        """The process id; an error before `start`."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the program runs."""
        return None if self._popen is None else self._popen.poll()

    @property
    def running(self) -> bool:
        """Whether the program was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the program and its children; nothing happens when it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def pause(self) -> None:
        """Stop the program's clock: it keeps its connections and answers nobody."""
        self.signal(signal.SIGSTOP)
        # a thread that is not stopped yet may still answer
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused program go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the program at once, as a crash would, and wait for it."""
        self.signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()

    def request_stop(self, number: int | None = None) -> None:
        """Ask the program itself, not its children, to stop; by another signal than usual, if so said."""
        if self.running:
            # a paused program would take the signal only when resumed
            self.resume()
            self._require().send_signal(self.stop_signal if number is None else number)

    def stop(self, timeout_s: float = 20.0) -> bool:
        """Stop in good order; kill after the time limit. Return whether it ended by itself."""
        self.request_stop()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; kill after the time limit. Return whether it ended by itself."""
        if self._popen is None:
            return True
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def bound_log(self) -> None:
        """Set the log aside when it has become too large; safe while the program writes to it."""
        with contextlib.suppress(FileNotFoundError):
            if self.log_file.stat().st_size <= MAX_LOG_BYTES:
                return
            # a copy, as the program keeps the file itself open; it appends, so it goes on at the start
            shutil.copyfile(self.log_file, self.log_file.with_name(self.log_file.name + ".1"))
            os.truncate(self.log_file, 0)

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def _require(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._popen


@dataclass(frozen=True)
class ProcessIdentity:
    """A process id with its start time: a recycled id is not mistaken for our process."""

    name: str
    pid: int
    create_time: float

    @classmethod
    def of(cls, process: ManagedProcess) -> ProcessIdentity | None:
        """Identify a running program; None when it has ended."""
        try:
            return cls(process.name, process.pid, psutil.Process(process.pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def find(self) -> psutil.Process | None:
        """Return the process if it still is the same one."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.create_time) < 0.01
        except psutil.NoSuchProcess:
            return None
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
