from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from order_services.local.ports import free_port
from order_services.local.process import ManagedProcess
from order_services.web.bus import EventBus, RedisBus, make_bus
from tests.integration.order_services.conftest import Lab
from tests.integration.order_services.test_analytics_service import running, story
from tests.support.programs import program
from tests.support.waiting import wait_for


class Redis:
    """A real server that tests may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._command = [
            *(program("redis-server", "redis-server"), "--port", str(self.port)),
            *("--bind", "127.0.0.1", "--save", "", "--dir", str(folder)),
        ]
        self._log = folder / "redis.log"
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = ManagedProcess(name="redis", command=self._command, log_file=self._log)
        self._process.start()
        wait_for("redis", self._answers, timeout_s=20)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(timeout_s=10)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(b"PING\r\n")
                return client.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    server.start()
    yield server
    server.stop()


@contextmanager
def replica(url: str, channel: str) -> Iterator[tuple[RedisBus, list[str]]]:
    bus = RedisBus(url, channel)
    heard: list[str] = []
    bus.subscribe(heard.extend)
    try:
        yield bus, heard
    finally:
        bus.close()


def test_every_replica_hears_each_message_once_and_in_order(
    redis: Redis, unique: Callable[[str], str]
) -> None:
    channel = unique("channel")
    with replica(redis.url, channel) as (one, by_one), replica(redis.url, channel) as (two, by_two):
        assert one.wait_until_connected(20)
        assert two.wait_until_connected(20)
        sent = [str(n) for n in range(50)]
        for n in range(0, 50, 5):
            one.publish(sent[n : n + 5])
        wait_for("the other replica", lambda: len(by_two) >= 50)
        two.publish(["back"])
        wait_for("the answer", lambda: "back" in by_one)
        assert by_one == by_two == [*sent, "back"]


def test_without_redis_a_replica_serves_its_own_clients_and_comes_back(
    redis: Redis, unique: Callable[[str], str]
) -> None:
    channel = unique("channel")
    with replica(redis.url, channel) as (one, by_one), replica(redis.url, channel) as (two, by_two):
        assert two.wait_until_connected(20)
        redis.stop()
        one.publish(["alone"])
        assert by_one == ["alone"]
        redis.start()

        def heard_again() -> bool:
            one.publish(["again"])
            return "again" in by_two

        wait_for("the other replica", heard_again)


def test_what_others_write_into_the_channel_is_passed_over(
    redis: Redis, unique: Callable[[str], str]
) -> None:
    channel = unique("channel")
    with replica(redis.url, channel) as (bus, heard):
        assert bus.wait_until_connected(20)
        for data in (b"no json", b"[]", b'{"origin": 1, "messages": 2}', b"{}"):
            bus._sender.publish(channel, data)
        with replica(redis.url, channel) as (other, _):
            other.publish(["good"])
            wait_for("the good one", lambda: heard == ["good"])


@pytest.fixture
def closed_buses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a service leaves to the end of its process."""
    made: list[EventBus] = []

    def make(url: str) -> EventBus:
        made.append(make_bus(url))
        return made[-1]

    monkeypatch.setattr("order_services.analytics.service.make_bus", make)
    yield
    for bus in made:
        bus.close()


def test_a_client_of_either_replica_sees_all_events(
    lab: Lab, redis: Redis, closed_buses: None
) -> None:
    group = lab.group()
    events = story(40)
    with (
        running(lab, group, redis_url=redis.url) as first,
        running(lab, group, kafka_client_id="second", redis_url=redis.url) as second,
        connect(f"ws://{first}/ws") as at_first,
        connect(f"ws://{second}/ws") as at_second,
    ):
        lab.send(group.topics[0], [*events, *events])
        for client in (at_first, at_second):
            seen: list[str] = []
            while len(seen) < len(events):
                frame = json.loads(client.recv(timeout=30))
                if frame["type"] == "EVENT":
                    seen.append(frame["event"]["eventId"])
            assert sorted(seen) == sorted(event.event_id for event in events)
