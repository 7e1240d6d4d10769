"""Find and check TCP ports on the loopback interface."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOWEST_PORT = 10_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_EPHEMERAL_START = 32_768
# who draws a port starts a server on it later: until then it looks free to the next one who draws
_drawn: set[int] = set()


def range_of_ports() -> range:
    """Return the ports to draw from: below the first that the system gives to outgoing connections."""
    try:
        end = int(_EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except OSError:
        end = _USUAL_EPHEMERAL_START
    return range(LOWEST_PORT, end)


def free_port() -> int:
    """Return a port that nobody listens on now, and that was not drawn before by this process."""
    return free_base_port([0])


def free_base_port(offsets: Iterable[int]) -> int:
    """Return a port such that it plus each offset is free, and was not drawn before.

    Taken from below those of outgoing connections: one of these could take the port before its
    server does, and a client that waits for the server there could be connected to itself (both
    ends of a TCP connection may be the same port), and read its own request as the answer.
    """
    wanted = list(offsets)
    ports = range_of_ports()
    chosen = random.SystemRandom()  # test runs beside each other must not draw the same ports
    while True:
        base = chosen.randrange(ports.start, ports.stop - max(wanted))
        drawn = {base + offset for offset in wanted}
        if drawn.isdisjoint(_drawn) and all(map(is_free, drawn)):
            _drawn.update(drawn)
            return base


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
