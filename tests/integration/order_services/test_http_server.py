from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

import httpx
import pytest
from flask import Flask, Response
from prometheus_client import CollectorRegistry
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from order_services.analytics.websocket import Hub
from order_services.runtime import http
from order_services.runtime.direct import DirectAnswer, DirectRequest, add_direct_route


class Fine:
    def alive(self) -> list[str]:
        return []

    def ready(self) -> list[str]:
        return []


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


@pytest.fixture
def app() -> Flask:
    app = http.service_app("test-service", Fine(), registry=CollectorRegistry())

    app.config[http.THREADS_KEY] = 2

    def echo(request: DirectRequest) -> DirectAnswer:
        return DirectAnswer(HTTPStatus.OK, request.json(), {})

    add_direct_route(app, "POST", "/echo", echo)

    return app


@pytest.fixture
def server(app: Flask) -> Iterator[http.WebServer]:
    server = http.WebServer(app, "127.0.0.1", 0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def hub(app: Flask) -> Iterator[Hub]:
    hub = Hub(max_clients=3, max_unsent_bytes=200_000)

    @app.get("/ws", websocket=True)
    def ws() -> Response:
        if hub.full:
            raise http.ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "too many clients")
        return http.websocket_response(lambda connection: hub.adopt(connection, "hello"))

    hub.start()
    yield hub
    hub.stop()


def test_a_taken_port_is_named_with_its_setting(server: http.WebServer, app: Flask) -> None:
    second = http.WebServer(app, "127.0.0.1", server.port)
    with pytest.raises(
        http.PortTakenError, match=rf"port {server.port}: address already in use.*PORT"
    ):
        second.start()


def test_an_address_that_is_not_ours_is_named(app: Flask) -> None:
    with pytest.raises(http.PortTakenError, match=r"cannot listen on 192\.0\.2\.1 port"):
        http.WebServer(app, "192.0.2.1", 0).start()


def test_stopping_finishes_the_request_in_flight(app: Flask) -> None:
    entered, leave = threading.Event(), threading.Event()

    @app.get("/slow")
    def slow() -> Response:
        entered.set()
        leave.wait(20)
        return http.json_response("done")

    server = http.WebServer(app, "127.0.0.1", 0)
    server.start()
    answers: list[httpx.Response] = []
    url = f"http://127.0.0.1:{server.port}/slow"
    asking = threading.Thread(target=lambda: answers.append(httpx.get(url, timeout=30)))
    asking.start()
    assert entered.wait(20)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    leave.set()
    stopping.join(20)
    asking.join(20)
    assert [answer.json() for answer in answers] == ["done"]


def test_stopping_gives_up_on_a_request_that_never_ends(app: Flask) -> None:
    entered, leave = threading.Event(), threading.Event()

    @app.get("/stuck")
    def stuck() -> Response:
        entered.set()
        leave.wait(60)
        return http.json_response("late")

    server = http.WebServer(app, "127.0.0.1", 0)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
        assert entered.wait(20)
        stopping = threading.Thread(target=server.stop, args=(0.2,))
        stopping.start()
        stopping.join(20)
        assert not stopping.is_alive()
        assert not leave.is_set()
        leave.set()


def test_an_oversized_body_gets_its_answer_and_not_a_reset(server: http.WebServer) -> None:
    size = 900_000
    with socket.socket() as raw:
        # most of the body is still unsent when the server has seen that it is too large
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        raw.settimeout(20)
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        raw.sendall(b"x" * size)
        answer = raw.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")


def test_an_oversized_chunked_body_is_refused_too(server: http.WebServer) -> None:
    chunks = (b"x" * 10_000 for _ in range(20))
    answer = httpx.post(f"http://127.0.0.1:{server.port}/echo", content=chunks)
    assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 40_000 + b"\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    ],
)
def test_what_is_no_proper_http_is_refused_in_json(
    server: http.WebServer, request_bytes: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(request_bytes)
        answer = b""
        while b'{"error"' not in answer:
            received = raw.recv(65536)
            assert received, answer
            answer += received
    assert answer.startswith(b"HTTP/1.1 4")


def test_websocket_clients_hold_no_http_thread(server: http.WebServer, hub: Hub) -> None:
    url = f"ws://127.0.0.1:{server.port}/ws"
    with connect(url) as one, connect(url) as two, connect(url) as three:
        clients = [one, two, three]
        assert [client.recv(timeout=20) for client in clients] == ["hello"] * 3
        # three clients on two threads, and HTTP still answers
        assert httpx.get(f"http://127.0.0.1:{server.port}/health").status_code == HTTPStatus.OK
        hub.broadcast(["a", "ä€"])
        for client in clients:
            assert [client.recv(timeout=20), client.recv(timeout=20)] == ["a", "ä€"]


def test_a_client_past_the_limit_gets_503_and_a_place_when_one_is_free(
    server: http.WebServer, hub: Hub
) -> None:
    url = f"ws://127.0.0.1:{server.port}/ws"
    with connect(url), connect(url):
        with connect(url):
            wait_until(lambda: hub.full, "the third client is in")
            refused = httpx.get(
                f"http://127.0.0.1:{server.port}/ws",
                headers={
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                },
            )
            assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        wait_until(lambda: hub.connected == 2, "the third client left")
        with connect(url) as again:
            assert again.recv(timeout=20) == "hello"


def test_a_client_that_does_not_read_is_dropped_and_the_others_are_not(
    server: http.WebServer, hub: Hub
) -> None:
    url = f"ws://127.0.0.1:{server.port}/ws"
    with connect(url) as reading, connect(url, max_queue=1, close_timeout=0):
        assert reading.recv(timeout=20) == "hello"
        message = "x" * 100_000
        for _ in range(200):
            hub.broadcast([message])
            assert reading.recv(timeout=20) == message
            if hub.dropped:
                break
        assert hub.dropped == 1
        hub.broadcast(["still here"])
        assert reading.recv(timeout=20) == "still here"
        wait_until(lambda: hub.connected == 1, "only the reading client is left")


def test_a_client_that_does_not_answer_pings_is_dropped(server: http.WebServer, app: Flask) -> None:
    hub = Hub(ping_interval_seconds=0.05)

    @app.get("/pinged", websocket=True)
    def pinged() -> Response:
        return http.websocket_response(lambda connection: hub.adopt(connection, "hello"))

    hub.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as silent:
            silent.sendall(
                b"GET /pinged HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            while silent.recv(65536):
                pass
        wait_until(lambda: hub.connected == 0, "the silent client was forgotten")
    finally:
        hub.stop()


def test_stopping_says_goodbye(server: http.WebServer, app: Flask, hub: Hub) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/ws") as client:
        assert client.recv(timeout=20) == "hello"
        hub.stop()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
