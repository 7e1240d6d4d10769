"""The exact commands of Apache Kafka that help; what changes anything comes with `--dry-run` first."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from monitor.analysis.causes.finding import Step
from monitor.words import safe

if TYPE_CHECKING:
    from monitor.analysis.causes.symptoms import Symptoms
    from monitor.model import Snapshot


def describe(s: Symptoms, *options: str) -> str:
    """Return the command that shows a group."""
    return _line(s.snapshot, "kafka-consumer-groups.sh", "--group", s.group, "--describe", *options)


def pass_over(s: Symptoms, partition: int) -> Step:
    """Return the step that passes over one message, which only a person may decide on."""
    return Step(
        "Only if the message may be lost to this group: stop the group, see what this would do, then "
        "run it with --execute in place of --dry-run.",
        _line(
            s.snapshot, "kafka-consumer-groups.sh", "--group", s.group,
            "--topic", f"{s.topic}:{partition}", "--reset-offsets", "--shift-by", "1", "--dry-run",
        ),
    )  # fmt: skip


def to_earliest(s: Symptoms) -> Step:
    """Return the step that puts a group at the start of what is left."""
    return Step(
        "Where auto.offset.reset is none: stop the group, see what this would do, then run it with "
        "--execute in place of --dry-run.",
        _line(
            s.snapshot, "kafka-consumer-groups.sh", "--group", s.group,
            "--topic", s.topic, "--reset-offsets", "--to-earliest", "--dry-run",
        ),
    )  # fmt: skip


def delete_offsets(s: Symptoms) -> Step:
    """Return the step that drops the commits on a topic that is read no more."""
    return Step(
        "If the group is not to read it any more, delete its offsets there: that cannot be undone.",
        _line(
            s.snapshot, "kafka-consumer-groups.sh", "--group", s.group,
            "--topic", s.topic, "--delete-offsets",
        ),
    )  # fmt: skip


def show_message(s: Symptoms, partition: int) -> str:
    """Return the command that shows the message on which a partition stands."""
    offset = s.measures.group.commits.get(s.topic, {}).get(partition, 0)
    return _line(
        s.snapshot, "kafka-console-consumer.sh", "--topic", s.topic, "--partition", str(partition),
        "--offset", str(offset), "--max-messages", "1",
    )  # fmt: skip


def describe_topic(s: Symptoms) -> str:
    """Return the command that shows a topic's leaders and replicas."""
    return _line(s.snapshot, "kafka-topics.sh", "--describe", "--topic", s.topic)


def add_partitions(s: Symptoms, partitions: int) -> str:
    """Return the command that gives a topic more partitions."""
    return _line(
        s.snapshot,
        "kafka-topics.sh",
        "--alter",
        "--topic",
        s.topic,
        "--partitions",
        str(partitions),
    )


def find_transactions(s: Symptoms) -> str:
    """Return the command that finds who left a transaction open."""
    return _line(s.snapshot, "kafka-transactions.sh", "find-hanging", "--topic", s.topic)


def _line(snapshot: Snapshot, program: str, *arguments: str) -> str:
    address = next((broker.address for broker in snapshot.brokers.values()), "HOST:9092")
    # a hostile name neither ends the argument nor writes to the terminal
    told = (safe(argument) for argument in ("--bootstrap-server", address, *arguments))
    return " ".join((program, *map(shlex.quote, told)))
