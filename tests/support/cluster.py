"""A cluster of two real brokers: the first is the controller too, the second can be lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from monitor.kafka.coordinators import GROUPS_TOPIC, partition_of
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK, free_port
from tests.support import foreign
from tests.support.waiting import wait_for

# the controller declares a broker dead after this long
SESSION_TIMEOUT_MS = 3_000


class SecondBroker(EmbeddedKafka):
    """A broker without a controller, in the cluster of another."""

    def __init__(
        self,
        data_dir: Path,
        first: EmbeddedKafka,
        heap_mb: int = 256,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self._first = first
        port = free_port()
        address = f"{LOOPBACK}:{port}"
        overrides = {
            "process.roles": "broker",
            "node.id": "2",
            "listeners": f"PLAINTEXT://{address}",
            "controller.quorum.bootstrap.servers": _property(first, "controller.quorum.bootstrap.servers"),
            "broker.session.timeout.ms": str(session_timeout_ms),
            **(more or {}),
        }  # fmt: skip
        super().__init__(data_dir, port, overrides=overrides, heap_mb=heap_mb)

    def _format(self, properties: Path, *more: str) -> None:
        stored = (self._first.data_dir / "log" / "meta.properties").read_text()
        cluster_id = stored.partition("cluster.id=")[2].partition("\n")[0]
        self.run_tool(
            "kafka.tools.StorageTool", "format",
            "--cluster-id", cluster_id, "--config", str(properties), *more,
        )  # fmt: skip


class Cluster:
    """Brokers 1 and 2; `bootstrap_servers` names only the first, which stays."""

    def __init__(self, data_dir: Path, session_timeout_ms: int = SESSION_TIMEOUT_MS) -> None:
        self.first = EmbeddedKafka(
            data_dir / "first",
            overrides={"broker.session.timeout.ms": str(session_timeout_ms)},
            heap_mb=256,
        )
        self.first.start()
        self.second = SecondBroker(
            data_dir / "second", self.first, session_timeout_ms=session_timeout_ms
        )
        self.second.start()
        self.bootstrap_servers = self.first.bootstrap_servers
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        wait_for("second broker", lambda: len(self.admin.list_topics(timeout=5).brokers) == 2)

    def create_topic(self, name: str) -> None:
        """Create a topic whose partition 0 is on broker 1 only, and 1 on broker 2 only."""
        topic = NewTopic(name, 2, replica_assignment=[[1], [2]])
        self.admin.create_topics([topic])[name].result()
        wait_for("leaders", lambda: self.leaders(name) == {0: 1, 1: 2})

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the leader of each partition, -1 for none."""
        found = self.admin.list_topics(topic, timeout=5).topics[topic].partitions
        return {index: partition.leader for index, partition in found.items()}

    def group_of_first(self, name: str) -> str:
        """Return a group id that begins with `name` and that the first broker coordinates."""
        # the topic of the groups is made with the first of them
        foreign.commit(self.admin, f"{name}-first", name, 0)
        leaders = self.leaders(GROUPS_TOPIC)
        ids = (f"{name}-{number}" for number in range(100))
        return next(one for one in ids if leaders[partition_of(one, len(leaders))] == 1)

    def logs(self, topic: str) -> list[Path]:
        """Return the folders of a topic's partitions, which a broker that gives one up renames."""
        return [
            folder
            for broker in (self.first, self.second)
            for folder in (broker.data_dir / "log").glob(f"{topic}-*")
            if not folder.name.endswith("-delete")
        ]

    def revive_second(self) -> None:
        """Start the second broker again and wait until it leads again."""
        self.second.start()
        wait_for("second broker", lambda: len(self.admin.list_topics(timeout=5).brokers) == 2)

    def wake_second(self) -> None:
        """Let the second broker go on if it was frozen."""
        process = self.second.process
        if process is not None and process.running:
            process.resume()

    def stop(self) -> None:
        """Stop both, the one without the controller first."""
        self.second.stop()
        self.first.stop()


def _property(broker: EmbeddedKafka, name: str) -> str:
    lines = (broker.data_dir / "server.properties").read_text().splitlines()
    (value,) = (line.partition("=")[2] for line in lines if line.startswith(f"{name}="))
    return value


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Fail when the block takes longer: a bound against hanging, not a speed."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < seconds, f"took {took:.1f} s, may take {seconds:.1f} s"
