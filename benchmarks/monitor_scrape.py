"""How long a scrape of 100,000 samples takes, for 1 and for 10 scrapers, plain and compressed.

The page is rendered by the monitor's poller from a snapshot in memory, and served by its web server
in a process of its own, which polls every 15 s meanwhile. Each scraper keeps its connection. Ten
scrape once a second at their own offsets, as Prometheus does; one alone scrapes four times a
second, so that there are enough samples for a p99. Beside it, in the same run, the same bytes from
a bare socket: what this machine needs to move them at all. And all scrapers at the same
moment, which no Prometheus does.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

import psutil

from benchmarks.support import median, percentile, run, say, table
from monitor.analysis.time_questions import TimeReplies, Times
from monitor.model import Broker, Group, LogLook, Member, Offsets, Partition, Snapshot, Topic
from monitor.poller import Poller
from monitor.web.app import create_app
from monitor.web.server import WebServer

SAMPLES: Final = 100_000
PARTITIONS: Final = 10
GROUPS_PER_TOPIC: Final = 2
POLL_INTERVAL_S: Final = 15.0
SCRAPE_INTERVAL_S: Final = {1: 0.25, 10: 1.0}  # by the number of scrapers
BUFFER_BYTES: Final = 1 << 20
HEAD: Final = "GET /metrics HTTP/1.1\r\nHost: monitor\r\nAccept-Encoding: {encoding}\r\n\r\n"
HEADERS_END: Final = b"\r\n\r\n"


class Cluster:
    """A cluster in memory: each poll sees a tenth of its topics moved."""

    def __init__(self, topics: int) -> None:
        self._polls = 0
        self._names = [f"topic-{index:04}" for index in range(topics)]
        partition = Partition(1, (1,), (1,))
        self._topics = {
            name: Topic(name, dict.fromkeys(range(PARTITIONS), partition)) for name in self._names
        }
        self._starts = {name: dict.fromkeys(range(PARTITIONS), 0) for name in self._names}

    def poll(self) -> Snapshot:
        """Return the next snapshot."""
        self._polls += 1
        now = time.time()
        ends = {
            name: dict.fromkeys(range(PARTITIONS), 1_000 + self._polls * (index % 10 == 0))
            for index, name in enumerate(self._names)
        }
        groups = [
            self._group(number, ends) for number in range(len(self._names) * GROUPS_PER_TOPIC)
        ]
        return Snapshot(
            "cluster", now, time.monotonic(), 0.1, 1, {1: Broker(1, "127.0.0.1", 9092)},
            topics=self._topics,
            start_offsets=Offsets(self._starts, time.monotonic()),
            end_offsets=Offsets(ends, time.monotonic()),
            groups={group.id: group for group in groups},
            requests={"ListGroups": 1},
        )  # fmt: skip

    def _group(self, number: int, ends: Mapping[str, Mapping[int, int]]) -> Group:
        topic = self._names[number % len(self._names)]
        live, unread = number % 20 in {0, 1}, 8 * (number % 10 == 0)
        commits = {p: end - unread for p, end in ends[topic].items()}
        held = {topic: tuple(range(PARTITIONS))}
        member = Member(f"member-{number}", "client", "/127.0.0.1", held)
        return Group(
            f"group-{number:04}", state="Stable" if live else "Empty", protocol_type="consumer",
            coordinator=1, members=(member,) if live else (), commits={topic: commits},
        )  # fmt: skip

    def offsets_for_times(self, wanted: Times) -> TimeReplies:
        """Answer that each partition's first record came at the time asked for."""
        return {
            topic: {partition: (0, at) for partition, at in partitions.items()}
            for topic, partitions in wanted.items()
        }

    def look_at_logs(self, wanted: Times) -> Mapping[str, Mapping[int, LogLook]]:
        """Answer that every record can be read."""
        return {
            topic: {partition: LogLook(at, at + 1, at + 1) for partition, at in partitions.items()}
            for topic, partitions in wanted.items()
        }

    def take_request_counts(self) -> Mapping[str, int]:
        """Return that no request was sent."""
        return {}


def fitting(samples: int) -> Poller:
    """Return a poller whose page has at least this many samples, and few more."""
    topics = 100
    for _ in range(3):
        poller = Poller(Cluster(topics), stale_after_s=3 * POLL_INTERVAL_S)
        poller.poll()
        count = _samples(poller)
        if samples <= count < samples * 1.02:
            break
        topics = -(-topics * samples * 101 // (count * 100))
    return poller


def _samples(poller: Poller) -> int:
    page = poller.page().plain
    return page.count(b"\n") - page.count(b"\n#") - 1


def serve_page(pipe: Pipe, samples: int) -> None:
    """Serve a page as `monitor serve` does, and send its port and sizes."""
    poller = fitting(samples)
    server = WebServer(create_app(poller), "127.0.0.1", 0)
    page = poller.page()
    port = server.bind()
    poller.start(POLL_INTERVAL_S)
    pipe.send((port, _samples(poller), page.length, len(page.gzipped)))
    server.serve_until_stopped()
    poller.stop()


def serve_bytes(pipe: Pipe, length: int) -> None:
    """Serve this many bytes from a bare socket, a thread for each connection, without any parsing."""
    body = os.urandom(1 << 10) * (length >> 10)
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send((listener.getsockname()[1], 0, len(body), len(body)))

    def answer_all(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(4_096):
                connection.sendall(answer)

    while True:
        threading.Thread(target=answer_all, args=(listener.accept()[0],), daemon=True).start()


@dataclass(frozen=True)
class Served:
    """A server in a process of its own, and what it serves."""

    pid: int
    port: int
    samples: int
    length: int
    gzipped: int


@contextmanager
def served(serve: Callable[[Pipe, int], None], size: int) -> Iterator[Served]:
    """Run a server in a fresh process; end it at the end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(serve, theirs, size), daemon=True)
    child.start()
    theirs.close()
    try:
        yield Served(child.pid or 0, *ours.recv())
    except EOFError:
        raise RuntimeError(f"{serve.__name__} ended with {child.exitcode}") from None
    finally:
        child.terminate()
        child.join()


def _in_child(serve: Callable[[Pipe, int], None], pipe: Pipe, size: int) -> None:
    # Ctrl-C reaches the whole terminal: the parent hears it and ends us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(pipe, size)


class Scraper(threading.Thread):
    """Scrapes over one connection, as often as told; latencies in seconds."""

    def __init__(
        self, port: int, encoding: str, first_at: float, interval_s: float, scrapes: int
    ) -> None:
        super().__init__(daemon=True)
        self._interval_s = interval_s
        self._port, self._request = port, HEAD.format(encoding=encoding).encode()
        self._first_at, self._scrapes = first_at, scrapes
        self._buffer = bytearray(BUFFER_BYTES)
        self.latencies: list[float] = []
        self.error: Exception | None = None

    def run(self) -> None:
        """Scrape; the first one opens the connection and isn't counted."""
        try:
            with socket.create_connection(("127.0.0.1", self._port)) as connection:
                for number in range(self._scrapes + 1):
                    at = self._first_at + number * self._interval_s
                    time.sleep(max(0.0, at - time.monotonic()))
                    began = time.perf_counter()
                    self._scrape(connection)
                    self.latencies.append(time.perf_counter() - began)
        except (OSError, ValueError) as error:
            self.error = error
        del self.latencies[:1]

    def _scrape(self, connection: socket.socket) -> None:
        connection.sendall(self._request)
        got = connection.recv_into(self._buffer)
        while (end := self._buffer.find(HEADERS_END, 0, got)) < 0:
            if not (more := connection.recv_into(memoryview(self._buffer)[got:])):
                raise ConnectionError("the server closed the connection")
            got += more
        head = self._buffer[:end].decode().lower()
        if " 200 " not in head.splitlines()[0]:
            raise ValueError(head.splitlines()[0])
        length = int(head.partition("content-length:")[2].split()[0])
        got -= end + len(HEADERS_END)
        while got < length:
            if not (more := connection.recv_into(self._buffer)):
                raise ConnectionError("the server closed the connection")
            got += more


def scrape(
    server: Served, encoding: str, scrapers: int, seconds: int, *, at_once: bool = False
) -> dict[str, Any]:
    """Scrape with several scrapers; returns latencies in seconds and the server's CPU per scrape."""
    process = psutil.Process(server.pid)
    start = time.monotonic() + 0.5
    interval = SCRAPE_INTERVAL_S[scrapers]
    offset = 0.0 if at_once else interval / scrapers
    threads = [
        Scraper(server.port, encoding, start + number * offset, interval, int(seconds / interval))
        for number in range(scrapers)
    ]
    before = sum(process.cpu_times()[:2])
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = sum(process.cpu_times()[:2]) - before
    for thread in threads:
        if thread.error is not None:
            raise RuntimeError(f"a scrape failed: {thread.error}")
    latencies = [latency for thread in threads for latency in thread.latencies]
    return {"latencies": latencies, "cpu": spent / (len(latencies) + scrapers)}


def measure(arguments: argparse.Namespace) -> None:
    seconds = 10 if arguments.quick else 45
    rows: list[list[object]] = []
    say("rendering the page")
    with served(serve_page, SAMPLES) as page:
        print(
            f"{page.samples:,} samples, {page.length / 1e6:.1f} MB, compressed {page.gzipped / 1e6:.2f} MB"
        )
        for name, encoding, length in (
            ("plain", "identity", page.length),
            ("gzip", "gzip", page.gzipped),
        ):
            with served(serve_bytes, length) as bare:
                for server, what in ((page, name), (bare, f"{name}, bare socket")):
                    for scrapers in (1, 10):
                        say(f"{what}: {scrapers} scrapers, {seconds} s")
                        rows.append(
                            _row(what, scrapers, scrape(server, encoding, scrapers, seconds))
                        )
                say(f"{name}: 10 scrapers at once, {seconds // 3} s")
                rows.append(
                    _row(
                        f"{name}, at once",
                        10,
                        scrape(page, encoding, 10, seconds // 3, at_once=True),
                    )
                )
    table(
        "A scrape, milliseconds (CPU: the server's, its polls included)",
        ["", "scrapers", "scrapes", "p50", "p90", "p99", "worst", "CPU ms"],
        rows,
    )


def _row(what: str, scrapers: int, found: Mapping[str, Any]) -> list[object]:
    latencies = [1_000 * latency for latency in found["latencies"]]
    return [
        what, scrapers, len(latencies), median(latencies), percentile(latencies, 90),
        percentile(latencies, 99), max(latencies), 1_000 * found["cpu"],
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(run("monitor_scrape", __doc__ or "", measure))
