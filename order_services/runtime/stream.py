"""What arrives on a connection, read without a thread for as long as nothing is there.

Cheroot's own reader is Python's slow copy of the standard library's: it took a third of a request.
"""

from __future__ import annotations

import select
import socket
from typing import Final

RECEIVE_BYTES: Final = 64 * 1024


class Stream:
    """A connected socket as cheroot reads and writes it (`rfile` and `wfile` in one).

    `receive` waits for nothing. The others wait, and raise `TimeoutError` when nothing moves for
    `timeout_seconds`.
    """

    def __init__(self, connection: socket.socket, timeout_seconds: float) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._timeout_ms = timeout_seconds * 1000
        self._wanted = 1
        self.arrived = b""  # and not read yet
        self.ended = False  # nothing more will arrive
        self.closed = False

    def has_data(self) -> bool:
        """Say whether something has arrived that nobody has read, or the end has.

        After `want`, whether so much of it has.
        """
        return self.ended or len(self.arrived) >= self._wanted

    def want(self, count: int) -> None:
        """Count less than so many bytes as nothing until some are read."""
        self._wanted = count

    @property
    def is_unfinished(self) -> bool:
        """Whether a part of what is wanted has arrived."""
        return 0 < len(self.arrived) < self._wanted

    def receive(self) -> bool:
        """Take in what has arrived; False when nothing has, which the end of the stream is not."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # a connection that broke has ended
        self.arrived += data
        self.ended = not data
        return True

    def take(self, count: int) -> bytes:
        """Return the first `count` bytes of what has arrived."""
        data, self.arrived = self.arrived[:count], self.arrived[count:]
        self._wanted = 1
        return data

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end of the stream."""
        while len(self.arrived) < size and not self.ended:
            self._wait_and_receive()
        return self.take(size)

    def readline(self, size: int = RECEIVE_BYTES) -> bytes:
        """Return a line with its end, or `size` bytes of it; what is left at the end of the stream."""
        while not (end := self.arrived.find(b"\n", 0, size) + 1):
            if len(self.arrived) >= size or self.ended:
                return self.take(size)
            self._wait_and_receive()
        return self.take(end)

    def write(self, data: bytes) -> int:
        """Send all of it."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                self._wait_for(select.POLLOUT)
        return len(data)

    def close(self) -> None:
        """Note it: the socket is closed by the connection."""
        self.closed = True

    def _wait_and_receive(self) -> None:
        while not self.receive():
            self._wait_for(select.POLLIN)

    def _wait_for(self, event: int) -> None:
        # select() knows no descriptors past 1023
        poll = select.poll()
        poll.register(self._socket, event)
        if not poll.poll(self._timeout_ms):
            raise TimeoutError("timed out")  # cheroot knows it by this text
