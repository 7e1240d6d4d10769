"""Events to open pages: of each poll one, made once, within the server's limits and behind its login."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

import monitor.web.live
from monitor.web.app import create_app
from monitor.web.live import Live, TooManyError
from monitor.web.server import WebServer
from tests.support.asgi import Client
from tests.unit.monitor.test_web import make


def told(event: bytes) -> dict[str, Any]:
    (line,) = (line for line in event.decode().splitlines() if line.startswith("data: "))
    found: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return found


def listening(
    live: Live, count: int, act: Callable[[list[list[bytes]]], Awaitable[None]]
) -> list[list[bytes]]:
    """Have so many listen while `act` runs; return what each was sent."""
    sent: list[list[bytes]] = [[] for _ in range(count)]

    async def run() -> None:
        gone = [asyncio.get_running_loop().create_future() for _ in range(count)]

        def sender(to: list[bytes]) -> Callable[[bytes], Awaitable[None]]:
            async def send(event: bytes) -> None:
                to.append(event)

            return send

        tasks = [asyncio.create_task(live.stream(sender(sent[i]), gone[i])) for i in range(count)]
        await act(sent)
        for one in gone:
            one.set_result(None)
        await asyncio.gather(*tasks)

    asyncio.run(run())
    return sent


async def until(true: Callable[[], bool]) -> None:
    for _ in range(6_000):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it does not come")


def test_each_poll_is_told_once_and_all_get_the_same_bytes() -> None:
    _, poller, clock = make()
    poller.poll()
    live = Live(lambda: {"": poller})

    async def act(sent: list[list[bytes]]) -> None:
        await until(lambda: all(sent))
        clock.now += 15
        poller.poll()
        await until(lambda: all(len(each) > 1 for each in sent))

    one, other = listening(live, 2, act)
    assert one[1] is other[1]
    first, second = told(one[0]), told(one[1])
    assert first["clusters"][0]["poll"] != second["clusters"][0]["poll"]
    assert second["clusters"][0]["reason"] is None


def test_who_stops_listening_leaves_nothing_behind() -> None:
    _, poller, _ = make()
    poller.poll()
    live = Live(lambda: {"": poller})

    async def act(sent: list[list[bytes]]) -> None:
        await until(lambda: all(sent))

    listening(live, 3, act)
    assert live._listeners == 0
    assert live._looking is None
    assert live._event is None  # it would keep a poll in memory


def test_more_than_may_listen_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor.web.live, "MAX_LISTENERS", 1)
    _, poller, _ = make()
    live = Live(lambda: {"": poller})

    async def act(sent: list[list[bytes]]) -> None:
        await until(lambda: all(sent))

        async def send(_: bytes) -> None:
            pytest.fail("there is no room")

        with pytest.raises(TooManyError):
            await live.stream(send, asyncio.get_running_loop().create_future())

    listening(live, 1, act)
    monkeypatch.setattr(monitor.web.live, "MAX_LISTENERS", 0)
    refused = Client(create_app(poller)).get("/live")
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "10"


def test_events_and_data_are_behind_the_login() -> None:
    _, poller, _ = make()
    poller.poll()
    client = Client(create_app(poller, ("user", "secret")))
    for path in ("/live", "/page/groups", "/page/group?group=g", "/static/page.css", "/group"):
        assert client.get(path).status_code == 401


def test_a_server_stops_while_somebody_listens_and_lets_a_stream_be_longer_than_an_answer() -> None:
    _, poller, _ = make()
    poller.poll()
    server = WebServer(create_app(poller), "127.0.0.1", 0)
    port = server.bind()
    server.start()
    begun = threading.Event()
    ended = threading.Event()

    def listen() -> None:
        with httpx.stream("GET", f"http://127.0.0.1:{port}/live", timeout=60) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            try:
                for _ in answer.iter_bytes():
                    (connection,) = server._server.server_state.connections
                    found: Any = connection
                    assert found.is_listening
                    begun.set()
            except httpx.TransportError:
                pass
        ended.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert begun.wait(60)
    server.stop()
    thread.join(60)
    assert ended.is_set()
    assert not server._thread.is_alive()
