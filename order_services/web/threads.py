"""The few threads on which views wait for the database, so that the server's loop never does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Runs functions one after the other on `count` threads, started when first needed.

    Neither the standard library's pool nor anyio's will do: the process would wait at its end for a
    view that never ends, and these threads are daemons.
    """

    def __init__(self, count: int, name: str) -> None:
        self._free = count
        self._name = name
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started: list[threading.Thread] = []

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what the function returns, or raise what it raises; call it on the loop."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            if result.done():
                return  # nobody waits any more
            if error is None:
                result.set_result(value)  # type: ignore[arg-type]  # without an error it is a T
            else:
                result.set_exception(error)

        def work() -> None:
            value, error = None, None
            try:
                value = function(*arguments)
            except BaseException as raised:  # noqa: BLE001  # it belongs to whoever waits
                error = raised
            try:
                loop.call_soon_threadsafe(settle, value, error)
            except RuntimeError:
                return  # the loop has ended: the process is ending

        if self._free > 0:
            self._free -= 1
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._started.append(thread)
            thread.start()
        self._waiting.put(work)
        return await result

    def close(self, timeout_seconds: float) -> bool:
        """End the threads after what they have at hand; false when that took too long."""
        until = time.monotonic() + timeout_seconds
        for _ in self._started:
            self._waiting.put(None)
        for thread in self._started:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._started)

    def _serve(self) -> None:
        while (work := self._waiting.get()) is not None:
            work()
