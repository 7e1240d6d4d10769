"""What RFC 9112 forbids is refused at once: no two readers of the same bytes may disagree on them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry
from starlette.responses import Response

from order_services.service.health import Health
from order_services.web.answers import Call, json_response
from order_services.web.app import ServiceApp
from order_services.web.server import WebServer
from tests.integration.order_services.test_http_deadlines import read_all

POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    app = ServiceApp("test", Health(), registry=CollectorRegistry())

    async def echo(call: Call) -> Response:
        return json_response(call.json())

    async def large(_call: Call) -> Response:
        return json_response("x" * 10_000_000)

    app.add_on_loop("POST", "/echo", echo)
    app.add_on_loop("GET", "/large", large)
    server = WebServer(app, "127.0.0.1", 0)
    server.start()
    yield server
    server.stop()


def exchange(server: WebServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(data)
        return read_all(client)


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n1",
        POST + b"Content-Length: 1, 1\r\n\r\n1",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: +1\r\n\r\n1",
        POST + b"Content-Length: 0x1\r\n\r\n1",
        POST + b"Content-Length: many\r\n\r\n",
        POST + b"Content-Length: \r\n\r\n1",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n1",
        POST + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n" + CHUNKED + b"0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.0\r\n" + CHUNKED + b"1\r\n1\r\n0\r\n\r\n",
        POST + CHUNKED + b"zz\r\n",
        POST + CHUNKED + b"1\r\n123\r\n0\r\n\r\n",
        POST + CHUNKED + b"-1\r\n1\r\n0\r\n\r\n",
        POST + CHUNKED + b"fffffffffffffffffff\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # no Host
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\nHost: x\n\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA\xff: b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/0.9\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"WHAT /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n1",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_at_once(
    server: WebServer, request_bytes: bytes
) -> None:
    began = time.monotonic()
    answer = exchange(server, request_bytes + NEXT)
    assert time.monotonic() - began < 3
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"\r\ncontent-type: application/json\r\n" in answer
    assert b"\r\nconnection: close\r\n" in answer
    assert b'{"error":{"message":' in answer
    assert answer.count(b"HTTP/1.1 ") == 1  # and what follows is not read


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (POST + b"Content-Length: 65537\r\n\r\n", b"413"),
        (POST + b"Content-Length: 9223372036854775807\r\n\r\n", b"413"),
        (POST + CHUNKED + b"10001\r\n" + b" " * 65537, b"413"),
        (POST + b"Expect: a miracle\r\nContent-Length: 1\r\n\r\n1", b"417"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET http://elsewhere HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    ],
)
def test_what_this_server_does_not_take_is_refused_by_its_status(
    server: WebServer, request_bytes: bytes, status: bytes
) -> None:
    answer = exchange(server, request_bytes + NEXT)
    assert answer.startswith(b"HTTP/1.1 " + status), answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 001\r\n\r\n1",
        POST + CHUNKED + b"1\r\n1\r\n0\r\n\r\n",
        POST + CHUNKED + b"1;extension=1\r\n1\r\n0\r\nContent-Type: text/xml\r\n\r\n",  # a trailer
        POST + b"Transfer-Encoding: Chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
        b"\r\n" + POST + b"Content-Length: 1\r\n\r\n1",
        POST.replace(b" /echo", b" http://x/echo") + b"Content-Length: 1\r\n\r\n1",
    ],
)
def test_what_is_proper_is_answered_and_so_is_what_follows(
    server: WebServer, request_bytes: bytes
) -> None:
    answer = exchange(server, request_bytes + NEXT)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert b"\r\n\r\n1HTTP/1.1" in answer


def test_a_client_is_told_to_go_on_with_its_body(server: WebServer) -> None:
    head = POST + b"Expect: 100-continue\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(head)
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"1")
        assert read_all(client).endswith(b"\r\n\r\n1")


def test_another_protocol_is_not_spoken_and_the_request_is_answered(server: WebServer) -> None:
    upgrade = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    answer = exchange(server, upgrade + b"what follows is nobody's")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_answers_keep_their_order_when_a_later_request_is_refused(server: WebServer) -> None:
    one = POST + b"Content-Length: 1\r\n\r\n1"
    for bad in (
        b"NONSENSE\r\n\r\n",
        POST + b"Content-Length: 65537\r\n\r\n",
        POST + CHUNKED + b"zz\r\n",
    ):
        answer = exchange(server, one * 3 + bad + NEXT)
        statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
        assert statuses[:3] == [b"200"] * 3, answer
        assert statuses[3:] in ([b"400"], [b"413"]), answer


def test_a_client_that_goes_while_its_requests_wait_leaves_nothing_in_the_log(
    server: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    one = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.sendall(one * 4)
                time.sleep(0.1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.5)
    assert lines == []
    assert caplog.records == []


def test_bad_requests_leave_nothing_in_the_log(
    server: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            exchange(server, b"NONSENSE\r\n\r\n")
            exchange(server, POST + CHUNKED + b"zz\r\n")
            exchange(server, POST + b"Expect: 100-continue\r\n" + CHUNKED + b"zz\r\n")
    assert lines == []
    assert caplog.records == []
