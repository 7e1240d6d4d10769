"""What the monitor's benchmarks share: a broker, groups without clients, a monitor to be told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.consumer import (
    HeartbeatRequest,
    JoinGroupRequest,
    OffsetCommitRequest,
    SyncGroupRequest,
)
from kafka.protocol.consumer.metadata import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from kafka.protocol.metadata import FindCoordinatorRequest

from benchmarks.monitor_child import FIRST_LINE
from benchmarks.support import say
from order_services.local.kafka import EmbeddedKafka

REQUEST_TIMEOUT_MS: Final = 120_000
SESSION_TIMEOUT_MS: Final = 60_000
HEARTBEAT_INTERVAL_S: Final = 10.0
TOPICS_PER_REQUEST: Final = 100
COMMITS_PER_ROUND: Final = 500
LAST_WITH_TOPIC_NAMES: Final = 9  # of OffsetCommit
TOPICS_TIMEOUT_S: Final = 300.0
READY_TIMEOUT_S: Final = 30.0
NOT_READY: Final = {14, 15, 16}  # coordinator loading, not available, not this broker
LAST_IN_ONE_STEP: Final = 3  # of JoinGroup: later ones answer a new member with its id first

Commits = Mapping[str, Mapping[int, int]]
"""Topic -> partition -> offset."""


@contextmanager
def broker(
    *, heap_mb: int = 512, settings: Mapping[str, str] | None = None
) -> Iterator[EmbeddedKafka]:
    """Start a broker in a temporary directory; stop and remove it at the end."""
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    kafka = EmbeddedKafka(directory / "kafka", overrides=settings, heap_mb=heap_mb)
    try:
        say("starting Kafka")
        kafka.start()
        yield kafka
    finally:
        kafka.stop()
        shutil.rmtree(directory, ignore_errors=True)


def create_topics(
    bootstrap_servers: str,
    names: Sequence[str],
    partitions: int,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Create topics, many per request; raises RuntimeError where the broker refuses."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for start in range(0, len(names), TOPICS_PER_REQUEST):
        part = [
            NewTopic(name, partitions, 1, config=dict(settings or {}))
            for name in names[start : start + TOPICS_PER_REQUEST]
        ]
        for future in admin.create_topics(part, request_timeout=60).values():
            try:
                future.result()
            except KafkaException as error:
                raise RuntimeError(f"no topic: {error}") from error
    # the controller has them before the broker does: it makes a folder for each partition first
    deadline = time.monotonic() + TOPICS_TIMEOUT_S
    while not set(names) <= admin.list_topics(timeout=60).topics.keys():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the broker has not all topics after {TOPICS_TIMEOUT_S:.0f} s")
        time.sleep(1.0)


def produce(bootstrap_servers: str, topics: Iterable[str], partitions: int, records: int) -> None:
    """Write this many small records to each partition."""
    refused: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(str(error))

    producer = Producer(
        {
            "on_delivery": delivered,
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 50,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for topic in topics:
        for partition in range(partitions):
            for _ in range(records):
                producer.produce(topic, b"a record", partition=partition)
        producer.poll(0)
    if producer.flush(60) or refused:
        raise RuntimeError(f"Kafka did not take the records: {refused[:1] or 'timed out'}")


@dataclass(frozen=True)
class Membership:
    """A member of a group that holds all partitions of one topic."""

    group: str
    member_id: str
    generation: int


class Coordinator:
    """Speaks the group protocol on one connection: commits and members that cost no client."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._net = NetworkSelector(client_id="benchmark", slow_task_threshold_secs=0)
        self._manager = KafkaConnectionManager(
            self._net, client_id="benchmark", bootstrap_servers=[bootstrap_servers],
            max_in_flight_requests_per_connection=1_000_000,
        )  # fmt: skip
        self._net.start()
        self._node = self._manager.cluster.bootstrap_brokers()[0].node_id
        self._wait_until_ready()

    def close(self) -> None:
        """Close the connection."""
        self._manager.run(self._manager.close)
        self._net.stop(timeout_ms=1_000)
        self._net.close()

    def commit(
        self, commits: Mapping[str, Commits], members: Mapping[str, Membership] | None = None
    ) -> None:
        """Commit offsets, by group; raises RuntimeError when the broker refuses one."""
        topic_of = OffsetCommitRequest.OffsetCommitRequestTopic
        partition_of = topic_of.OffsetCommitRequestPartition
        requests = []
        for group, topics in commits.items():
            member = (members or {}).get(group)
            requests.append(
                OffsetCommitRequest(
                    group_id=group,
                    generation_id_or_member_epoch=member.generation if member else -1,
                    member_id=member.member_id if member else "",
                    group_instance_id=None,
                    retention_time_ms=-1,
                    topics=[
                        topic_of(
                            name=topic,
                            partitions=[
                                partition_of(
                                    partition_index=partition,
                                    committed_offset=offset,
                                    committed_leader_epoch=-1,
                                    committed_metadata="",
                                )
                                for partition, offset in offsets.items()
                            ],
                        )
                        for topic, offsets in topics.items()
                    ],
                    max_version=LAST_WITH_TOPIC_NAMES,
                )
            )
        for start in range(0, len(requests), COMMITS_PER_ROUND):
            for reply in self._send(requests[start : start + COMMITS_PER_ROUND]):
                _refuse(p.error_code for topic in reply.topics for p in topic.partitions)

    def join(self, topics: Mapping[str, str], partitions: int) -> dict[str, Membership]:
        """Join each group with one member that is assigned all partitions of the group's topic."""
        protocol = JoinGroupRequest.JoinGroupRequestProtocol
        joined = self._send(
            [
                JoinGroupRequest(
                    group_id=group,
                    session_timeout_ms=SESSION_TIMEOUT_MS,
                    rebalance_timeout_ms=SESSION_TIMEOUT_MS,
                    member_id="",
                    protocol_type="consumer",
                    protocols=[protocol(name="range", metadata=_subscription(topic))],
                    max_version=LAST_IN_ONE_STEP,
                )
                for group, topic in topics.items()
            ]
        )
        _refuse(reply.error_code for reply in joined)
        members = {
            group: Membership(group, reply.member_id, reply.generation_id)
            for group, reply in zip(topics, joined, strict=True)
        }
        assigned = SyncGroupRequest.SyncGroupRequestAssignment
        synced = self._send(
            [
                SyncGroupRequest(
                    group_id=member.group,
                    generation_id=member.generation,
                    member_id=member.member_id,
                    assignments=[
                        assigned(
                            member_id=member.member_id,
                            assignment=_assignment(topics[member.group], partitions),
                        )
                    ],
                    max_version=LAST_IN_ONE_STEP,
                )
                for member in members.values()
            ]
        )
        _refuse(reply.error_code for reply in synced)
        return members

    def beat(self, members: Iterable[Membership]) -> None:
        """Send a heartbeat of each member."""
        _refuse(reply.error_code for reply in self._heartbeats(members))

    def _wait_until_ready(self) -> None:
        """Have the offsets topic created, and wait until all of its partitions are loaded."""
        groups = [f"nobody-{number}" for number in range(100)]
        nobody = [Membership(group, "nobody", 1) for group in groups]
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            self._send([FindCoordinatorRequest(key_type=0, coordinator_keys=groups)])
            if not NOT_READY & {reply.error_code for reply in self._heartbeats(nobody)}:
                return
            time.sleep(0.1)
        raise RuntimeError("the group coordinator is not ready")

    def _heartbeats(self, members: Iterable[Membership]) -> list[Any]:
        return self._send(
            [
                HeartbeatRequest(
                    group_id=m.group,
                    generation_id=m.generation,
                    member_id=m.member_id,
                    max_version=3,
                )
                for m in members
            ]
        )

    def _send(self, requests: Sequence[Any]) -> list[Any]:
        replies: list[Any] = self._manager.run(self._exchange, requests)
        return replies

    async def _exchange(self, requests: Sequence[Any]) -> list[Any]:
        connection = self._manager.get_connection(self._node, refresh_metadata_on_err=False)
        await connection
        sent = [connection.send_request(r, request_timeout_ms=REQUEST_TIMEOUT_MS) for r in requests]
        return [await future for future in sent]


@contextmanager
def beating(bootstrap_servers: str, members: Iterable[Membership]) -> Iterator[None]:
    """Keep members alive in the background, on a connection of their own."""
    alive = list(members)
    stop = threading.Event()

    def beat() -> None:
        coordinator = Coordinator(bootstrap_servers)
        try:
            while not stop.wait(HEARTBEAT_INTERVAL_S):
                coordinator.beat(alive)
        finally:
            coordinator.close()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _refuse(codes: Iterable[int]) -> None:
    refused = sorted({code for code in codes if code})
    if refused:
        raise RuntimeError(f"the group coordinator answers with error {refused}")


def _subscription(topic: str) -> bytes:
    return bytes(ConsumerProtocolSubscription(topics=[topic], user_data=b"").encode(version=0))


def _assignment(topic: str, partitions: int) -> bytes:
    part = ConsumerProtocolAssignment.TopicPartition
    held = [part(topic=topic, partitions=list(range(partitions)))]
    return bytes(
        ConsumerProtocolAssignment(assigned_partitions=held, user_data=b"").encode(version=0)
    )


class Monitor:
    """`monitor serve` in a process of its own, told when to poll.

    `code` is another working tree whose monitor it is, with an environment of its own in `.venv`.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        settings: Mapping[str, str] | None = None,
        *,
        code: Path | None = None,
    ) -> None:
        python = sys.executable if code is None else str(code / ".venv" / "bin" / "python")
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.monitor_child", "serve", "--port", "0",
             "--bootstrap-servers", bootstrap_servers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=code,
            env=os.environ | dict(settings or {}),
            start_new_session=True,  # Ctrl-C is for the benchmark, which stops it in good order
        )  # fmt: skip
        if not self._read().startswith(FIRST_LINE):
            raise RuntimeError("the monitor did not start")

    def poll(self, *, lags: bool = False) -> dict[str, Any]:
        """Have it poll; returns what it measured, with `lags` each partition's, too."""
        self.ask(lags=lags)
        return self.answer()

    def ask(self, *, lags: bool = False) -> None:
        """Tell it to poll, without waiting for the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"lags": lags}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the end of the poll that was asked for."""
        figures: dict[str, Any] = json.loads(self._read())
        if figures["error"]:
            raise RuntimeError(f"the monitor's poll failed: {figures['error']}")
        return figures

    def stop(self) -> None:
        """End it as Ctrl-C would."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the monitor ended with {self._process.wait()}")
        return line
