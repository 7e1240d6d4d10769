"""The gate: who is closed when there are as many connections as are allowed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
import uvloop
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.server import ServerState

from monitor.web.connections import Connection, Gate

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def answer(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok", "more_body": False})


@contextlib.contextmanager
def opened(make: Callable[[uvicorn.Config, ServerState], Connection], limit: int) -> Iterator[Gate]:
    """A gate on a free port of this machine."""
    config = uvicorn.Config(answer, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    gate = Gate(lambda: make(config, state), state.connections, None, limit)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    gate.open(listener)
    try:
        yield gate
    finally:
        gate.close()
        gate.close_all()


def test_one_whose_request_is_read_is_not_taken_for_one_that_still_begins() -> None:
    """A loop that is held up has read a request before the task that accepted it goes on."""
    is_held_up = False

    class HeldUp(Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
            nonlocal is_held_up
            super().connection_made(transport)
            if is_held_up:
                is_held_up = False
                self.loop.call_soon(self.ask)  # before the task learns that it has made this

        def ask(self) -> None:
            self.data_received(REQUEST)
            gates[0]._looks += 2
            gates[0]._accept()

    async def play() -> tuple[bytes, bytes]:
        nonlocal is_held_up
        address = gates[0]._listener.getsockname()
        idle, to_idle = await asyncio.open_connection(*address)
        to_idle.write(REQUEST)
        await idle.readuntil(b"ok")
        is_held_up = True
        asking, to_asking = await asyncio.open_connection(*address)
        found = await asyncio.wait_for(asking.read(1_000), 10), await idle.read(1_000)
        to_idle.close()
        to_asking.close()
        return found

    async def main() -> tuple[bytes, bytes]:
        with opened(lambda config, state: HeldUp(config, state, {}), limit=2) as gate:
            gates.append(gate)
            return await play()

    gates: list[Gate] = []
    answered, closed = uvloop.run(main())
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert closed == b""
