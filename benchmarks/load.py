"""Sends orders to a gateway over connections that stay open, from a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from order_services.domain.catalogue import PRODUCTS

ANSWER_SECONDS: Final = 30.0


@dataclass
class Load:
    """What was sent, how long the answers took, and what sending cost this process, in seconds."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


def as_fast_as_answered(port: int, connections: int, seconds: float) -> Load:
    """Send the next order on each connection when the one before is answered."""
    return asyncio.run(_Sender(port, connections).closed(seconds))


def at_rate(port: int, connections: int, rate: float, seconds: float) -> Load:
    """Send `rate` orders a second, answered or not.

    Latency counts from when an order was due: a gateway that stalls is charged for all that waited.
    """
    return asyncio.run(_Sender(port, connections).open(rate, seconds))


class _Connection(asyncio.Protocol):
    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._buffer = b""
        self._due = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._buffer = b""
        self._sender.answered(self, accepted=head[9:12] == b"202", due=self._due)

    def connection_lost(self, _error: Exception | None) -> None:
        self._sender.lost(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Sender:
    def __init__(self, port: int, connections: int) -> None:
        self._port = port
        self._count = connections
        self._load = Load()
        self._cpu_before = time.process_time()
        self._idle: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._queue: deque[float] = deque()
        self._requests = _requests(port)
        self._until = float("inf")
        self._closed_loop = False
        self._closing = False

    async def closed(self, seconds: float) -> Load:
        await self._connect()
        self._closed_loop = True
        started = time.perf_counter()
        self._until = started + seconds
        while self._idle:
            self._send(self._idle.popleft(), time.perf_counter())
        await asyncio.sleep(seconds)
        return await self._finish(started)

    async def open(self, rate: float, seconds: float) -> Load:
        await self._connect()
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = started + number / rate
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # late: let the answers in
            if self._idle:
                self._send(self._idle.popleft(), due)
            else:
                self._queue.append(due)
        return await self._finish(started)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", self._port
            )
            self._idle.append(connection)

    async def _finish(self, started: float) -> Load:
        deadline = time.perf_counter() + ANSWER_SECONDS
        while (self._busy or self._queue) and time.perf_counter() < deadline:  # noqa: ASYNC110  # once a run
            await asyncio.sleep(0.005)
        self._load.seconds = time.perf_counter() - started
        self._load.cpu_seconds = time.process_time() - self._cpu_before
        self._load.refused += len(self._busy) + len(self._queue)
        self._closing = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        await asyncio.sleep(0)
        return self._load

    def _send(self, connection: _Connection, due: float) -> None:
        self._busy.add(connection)
        connection.send(next(self._requests), due)

    def answered(self, connection: _Connection, *, accepted: bool, due: float) -> None:
        now = time.perf_counter()
        self._load.latencies.append(now - due)
        self._load.accepted += accepted
        self._load.refused += not accepted
        self._busy.discard(connection)
        if self._queue:
            self._send(connection, self._queue.popleft())
        elif self._closed_loop and now < self._until:
            self._send(connection, now)
        else:
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        if not self._closing:
            self._busy.discard(connection)
            self._load.refused += 1


def _requests(port: int) -> Iterator[bytes]:
    """Make requests without end: an idempotency key of its own for each."""
    bodies = [
        json.dumps(
            {
                "customerId": f"customer-{number}",
                "items": [
                    {"productId": PRODUCTS[number % len(PRODUCTS)].product_id, "quantity": 2},
                    {"productId": PRODUCTS[(number + 3) % len(PRODUCTS)].product_id, "quantity": 1},
                ],
            }
        ).encode()
        for number in range(64)
    ]
    heads = [
        (
            f"POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: "
        ).encode()
        for body in bodies
    ]
    run = f"{os.getpid()}-{time.time_ns()}-"
    for number in itertools.count():
        kind = number % len(bodies)
        yield heads[kind] + f"{run}{number}\r\n\r\n".encode() + bodies[kind]
