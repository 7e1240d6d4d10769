"""Which broker coordinates a group, worked out from the metadata: no request is spent on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from monitor.model import Partition

# Its partitions hold the groups; a partition's leader coordinates the groups of that partition.
GROUPS_TOPIC: Final = "__consumer_offsets"


def partition_of(group_id: str, partitions: int) -> int:
    """Return a group's partition: Java's `Utils.abs(groupId.hashCode()) % partitions`."""
    digest = 0
    units = group_id.encode("utf-16-be", "surrogatepass")
    for high, low in zip(units[::2], units[1::2], strict=True):
        digest = (31 * digest + (high << 8 | low)) & 0xFFFF_FFFF
    signed = digest - (1 << 32) if digest >= 1 << 31 else digest
    return (0 if signed == -(1 << 31) else abs(signed)) % partitions


def leader_of(group_id: str, partitions: Mapping[int, Partition]) -> int | None:
    """Return the broker that coordinates a group, None where the partitions do not tell."""
    held = partitions.get(partition_of(group_id, len(partitions))) if partitions else None
    return None if held is None else held.leader
