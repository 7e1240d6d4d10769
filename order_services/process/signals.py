"""What signals ask of a program: to end, and when somebody insists, at once; or to end for good."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

# Whoever stops a group of processes signals some of them twice at once: that is no second wish.
INSIST_AFTER_SECONDS: Final = 1.0
# Ends a replica that nobody will start again, where SIGTERM may be the first half of a restart.
FOR_GOOD: Final = signal.SIGUSR1
# Signals wake the main thread; others look.
OTHERS_POLL_SECONDS: Final = 0.05


class StopSignals(threading.Event):
    """An event that a signal handler may set; to be made and closed on the main thread.

    `threading.Event.set` takes a lock, and the thread that the handler interrupts may hold it: the
    process would hang for ever. Here a handler only stores. And a signal that comes just before a
    wait begins would not end it: the wake-up descriptor, which is written to when a signal arrives
    and not when its handler runs, does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False
        self._interrupted_at: float | None = None
        self._insisted = False
        self._for_good = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def close(self) -> None:
        """Give the wake-up descriptor back."""
        signal.set_wakeup_fd(self._before)
        os.close(self._reader)
        os.close(self._writer)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take in a signal; for `signal.signal`."""
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted_at is None:
                self._interrupted_at = now
            elif now - self._interrupted_at >= INSIST_AFTER_SECONDS:
                self._insisted = True
        elif number == FOR_GOOD:
            self._for_good = True
        self._asked = True

    def set(self) -> None:
        """Ask for the end."""
        self._asked = True
        with suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def is_set(self) -> bool:
        """Say whether the end was asked for."""
        return self._asked

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for a signal; say whether there was one."""
        is_woken = threading.current_thread() is threading.main_thread()
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self._asked and (left := until - time.monotonic()) > 0:
            if not is_woken:
                time.sleep(min(left, OTHERS_POLL_SECONDS))
            elif select.select([self._reader], [], [], None if left == math.inf else left)[0]:
                os.read(self._reader, 1024)
        return self._asked

    def insisted(self) -> bool:
        """Say whether there was a second Ctrl-C, a second or more after the first."""
        return self._insisted

    def for_good(self) -> bool:
        """Say whether nobody will start this program again."""
        return self._for_good


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Have SIGTERM, SIGINT and FOR_GOOD set the event inside the block, instead of ending the program."""
    stop = StopSignals()
    before = {
        number: signal.signal(number, stop.handle)
        for number in (signal.SIGINT, signal.SIGTERM, FOR_GOOD)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
