"""Clients that are silent, slow or too many cost themselves their connections, and nobody else anything."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import Response

from order_services.service.health import Health
from order_services.web.answers import Call, json_response
from order_services.web.app import ServiceApp
from order_services.web.limits import MAX_BODY_BYTES, Limits
from order_services.web.server import WebServer, within_descriptors
from tests.support.waiting import wait_for

SOON = 0.4
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@contextmanager
def serving(**limits: Any) -> Iterator[WebServer]:
    app = ServiceApp("test", Health(), registry=CollectorRegistry(), threads=2)

    async def echo(call: Call) -> Response:
        return json_response(call.json())

    async def large(_call: Call) -> Response:
        return json_response("x" * 20_000_000)

    app.add_on_loop("POST", "/echo", echo)
    app.add_on_loop("GET", "/large", large)
    app.add("GET", "/thread", lambda _call: json_response("free"))
    server = WebServer(app, "127.0.0.1", 0, limits=Limits(**limits))
    server.start()
    try:
        yield server
    finally:
        assert server.stop()


def connect(server: WebServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def read_all(client: socket.socket) -> bytes:
    """Read until the server closes."""
    data = b""
    try:
        while received := client.recv(65536):
            data += received
    except ConnectionResetError:
        pass
    return data


def get(server: WebServer, path: str) -> httpx.Response:
    return httpx.get(
        f"http://127.0.0.1:{server.port}{path}", timeout=5, trust_env=False, verify=False
    )


def trickle(client: socket.socket, data: bytes, seconds: float = 0.05) -> None:
    """Send a byte each so often until all is sent or nobody takes it."""
    try:
        for n in range(len(data)):
            client.sendall(data[n : n + 1])
            time.sleep(seconds)
    except OSError:
        return


def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    with serving(head_seconds=SOON) as server, connect(server) as silent:
        began = time.monotonic()
        assert read_all(silent) == b""
        assert SOON < time.monotonic() - began < SOON + 2


def test_a_head_has_a_deadline_however_busy_its_sender_is() -> None:
    with serving(head_seconds=SOON) as server, connect(server) as slow:
        sender = threading.Thread(target=trickle, args=(slow, HEAD * 10))
        sender.start()
        began = time.monotonic()
        answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'{"error":{"message":"the request\'s head took too long"}}' in answer
        assert time.monotonic() - began < SOON + 4
        slow.close()
        sender.join(20)


def test_a_head_that_begins_after_an_answer_has_a_deadline_of_its_own() -> None:
    with serving(head_seconds=SOON) as server, connect(server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        time.sleep(2 * SOON)  # between requests there is more time
        client.sendall(b"GET /health HTTP/1.1\r\nHo")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("beyond", [b"", b"\r\n"])
def test_a_connection_between_requests_is_closed_after_its_time(beyond: bytes) -> None:
    with serving(idle_seconds=1) as server, connect(server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(beyond)
        began = time.monotonic()
        assert read_all(client) == b""
        assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 50\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_a_body_has_a_deadline_however_busy_its_sender_is(framing: bytes) -> None:
    with serving(body_seconds=SOON) as server, connect(server) as slow:
        slow.sendall(HEAD + framing)
        chunks = b"1\r\nx\r\n" * 20 if b"chunked" in framing else b"x" * 49
        sender = threading.Thread(target=trickle, args=(slow, chunks))
        sender.start()
        answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body took too long" in answer
        slow.close()
        sender.join(20)


def test_a_client_that_sends_its_body_late_but_in_time_is_served() -> None:
    with serving(body_seconds=5) as server, connect(server) as client:
        client.sendall(HEAD + b"Content-Length: 4\r\nConnection: close\r\n\r\n")
        time.sleep(SOON)
        client.sendall(b"1234")
        assert read_all(client).endswith(b"\r\n\r\n1234")


def test_a_client_that_does_not_read_is_cut_off() -> None:
    with serving(send_seconds=SOON) as server, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(20)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for("nobody connected", lambda: not server._server.server_state.connections)
        assert len(read_all(deaf)) < 20_000_000


def test_a_client_that_reads_slowly_but_reads_is_served() -> None:
    with serving(send_seconds=SOON) as server, connect(server) as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = 0
        while part := slow.recv(1_000_000):
            received += len(part)
            time.sleep(0.01)
        assert received > 20_000_000


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000,
        b"GET /" + b"x" * 40_000,
    ],
)
def test_a_head_is_bounded(data: bytes) -> None:
    with serving() as server, connect(server) as client:
        client.sendall(data)
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "body",
    [
        b"1;" + b"x" * 2_000_000,  # a chunk's extension
        b"1\r\nx\r\n0\r\nTrailer: " + b"x" * 2_000_000,
        b"1\r\nx\r\n" * 400_000,
        b"ffffffff\r\n" + b"x" * 2_000_000,
    ],
)
def test_a_chunked_body_is_bounded_with_all_that_is_around_it(body: bytes) -> None:
    with serving() as server, connect(server) as client:
        sender = threading.Thread(target=send_quietly, args=(client, body))
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sender.start()
        answer = read_all(client)
        sender.join(20)
    assert answer[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 431"), answer[:200]


def send_quietly(client: socket.socket, data: bytes) -> None:
    try:
        client.sendall(data)
    except OSError:
        return  # refused, which is what the tests ask for


def test_the_body_of_a_gigabyte_is_refused_at_its_head() -> None:
    with serving() as server, connect(server) as client:
        client.sendall(HEAD + b"Content-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert f"larger than {MAX_BODY_BYTES} bytes".encode() in answer


def test_a_client_of_too_many_gets_the_place_of_the_one_that_was_waited_for_the_longest() -> None:
    with serving(connections=4, head_seconds=60) as server, ExitStack() as opened:
        served = opened.enter_context(connect(server))
        served.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert served.recv(65536).startswith(b"HTTP/1.1 200 ")
        silent = [opened.enter_context(connect(server)) for _ in range(30)]
        assert get(server, "/thread").is_success
        assert read_all(silent[0]) == b""
        # of a silent one and one that was a client before, the silent one goes
        served.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert served.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert len(server._server.server_state.connections) <= 5


def test_clients_that_are_being_answered_keep_their_places() -> None:
    entered, leave = threading.Semaphore(0), threading.Event()
    app = ServiceApp("test", Health(), registry=CollectorRegistry(), threads=4)

    def held(_call: Call) -> Response:
        entered.release()
        leave.wait(20)
        return json_response("done")

    app.add("GET", "/held", held)
    server = WebServer(app, "127.0.0.1", 0, limits=Limits(connections=3))
    server.start()
    with ExitStack() as opened:
        opened.callback(server.stop)
        clients = [opened.enter_context(connect(server)) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert entered.acquire(timeout=20)
        refused = get(server, "/health")
        assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert "too many connections" in refused.json()["error"]["message"]
        leave.set()
        for client in clients:
            assert read_all(client).endswith(b'"done"')


def test_connections_leave_half_of_the_descriptors_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for soft, expected in ((128, 64), (1024, 512), (1_000_000, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, 1_000_000))
        assert within_descriptors(Limits()).connections == expected
