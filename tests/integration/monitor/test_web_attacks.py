"""The monitor's server, as a process, under clients that mean no good: /health answers meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from order_services.local.ports import free_port
from tests.support.waiting import wait_for

TLS: Final = Path(__file__).parents[2] / "support" / "tls" / "one.pem"
HURRY: Final = 5  # deadlines are so many times shorter than in earnest
ATTACK_S: Final = 5.0
SLOWEST_HEALTH_S: Final = 1.0


def slowest_health_s() -> float:
    """Return how long /health may take: longer where others keep the processors busy as well."""
    return SLOWEST_HEALTH_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 2)


@dataclass
class Served:
    """A server in a process of its own."""

    port: int
    process: psutil.Process
    tls: bool = False
    health: list[float] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def get(self, path: str, timeout: float = 5) -> bytes:
        connection: http.client.HTTPConnection
        if self.tls:
            context = ssl.create_default_context(cafile=TLS)
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200
            return body

    def rss_mb(self) -> float:
        return float(self.process.memory_info().rss) / 1e6

    def cpu_s(self) -> float:
        return sum(self.process.cpu_times()[:2])

    def connections(self) -> int:
        found = self.process.net_connections("tcp")
        return sum(one.status != psutil.CONN_LISTEN for one in found)


@contextlib.contextmanager
def serving(
    *, descriptors: int = 1_024, hurry: float = HURRY, tls: bool = False
) -> Iterator[Served]:
    port = free_port()
    command = [sys.executable, "-m", "tests.support.page_server", str(port), str(descriptors)]
    program = subprocess.Popen(
        [*command, str(hurry), *([str(TLS)] if tls else [])], stderr=subprocess.PIPE, text=True
    )
    served = Served(port, psutil.Process(program.pid), tls)

    def is_up() -> bool:
        with contextlib.suppress(OSError):
            return b"kafka_consumergroup_lag{" in served.get("/metrics", 20)
        return False

    try:
        wait_for("the page", is_up)
        yield served
    finally:
        program.terminate()
        _, told = program.communicate(timeout=30)
    assert program.returncode == 0
    assert "Traceback" not in told, told


@contextlib.contextmanager
def health_is_asked(served: Served) -> Iterator[None]:
    """Ask /health all the time, each on a connection of its own; none may take a second.

    Among newcomers of whom all but a few are turned away, nobody can tell who is about to ask from those
    who say nothing: who is reset before it has asked tries again, within the same second.
    """
    ended = threading.Event()
    failed: list[BaseException] = []

    def ask() -> None:
        while not ended.wait(0.05):
            began = time.monotonic()
            try:
                assert answer_since(began) == b'{"status": "ok"}'
            except (OSError, http.client.HTTPException, AssertionError) as error:
                failed.append(error)
                return
            served.health.append(time.monotonic() - began)

    def answer_since(began: float) -> bytes:
        while True:
            try:
                return served.get("/health", 30)
            except ConnectionResetError as error:
                was_read = isinstance(error, http.client.RemoteDisconnected)  # and not answered
                if was_read or time.monotonic() - began > slowest_health_s():
                    raise

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failed, f"/health after {len(served.health)} answers: {failed}"
    assert served.health
    assert max(served.health) < slowest_health_s()


def is_well_again(served: Served) -> None:
    """Wait until all connections of the attack are gone, and see that pages are served."""
    limit = 30 / HURRY + 5
    wait_for("the end of all connections", lambda: served.connections() == 0, timeout_s=limit)
    assert b"kafka_consumergroup_lag{" in served.get("/metrics")
    assert b"group-of-topic-0" in served.get("/")


def hold(
    stack: contextlib.ExitStack, count: int, connect: Callable[[], socket.socket]
) -> list[Any]:
    held = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            held.append(stack.enter_context(connect()))
    return held


def until(seconds: float, act: Callable[[], None], every: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        act()
        time.sleep(every)


@pytest.mark.parametrize(
    ("count", "tls"),
    [
        (300, True),
        *(
            pytest.param(*one, marks=pytest.mark.heavy)
            for one in ((8, True), (8, False), (300, False))
        ),
    ],
)
def test_connections_that_say_nothing(count: int, *, tls: bool) -> None:
    with serving(tls=tls) as served, contextlib.ExitStack() as stack:
        hold(stack, count, served.connect)
        with health_is_asked(served):
            time.sleep(ATTACK_S)
        is_well_again(served)


@pytest.mark.heavy
def test_heads_that_trickle_in() -> None:
    with serving() as served, contextlib.ExitStack() as stack:
        clients = hold(stack, 60, served.connect)
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")

        def drip() -> None:
            for client in clients:
                with contextlib.suppress(OSError):
                    client.sendall(b"X-More: y\r\n")

        with health_is_asked(served):
            until(ATTACK_S, drip, 0.3)
        is_well_again(served)


@pytest.mark.heavy
def test_trickled_heads_have_a_deadline_though_something_comes_all_the_time() -> None:
    with serving() as served, served.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        with pytest.raises(OSError, match=r"."):  # reset, or broken pipe
            until(30, lambda: client.sendall(b"X: y\r\n"), 0.05)
        assert 1 < time.monotonic() - began < 5  # 10 s in earnest


@pytest.mark.heavy
def test_endless_heads_take_no_memory() -> None:
    def flood(served: Served) -> None:
        with contextlib.suppress(OSError), served.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\n")
            for _ in range(240):
                client.sendall(b"X-" + b"a" * 1_000 + b": " + b"b" * 999_000 + b"\r\n")

    with serving() as served:
        with served.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 17_000)
            answer = client.recv(1_000)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b'"message": "the head of a request may have 16384 bytes"' in answer
        before = served.rss_mb()
        with health_is_asked(served):
            until(ATTACK_S, lambda: flood(served), 0.01)
        assert served.rss_mb() - before < 30
        is_well_again(served)


@pytest.mark.parametrize("head", [b"Content-Length: 100000000", b"Transfer-Encoding: chunked"])
def test_bodies_are_refused(head: bytes) -> None:
    with serving() as served:
        before = served.rss_mb()
        with health_is_asked(served), served.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            answer = client.recv(100)
            with contextlib.suppress(OSError):
                for _ in range(100):
                    client.sendall(b"x" * 1_000_000)
            time.sleep(1)
        assert b" 413 " in answer
        assert served.rss_mb() - before < 30
        is_well_again(served)


@pytest.mark.parametrize(
    "head", [b"", pytest.param(b"Accept-Encoding: gzip\r\n", marks=pytest.mark.heavy)]
)
@pytest.mark.parametrize("path", [b"/metrics", pytest.param(b"/", marks=pytest.mark.heavy)])
def test_readers_that_take_nothing_of_the_big_page(head: bytes, path: bytes) -> None:
    def connect() -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(5)
        client.connect(("127.0.0.1", served.port))
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
        return client

    with serving() as served, contextlib.ExitStack() as stack:
        assert len(served.get("/metrics")) > 3e6
        before = served.rss_mb()
        with health_is_asked(served):
            hold(stack, 100, connect)
            time.sleep(ATTACK_S)
            assert b"kafka_consumergroup_lag{" in served.get("/metrics")
        assert served.rss_mb() - before < 100
        is_well_again(served)


@pytest.mark.heavy
def test_more_connections_than_descriptors() -> None:
    with serving(descriptors=64) as served, contextlib.ExitStack() as stack:
        with health_is_asked(served):
            hold(stack, 200, served.connect)
            before = served.cpu_s()
            time.sleep(ATTACK_S)
            # its polls, and /health twenty times a second
            assert served.cpu_s() - before < ATTACK_S * 0.6
        is_well_again(served)


@pytest.mark.heavy
def test_clients_that_connect_again_and_again() -> None:
    def connect_and_leave() -> None:
        for _ in range(20):
            with contextlib.suppress(OSError), served.connect() as client:
                client.sendall(b"GET /hea")

    with serving() as served:
        with health_is_asked(served):
            until(ATTACK_S, connect_and_leave, 0.01)
        is_well_again(served)


def test_requests_sent_without_waiting_for_answers() -> None:
    with serving() as served, served.connect() as client:
        with health_is_asked(served):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            answers = b""
            while answers.count(b'{"status": "ok"}') < 20:
                answers += client.recv(65_536)
            with contextlib.suppress(OSError):
                for _ in range(1_000):
                    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            time.sleep(1)
        client.close()
        is_well_again(served)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a server without
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 100,
    ],
)
def test_nonsense(sent: bytes) -> None:
    with serving() as served:
        with health_is_asked(served):
            for _ in range(20):
                with contextlib.suppress(OSError), served.connect() as client:
                    client.sendall(sent)
                    client.shutdown(socket.SHUT_WR)
                    client.recv(1_000)
            time.sleep(0.5)
        is_well_again(served)


@pytest.mark.heavy
def test_a_scraper_may_keep_its_connection_as_long_as_it_scrapes() -> None:
    with serving(hurry=1) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
        connection.connect()
        kept = connection.sock
        for pause in (0, 0, 12):
            time.sleep(pause)
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b'{"status": "ok"}'
            assert connection.sock is kept
        connection.close()
