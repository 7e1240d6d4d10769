"""Clients of the kinds that stop a server that waits for them: `python -m tests.support.besiegers PORT`.

200 connections that say nothing, eight that trickle a head, four that do not read their answers, and
one that sends a gigabyte. Whoever loses its connection comes again soon, until the process is killed.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

HEAD: Final = b"POST /api/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SILENT: Final = 200
TRICKLING: Final = 8
DEAF: Final = 4
AGAIN_SECONDS: Final = 0.5

Besiege = Callable[[asyncio.AbstractEventLoop, socket.socket], Awaitable[None]]


async def keep(besiege: Besiege, port: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with suppress(OSError), socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(client, ("127.0.0.1", port))
            await besiege(loop, client)
        await asyncio.sleep(AGAIN_SECONDS)


async def say_nothing(loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
    while await loop.sock_recv(client, 65536):
        pass


async def trickle(loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
    for byte in HEAD * 100:
        await loop.sock_sendall(client, bytes([byte]))
        await asyncio.sleep(0.2)


async def do_not_read(loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
    while True:
        await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        await asyncio.sleep(0.1)


async def send_a_gigabyte(loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
    await loop.sock_sendall(client, HEAD + b"Content-Length: 1073741824\r\n\r\n")
    part = b"x" * 1024 * 1024
    for _ in range(1024):
        await loop.sock_sendall(client, part)


async def besiege(port: int) -> None:
    kinds: list[tuple[int, Besiege]] = [
        (SILENT, say_nothing),
        (TRICKLING, trickle),
        (DEAF, do_not_read),
        (1, send_a_gigabyte),
    ]
    await asyncio.gather(*(keep(kind, port) for count, kind in kinds for _ in range(count)))


if __name__ == "__main__":
    asyncio.run(besiege(int(sys.argv[1])))
