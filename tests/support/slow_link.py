"""A port that leads to another one, as slowly as a test wants: a broker far away, or a hung one."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from types import TracebackType
from typing import Self


class SlowLink:
    """Forwards connections to a port of this machine; what comes back is held for `delay_s`.

    With more ports it balances connections over all of them, as a proxy does. A context manager; `delay_s` may be changed at any time. `accepted` counts connections.
    """

    def __init__(self, target_port: int, delay_s: float = 0.0, *more_ports: int) -> None:
        self.delay_s = delay_s
        self.accepted = 0
        self._targets = itertools.cycle((target_port, *more_ports))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Return the port to connect to."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.accepted += 1
                far = socket.create_connection(("127.0.0.1", next(self._targets)))
                self._sockets += [near, far]
                threading.Thread(target=self._forward, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._forward, args=(far, near, True), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, slowly: bool) -> None:  # noqa: FBT001  # a thread's target
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if slowly:
                    time.sleep(self.delay_s)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
