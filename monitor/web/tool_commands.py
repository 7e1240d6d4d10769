"""The exact commands of Kafka's own tool for a group: what is to be looked at, and what an action needs.

What changes offsets has --dry-run: whoever runs it reads what would be done first.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monitor.analysis.measures import GroupMeasures
from monitor.model import Group, Snapshot


@dataclass(frozen=True, slots=True)
class ToolCommand:
    """A command, and what it is for."""

    why: str
    command: str


def tool_commands(
    bootstrap_servers: Sequence[str], snapshot: Snapshot, group: Group, measures: GroupMeasures
) -> list[ToolCommand]:
    """Return the commands that help with a group; none where its name can't be typed in a shell."""
    if not group.id.isprintable() or not group.id:
        return []
    servers = ",".join(bootstrap_servers) or "BROKER:9092"
    return list(_commands(servers, snapshot, group, measures))


def _commands(
    servers: str, snapshot: Snapshot, group: Group, measures: GroupMeasures
) -> Iterator[ToolCommand]:
    start = f"kafka-consumer-groups.sh --bootstrap-server {shlex.quote(servers)}"
    name = f"--group {shlex.quote(group.id)}"
    yield ToolCommand("What the brokers say of it now", f"{start} --describe {name}")
    yield ToolCommand("Its members", f"{start} --describe {name} --members --verbose")
    for topic in sorted(group.topics):
        if not topic.isprintable():
            continue
        on_topic = f"--topic {shlex.quote(topic)}"
        if topic not in snapshot.topics or topic in measures.not_consumed:
            yield ToolCommand(
                f"Forget its offsets of {topic}, which nobody reads in it any more",
                f"{start} --delete-offsets {name} {on_topic}",
            )
        elif measures.lag.past_end.get(topic):
            yield ToolCommand(
                f"Its commits of {topic} are past the log end: see what a reset to the end "
                "would do (once its members are stopped; --execute in place of --dry-run does it)",
                f"{start} --reset-offsets {name} {on_topic} --to-latest --dry-run",
            )
