"""The screen of `--watch` on a terminal: refreshes in place, obeys keys, leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from rich.console import Console, Group
from rich.live import Live

from monitor.commands.looks import Look
from monitor.commands.views import TREND_POLLS, View, screen

# How long a key may wait for its effect.
TICK_SECONDS: Final = 0.1
# What is asked meanwhile is bounded by its own time limits; nobody waits for it at the end.
STOP_SECONDS: Final = 0.5

_KEYS: Final = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"k": "up",
    b"j": "down",
    b"\r": "enter",
    b"\n": "enter",
    b"\x1b": "escape",
    b"\x7f": "escape",
    b" ": "p",
}

Read = Callable[[], Look]
"""Polls once; what it returns has no trends yet."""


class Watcher(threading.Thread):
    """Polls in the background; `latest` is the last look and when it ended, on the monotonic clock."""

    def __init__(self, read: Read, interval_s: float) -> None:
        super().__init__(name="watch", daemon=True)
        self._read = read
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._trends: dict[str, deque[float | None]] = {}
        self.latest: tuple[Look, float] | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        """Poll until stopped; a failure ends it, and is for whoever looks at the screen."""
        try:
            while not self._stopped.is_set():
                look = self._read()
                trends = {
                    group: self._trends.get(group) or deque(maxlen=TREND_POLLS)
                    for group in look.groups
                }
                for group, trend in trends.items():
                    # it may be another by now
                    is_old = look.snapshot.groups[group].is_silent
                    behind = look.groups[group].behind(look.snapshot.seen_at)
                    trend.append(None if is_old else behind)
                self._trends = trends
                shown = {group: tuple(trend) for group, trend in trends.items()}
                self.latest = (replace(look, trends=shown), time.monotonic())
                self._stopped.wait(self._interval_s)
        except Exception as error:  # noqa: BLE001  # raised again where the terminal is in order
            self.failure = error

    def stop(self) -> None:
        """Start no other poll."""
        self._stopped.set()
        self.join(STOP_SECONDS)


def is_possible() -> bool:
    """Say whether there is a terminal to draw on and to read keys from."""
    return sys.stdout.isatty() and sys.stdin is not None and sys.stdin.isatty()


def show(read: Read, interval_s: float) -> Look | None:
    """Show looks until q, Ctrl-C or SIGTERM; return the last one."""
    watcher = Watcher(read, interval_s)
    watcher.start()
    view, frozen = View(), None
    console = Console(highlight=False)
    try:
        with (
            _ended_by_signals() as ended,
            _keys_at_once(),
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while watcher.failure is None and not ended.is_set():
                latest = frozen if view.is_paused and frozen else watcher.latest
                look, at = latest or (None, 0.0)
                lines = screen(
                    look,
                    view,
                    width=console.width,
                    height=console.height,
                    age=max(0.0, time.monotonic() - at),
                )
                live.update(Group(*lines), refresh=True)
                for key in _pressed():
                    if key == "q":
                        return look
                    view = view.after(key, look)
                    frozen = latest if view.is_paused else None
    finally:
        watcher.stop()
    if watcher.failure is not None:
        raise watcher.failure
    return watcher.latest[0] if watcher.latest else None


def _pressed() -> Iterator[str]:
    """Yield the keys that were pressed within a tick."""
    readable, _, _ = select.select([sys.stdin], [], [], TICK_SECONDS)
    if readable:
        yield from keys_of(os.read(sys.stdin.fileno(), 64))


def keys_of(typed: bytes) -> Iterator[str]:
    """Yield the names of the keys that a terminal sent, those without a meaning left out."""
    while typed:
        size = 3 if typed[:3] in _KEYS else 1
        sequence, typed = typed[:size], typed[size:]
        name = _KEYS.get(sequence) or sequence.decode("ascii", "ignore").lower()
        if name in {"up", "down", "enter", "escape", "q", "p", "s"}:
            yield name


@contextlib.contextmanager
def _keys_at_once() -> Iterator[None]:
    """Have keys come without Enter and unseen; whatever happens, the terminal is as it was."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[threading.Event]:
    """Yield what SIGINT and SIGTERM set: the terminal is in order before the program ends.

    Raised in the middle of anything, an interrupt may be lost: in a finalizer nobody catches it.
    """
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
