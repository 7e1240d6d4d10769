from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from order_services.web.answers import Call, database_away, json_response
from order_services.web.app import ServiceApp
from order_services.web.server import PortTakenError, WebServer
from order_services.web.websocket import Hub


class Fine:
    def alive(self) -> list[str]:
        return []

    def ready(self) -> list[str]:
        return []

    def degraded(self) -> list[str]:
        return []


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def connected(server: WebServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def assert_a_thread_is_free(server: WebServer) -> None:
    """Ask for what a thread of the pool answers."""
    answer = httpx.get(f"http://127.0.0.1:{server.port}/thread", timeout=5)
    assert answer.status_code == HTTPStatus.OK


class Held:
    """Requests to /later and what they wait for, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[str]] = []

    async def view(self, _call: Call) -> Response:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return json_response(await future, HTTPStatus.ACCEPTED)

    def __len__(self) -> int:
        return len(self._waiting)

    def answer(self, number: int, outcome: str | Exception) -> None:
        future = self._waiting[number]
        settle = future.set_exception if isinstance(outcome, Exception) else future.set_result
        future.get_loop().call_soon_threadsafe(settle, outcome)  # type: ignore[arg-type]

    def clear(self) -> None:
        self._waiting.clear()


@pytest.fixture
def app() -> ServiceApp:
    app = ServiceApp("test-service", Fine(), registry=CollectorRegistry(), threads=2)

    async def echo(call: Call) -> Response:
        return json_response(call.json())

    app.add_on_loop("POST", "/echo", echo)
    app.add("GET", "/thread", lambda _call: json_response("free"))
    return app


@pytest.fixture
def held(app: ServiceApp) -> Held:
    held = Held()
    app.add_on_loop("POST", "/later", held.view)
    return held


@pytest.fixture
def hub(app: ServiceApp) -> Hub:
    hub = Hub(max_clients=3, max_unsent_bytes=200_000)

    async def connected(websocket: WebSocket) -> None:
        await hub.serve(websocket, "hello")

    app.add_websocket("/ws", connected)
    return hub


@pytest.fixture
def server(app: ServiceApp) -> Iterator[WebServer]:
    server = WebServer(app, "127.0.0.1", 0)
    server.start()
    yield server
    server.stop()


def test_a_taken_port_is_named_with_its_setting(server: WebServer, app: ServiceApp) -> None:
    second = WebServer(app, "127.0.0.1", server.port)
    with pytest.raises(PortTakenError, match=rf"port {server.port}: address already in use.*PORT"):
        second.start()


def test_an_address_that_is_not_ours_is_named(app: ServiceApp) -> None:
    with pytest.raises(PortTakenError, match=r"cannot listen on 192\.0\.2\.1 port"):
        WebServer(app, "192.0.2.1", 0).start()


def test_stopping_finishes_the_request_in_flight(app: ServiceApp) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(_call: Call) -> Response:
        entered.set()
        leave.wait(20)
        return json_response("done")

    app.add("GET", "/slow", slow)
    server = WebServer(app, "127.0.0.1", 0)
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


def test_stopping_leaves_no_thread_behind(app: ServiceApp, hub: Hub) -> None:
    before = set(threading.enumerate())
    server = WebServer(app, "127.0.0.1", 0)
    server.start()
    assert_a_thread_is_free(server)
    assert httpx.get(f"http://127.0.0.1:{server.port}/ready", timeout=5).is_success
    with connect(f"ws://127.0.0.1:{server.port}/ws") as client:
        assert client.recv(timeout=20) == "hello"
        assert {thread.name for thread in set(threading.enumerate()) - before} >= {
            "http",
            "http-view",
            "readiness",
        }
        assert server.stop()
    ours = [each for each in set(threading.enumerate()) - before if "websocket" not in each.name]
    assert [each.name for each in ours if each.name.startswith(("http", "readiness"))] == []


def test_stopping_gives_up_on_a_request_that_never_ends(app: ServiceApp) -> None:
    entered, leave = threading.Event(), threading.Event()

    def stuck(_call: Call) -> Response:
        entered.set()
        leave.wait(60)
        return json_response("late")

    app.add("GET", "/stuck", stuck)
    server = WebServer(app, "127.0.0.1", 0)
    server.start()
    with connected(server) as raw:
        raw.sendall(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
        assert entered.wait(20)
        stopping = threading.Thread(target=server.stop, args=(0.2,))
        stopping.start()
        stopping.join(20)
        assert not stopping.is_alive()
        assert not leave.is_set()
        leave.set()


def test_an_oversized_body_gets_its_answer_and_not_a_reset(server: WebServer) -> None:
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


def test_an_oversized_chunked_body_is_refused_too(server: WebServer) -> None:
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
def test_what_is_no_proper_http_is_refused_in_json(server: WebServer, request_bytes: bytes) -> None:
    with connected(server) as raw:
        raw.sendall(request_bytes)
        answer = b""
        while b'{"error"' not in answer:
            received = raw.recv(65536)
            assert received, answer
            answer += received
    assert answer.startswith(b"HTTP/1.1 4")


def post(body: bytes, path: str = "/echo", *lines: str) -> bytes:
    fields = ["Host: x", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    head = [f"POST {path} HTTP/1.1", *fields, *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def read_answer(raw: socket.socket) -> tuple[bytes, bytes]:
    """Read one answer and nothing more; returns head and body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = raw.recv(1)
        assert received, head
        head += received
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        received = raw.recv(length - len(body))
        assert received, body
        body += received
    return head, body


def test_requests_that_wait_for_their_answers_hold_no_threads(
    held: Held, server: WebServer
) -> None:
    with ExitStack() as opened:
        clients = [opened.enter_context(connected(server)) for _ in range(10)]
        for _ in range(2):  # again on the same connections
            held.clear()
            for n, client in enumerate(clients):
                client.sendall(post(b"{}", "/later"))
                wait_until(lambda n=n: len(held) == n + 1, "the request has begun")  # type: ignore[misc]
            # ten requests on two threads, and HTTP still answers
            assert_a_thread_is_free(server)
            for n in range(10):
                held.answer(n, f"answer {n}")
            for n, client in enumerate(clients):
                head, body = read_answer(client)
                assert head.startswith(b"HTTP/1.1 202 Accepted\r\n")
                assert body == f'"answer {n}"'.encode()


def test_an_answer_that_fails_later_is_refused_as_any_other(held: Held, server: WebServer) -> None:
    with connected(server) as client:
        client.sendall(post(b"{}", "/later", "X-Correlation-Id: its-own"))
        wait_until(lambda: len(held) == 1, "the request has begun")
        held.answer(0, database_away())
        head, _ = read_answer(client)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2\r\n" in head
    assert b"x-correlation-id: its-own\r\n" in head


@pytest.mark.parametrize("pieces", [1, 7, 40])
def test_a_request_may_come_in_pieces(server: WebServer, pieces: int) -> None:
    data = post(b'{"a": 1}')
    with connected(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            step = -(-len(data) // pieces)
            for at in range(0, len(data), step):
                client.sendall(data[at : at + step])
                time.sleep(0.002)
            assert read_answer(client)[1] == b'{"a":1}'


def send_head_then_body(client: socket.socket, request: bytes) -> None:
    """Send both apart, as Python's http.client does; the server sees the head alone."""
    head, _, body = request.partition(b"\r\n\r\n")
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(head + b"\r\n\r\n")
    time.sleep(0.05)
    client.sendall(body)


def test_requests_whose_bodies_come_later_hold_no_threads(held: Held, server: WebServer) -> None:
    with ExitStack() as opened:
        clients = [opened.enter_context(connected(server)) for _ in range(5)]
        for n, client in enumerate(clients):
            send_head_then_body(client, post(b"{}", "/later"))
            wait_until(lambda n=n: len(held) == n + 1, "the request has begun", 5)  # type: ignore[misc]
        for n in range(5):
            held.answer(n, "done")
        for client in clients:
            assert read_answer(client)[1] == b'"done"'


def test_a_client_that_goes_away_within_a_body_is_let_go(server: WebServer) -> None:
    with connected(server) as client:
        client.sendall(post(b'{"half": 1}')[:-4])
        time.sleep(0.05)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass


def test_probes_are_answered_while_all_threads_wait(app: ServiceApp, server: WebServer) -> None:
    both_threads, leave = threading.Barrier(3), threading.Event()

    def waits(_call: Call) -> Response:
        if not leave.is_set():
            both_threads.wait(20)
            leave.wait(20)
        return json_response("done")

    app.add("GET", "/waits", waits)
    base = f"http://127.0.0.1:{server.port}"
    with ThreadPoolExecutor(6) as clients, httpx.Client(timeout=5) as probes:
        answers = [clients.submit(httpx.get, f"{base}/waits", timeout=30) for _ in range(6)]
        try:
            both_threads.wait(20)
            for _ in range(2):
                for path in ("/health", "/ready", "/metrics", "/metrics?name=up"):
                    assert probes.get(base + path).is_success, path
        finally:
            leave.set()
        assert [answer.result().json() for answer in answers] == ["done"] * 6


def test_a_database_that_does_not_answer_delays_readiness_by_a_moment_and_nothing_else(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def ready(_self: Fine) -> list[str]:
        entered.set()
        return [] if leave.wait(20) else ["never"]

    monkeypatch.setattr(Fine, "ready", ready)
    monkeypatch.setattr("order_services.web.app.READY_SECONDS", 0.3)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=5) as client:
        for _ in range(3):
            answer = client.get("/ready")
            assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
            assert answer.json()["reasons"] == ["no answer of the service's parts within 0.3 s"]
            assert entered.is_set()
            assert client.get("/metrics").is_success
            assert client.get("/health").is_success
        leave.set()
        wait_until(lambda: client.get("/ready").is_success, "readiness is back")


def test_requests_that_come_together_are_answered_in_their_order(server: WebServer) -> None:
    with connected(server) as client:
        client.sendall(b"".join(post(str(n).encode()) for n in range(50)))
        assert [read_answer(client)[1] for _ in range(50)] == [str(n).encode() for n in range(50)]


def test_a_refusal_keeps_the_connection(server: WebServer) -> None:
    with connected(server) as client:
        client.sendall(post(b"no json"))
        assert read_answer(client)[0].startswith(b"HTTP/1.1 400 ")
        client.sendall(post(b"1"))
        assert read_answer(client)[1] == b"1"


def test_a_client_that_asks_for_it_is_answered_and_let_go(server: WebServer) -> None:
    with connected(server) as client:
        client.sendall(post(b"1", "/echo", "Connection: close"))
        head, body = read_answer(client)
        assert (b"connection: close\r\n" in head, body) == (True, b"1")
        assert client.recv(1) == b""


def test_a_client_that_does_not_read_its_answers_holds_up_nobody(
    held: Held, server: WebServer
) -> None:
    with (
        socket.socket() as deaf,
        connected(server) as other,
    ):
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(post(b"{}", "/later"))
        wait_until(lambda: len(held) == 1, "the first has begun")
        other.sendall(post(b"{}", "/later"))
        wait_until(lambda: len(held) == 2, "the second has begun")
        held.answer(0, "x" * 50_000_000)
        held.answer(1, "short")
        assert read_answer(other)[1] == b'"short"'


def test_silent_connections_hold_no_threads(server: WebServer) -> None:
    with ExitStack() as opened:
        for _ in range(5):
            opened.enter_context(connected(server))
        assert_a_thread_is_free(server)


def test_stopping_waits_for_answers_that_are_still_to_come(held: Held, server: WebServer) -> None:
    with connected(server) as client:
        client.sendall(post(b"{}", "/later"))
        wait_until(lambda: len(held) == 1, "the request has begun")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.5)
        held.answer(0, "done")
        head, body = read_answer(client)
        assert (b"connection: close\r\n" in head, body) == (True, b'"done"')
        assert client.recv(1) == b""
        stopping.join(20)
        assert not stopping.is_alive()


def test_websocket_clients_hold_no_http_thread(server: WebServer, hub: Hub) -> None:
    url = f"ws://127.0.0.1:{server.port}/ws"
    with connect(url) as one, connect(url) as two, connect(url) as three:
        clients = [one, two, three]
        assert [client.recv(timeout=20) for client in clients] == ["hello"] * 3
        # three clients on two threads, and HTTP still answers
        assert_a_thread_is_free(server)
        hub.broadcast(["a", "ä€"])
        for client in clients:
            assert [client.recv(timeout=20), client.recv(timeout=20)] == ["a", "ä€"]


def test_a_client_past_the_limit_gets_503_and_a_place_when_one_is_free(
    server: WebServer, hub: Hub
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
    server: WebServer, hub: Hub
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


def test_a_client_that_does_not_answer_pings_is_dropped(app: ServiceApp, hub: Hub) -> None:
    server = WebServer(app, "127.0.0.1", 0, ping_interval_seconds=0.05)
    server.start()
    with connected(server) as silent:
        silent.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        while silent.recv(65536):
            pass
    wait_until(lambda: hub.connected == 0, "the silent client was forgotten")
    assert server.stop()


def test_stopping_says_goodbye(app: ServiceApp, hub: Hub) -> None:
    server = WebServer(app, "127.0.0.1", 0)
    server.start()
    with connect(f"ws://127.0.0.1:{server.port}/ws") as client:
        assert client.recv(timeout=20) == "hello"
        assert server.stop()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012  # service restart: come again
