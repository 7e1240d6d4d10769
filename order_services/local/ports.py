"""Find and check TCP ports on the loopback interface."""

from __future__ import annotations

import errno
import socket
import time

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server could bind the port."""
    with socket.socket() as probe:
        # a server that has just stopped leaves TIME_WAIT sockets: they don't hinder a new one
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def wait_until_listening(port: int, deadline: float, host: str = LOOPBACK) -> bool:
    """Wait for something to accept connections; False when `time.monotonic()` passes the deadline."""
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
