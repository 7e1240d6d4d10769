"""The exact commands of Kafka's own tool for a group: what is to be looked at, and what an action needs.

What changes offsets has --dry-run: whoever runs it reads what would be done first.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monitor.answers.models import GroupDetail


@dataclass(frozen=True, slots=True)
class ToolCommand:
    """A command, and what it is for."""

    why: str
    command: str


def tool_commands(bootstrap_servers: Sequence[str], group: GroupDetail) -> list[ToolCommand]:
    """Return the commands that help with a group; none where its name can't be typed in a shell."""
    if not group.group.isprintable() or not group.group:
        return []
    return list(_commands(",".join(bootstrap_servers) or "BROKER:9092", group))


def _commands(servers: str, group: GroupDetail) -> Iterator[ToolCommand]:
    start = f"kafka-consumer-groups.sh --bootstrap-server {shlex.quote(servers)}"
    name = f"--group {shlex.quote(group.group)}"
    yield ToolCommand("What the brokers say of it now", f"{start} --describe {name}")
    yield ToolCommand("Its members", f"{start} --describe {name} --members --verbose")
    gone = {row.topic for row in group.partitions if row.topic_is_gone}
    past_end = {row.topic for row in group.partitions if row.past_end}
    for topic in group.topics:
        if not topic.topic.isprintable():
            continue
        on_topic = f"--topic {shlex.quote(topic.topic)}"
        if topic.topic in gone or not topic.is_consumed:
            yield ToolCommand(
                f"Forget its offsets of {topic.topic}, which nobody reads in it any more",
                f"{start} --delete-offsets {name} {on_topic}",
            )
        elif topic.topic in past_end:
            yield ToolCommand(
                f"Its commits of {topic.topic} are past the log end: see what a reset to the end "
                "would do (once its members are stopped; --execute in place of --dry-run does it)",
                f"{start} --reset-offsets {name} {on_topic} --to-latest --dry-run",
            )
