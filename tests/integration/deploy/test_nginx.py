"""The real nginx, with our configuration, in front of two small upstreams."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from order_services.local.ports import LOOPBACK
from tests.support.nginx import BALANCING, CONFIGURATION, UPSTREAMS
from tests.support.nginx import balancer as running
from tests.support.waiting import wait_for
from tests.unit.deploy.compose import REPOSITORY, mounts, services

# https://www.rfc-editor.org/rfc/rfc6455#section-1.3
WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class _Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.name = name
        self.busy = threading.Event()
        self.release = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    """Says its name and what it was sent; /slow waits; /ws echoes one line after an upgrade."""

    protocol_version = "HTTP/1.1"
    server: _Upstream

    def do_GET(self) -> None:
        if self.path == "/ws":
            self._echo()
            return
        if self.path == "/slow":
            self.server.busy.set()
            self.server.release.wait(60)
        lines = [f"{name.lower()}: {value}" for name, value in self.headers.items()]
        body = "\n".join([self.server.name, *lines]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _echo(self) -> None:
        assert self.headers["Upgrade"] == "websocket"
        assert self.headers["Connection"] == "upgrade"
        digest = hashlib.sha1(f"{self.headers['Sec-WebSocket-Key']}{WEBSOCKET_GUID}".encode())
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest.digest()).decode())
        self.end_headers()
        self.wfile.write(self.rfile.readline())
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def upstreams() -> Iterator[list[_Upstream]]:
    running = [_Upstream("first"), _Upstream("second")]
    threads = [threading.Thread(target=each.serve_forever, args=(0.05,)) for each in running]
    for thread in threads:
        thread.start()
    yield running
    for each in running:
        each.release.set()
        each.shutdown()
        each.server_close()
    for thread in threads:
        thread.join()


@pytest.fixture
def balancer(upstreams: list[_Upstream], tmp_path: Path) -> Iterator[int]:
    with running(tmp_path, [each.server_port for each in upstreams]) as nginx:
        yield nginx.port


def _get(port: int, path: str, headers: dict[str, str] | None = None) -> list[str]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.read().decode().split("\n")
    finally:
        connection.close()


def test_requests_are_spread_over_the_replicas(balancer: int) -> None:
    assert {_get(balancer, "/")[0] for _ in range(4)} == {"first", "second"}


def test_a_request_goes_to_the_replica_with_fewer_connections(
    balancer: int, upstreams: list[_Upstream]
) -> None:
    slow = threading.Thread(target=_get, args=(balancer, "/slow"))
    slow.start()
    wait_for("the slow request", lambda: any(each.busy.is_set() for each in upstreams))
    (busy,) = [each for each in upstreams if each.busy.is_set()]
    answers = {_get(balancer, "/")[0] for _ in range(6)}
    for each in upstreams:
        each.release.set()
    slow.join()
    assert answers == {each.name for each in upstreams} - {busy.name}


def test_a_replica_that_is_gone_costs_no_request(balancer: int, upstreams: list[_Upstream]) -> None:
    upstreams[0].shutdown()
    upstreams[0].server_close()
    assert {_get(balancer, "/")[0] for _ in range(6)} == {"second"}


def test_a_service_is_told_who_asked_and_how(balancer: int) -> None:
    sent = {"X-Forwarded-For": "203.0.113.7", "Host": "orders.example:8443"}
    name, *lines = _get(balancer, "/", sent)
    assert name in ("first", "second")
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers["x-forwarded-for"] == f"203.0.113.7, {LOOPBACK}"
    assert headers["x-real-ip"] == LOOPBACK
    assert headers["x-forwarded-proto"] == "http"
    assert headers["host"] == "orders.example:8443"
    # a plain request asks for no upgrade, and its connection to the service is kept
    assert "upgrade" not in headers
    assert "connection" not in headers


def test_a_websocket_is_upgraded_and_carries_what_is_sent(balancer: int) -> None:
    key = base64.b64encode(b"0123456789abcdef").decode()
    request = (
        f"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    with socket.create_connection((LOOPBACK, balancer), timeout=20) as connection:
        connection.sendall(request.encode())
        stream = connection.makefile("rb")
        status = stream.readline()
        headers = list(iter(stream.readline, b"\r\n"))
        assert b" 101 " in status
        expected = base64.b64encode(hashlib.sha1(f"{key}{WEBSOCKET_GUID}".encode()).digest())
        assert b"Sec-WebSocket-Accept: " + expected + b"\r\n" in headers
        connection.sendall(b"hello through nginx\n")
        assert stream.readline() == b"hello through nginx\n"


def test_a_body_far_above_the_limit_is_refused(balancer: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, balancer, timeout=30)
    connection.putrequest("POST", "/api/orders")
    connection.putheader("Content-Length", str(2 * 1024 * 1024))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    connection.close()


def test_compose_mounts_this_configuration_and_gives_nginx_what_it_writes_to() -> None:
    nginx = services("docker-compose.scale.yml")["nginx"]
    targets = {target: source for source, target, _ in mounts(nginx)}
    assert REPOSITORY / targets["/etc/nginx/nginx.conf"] == CONFIGURATION
    assert REPOSITORY / targets["/etc/nginx/upstream.conf"] == UPSTREAMS / "least-conn.conf"
    assert {each.stem for each in UPSTREAMS.glob("*.conf")} == set(BALANCING)
    text = CONFIGURATION.read_text()
    written = re.findall(r"^\s*(?:pid|\w+_temp_path) (\S+);", text, re.MULTILINE)
    assert len(written) == 6
    assert all(path.startswith("/run/nginx/") for path in written)
    (tmpfs,) = nginx["tmpfs"]
    assert tmpfs.startswith(f"/run/nginx:uid={nginx['user'].split(':')[0]},")
    assert nginx["read_only"]
    assert nginx["user"].split(":")[0] != "0"
