"""The small programs of the images, run as their containers run them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from order_services.local.ports import LOOPBACK, free_port
from tests.support.waiting import wait_for
from tests.unit.deploy.compose import REPOSITORY


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    status = 200
    orders = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer(self.server.status if self.path == "/health" else 404, {"status": "said"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.orders += 1
        self._answer(202, {})

    def _answer(self, status: int, content: dict[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def server(status: int = 200) -> Iterator[_Server]:
    running = _Server((LOOPBACK, 0), _Handler)
    running.status = status
    thread = threading.Thread(target=running.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield running
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def _healthcheck(*arguments: str, port: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(REPOSITORY / "deploy" / "healthcheck.py"), *arguments],
        env={} if port is None else {"PORT": port},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def test_the_health_check_says_yes_when_the_program_does() -> None:
    with server() as running:
        port = str(running.server_port)
        assert _healthcheck(port).returncode == 0
        assert _healthcheck(port=port).returncode == 0


def test_the_health_check_says_no_and_why_when_the_program_does_or_is_not_there() -> None:
    with server(status=503) as running:
        done = _healthcheck(str(running.server_port))
    assert done.returncode == 1
    assert "503" in done.stdout
    assert "said" in done.stdout
    nobody = _healthcheck(str(free_port()))
    assert nobody.returncode == 1
    assert "refused" in nobody.stderr
    assert "Traceback" not in nobody.stderr


def test_the_health_check_without_a_port_says_so() -> None:
    done = _healthcheck()
    assert done.returncode == 2
    assert "set PORT" in done.stderr


def _traffic(*arguments: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / "deploy" / "demo_traffic.py"), *arguments]


def test_demo_traffic_sends_orders_until_it_is_stopped() -> None:
    with server() as running:
        process = subprocess.Popen(
            _traffic(LOOPBACK, str(running.server_port), "50"),
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            wait_for("three orders", lambda: running.orders >= 3)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait(10)
    assert process.returncode == 0
    assert "accepted" in output


@pytest.mark.parametrize(
    "arguments", [(), ("host", "4000"), ("host", "4000", "0"), ("h", "p", "1")]
)
def test_demo_traffic_says_what_it_needs(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        _traffic(*arguments),
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert "HOST PORT ORDERS_PER_SECOND" in done.stderr
    assert "Traceback" not in done.stderr
