"""Repeats a job at a fixed pace of the monotonic clock, one run at a time, in the background.

The wall clock may be set back by an hour: a job that follows it would rest for as long. One thread
keeps the pace and another runs the job, so that a run that hangs is noticed while it hangs.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from pathlib import PurePath
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

MAX_CAUSE_CHARACTERS: Final = 300


class Every:
    """Runs `job` now and then every so many seconds; what it raises is caught and logged once.

    A run that is due while the last one still runs is left out, and `overdue` is called instead
    of it, in the thread that keeps the pace: it must not wait for what the job waits for.

    `error` is the cause of the last run's failure, None when it went well; `succeeded_at` is when a
    run last did, in seconds of the monotonic clock.
    """

    def __init__(
        self, name: str, job: Callable[[], object], *, overdue: Callable[[], object] | None = None
    ) -> None:
        self._name, self._job, self._overdue = name, job, overdue
        self._idle = threading.Event()
        self._idle.set()
        self._due = threading.Event()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._skips = False
        self.error: str | None = None
        self.succeeded_at: float | None = None

    def start(self, interval_s: float) -> None:
        """Run the job now and then every `interval_s` seconds."""
        self._threads = [
            threading.Thread(target=self._run, name=self._name, daemon=True),
            threading.Thread(
                target=self._keep_pace, args=(interval_s,), name=f"{self._name} pace", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, wait_s: float = 0.0) -> None:
        """Start no other run, and wait so long at most for one that is under way."""
        self._stopped.set()
        self._due.set()
        deadline = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def is_running(self) -> bool:
        """Say whether a run is under way."""
        # one that was due when the end came is not
        return not self._idle.is_set() and any(thread.is_alive() for thread in self._threads)

    def run_once(self) -> None:
        """Run the job in this thread; what it raises is caught and logged."""
        try:
            self._job()
        except Exception as error:  # noqa: BLE001  # one bad run must not be the last
            if self._stopped.is_set():
                return  # what it asks is closed under it
            cause = cause_of(error)
            if cause != self.error:
                _log.error("failed", job=self._name, cause=cause, exc_info=error)
            self.error = cause
        else:
            if self.error is not None:
                _log.info("works again", job=self._name)
            self.error, self.succeeded_at = None, time.monotonic()

    def _run(self) -> None:
        while self._due.wait() and not self._stopped.is_set():
            self._due.clear()
            self.run_once()
            self._idle.set()

    def _keep_pace(self, interval_s: float) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            if self._idle.is_set():
                self._note_skips(skips=False)
                self._idle.clear()
                self._due.set()
            else:
                self._note_skips(skips=True)
                self._tell_overdue()
            # what was missed, as by a computer that slept, is not caught up with
            missed = max(0.0, time.monotonic() - due) // interval_s
            due += interval_s * (1 + missed)

    def _note_skips(self, *, skips: bool) -> None:
        if skips != self._skips:
            if skips:
                _log.warning("skipped, as the last run has not ended", job=self._name)
            else:
                _log.info("in time again", job=self._name)
        self._skips = skips

    def _tell_overdue(self) -> None:
        if self._overdue is None:
            return
        try:
            self._overdue()
        except Exception as error:  # noqa: BLE001  # else the pace would end with it
            _log.error("failed while overdue", job=self._name, cause=cause_of(error))


def cause_of(error: BaseException) -> str:
    """Return what was raised and where, in one line.

    Without its text: that may hold what a server said, or change with every run.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return one_line(f"{type(error).__name__}{where}")


def one_line(text: str) -> str:
    """Return a text without line breaks, of bounded length."""
    joined = " ".join(text.split())
    if len(joined) > MAX_CAUSE_CHARACTERS:
        return joined[: MAX_CAUSE_CHARACTERS - 3] + "..."
    return joined
