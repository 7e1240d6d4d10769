"""Which broker coordinates a group, worked out from the metadata: no request is spent on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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


def is_answered(
    group_id: str,
    coordinator: int | None,
    partitions: Mapping[int, Partition],
    answered: Collection[int],
) -> bool:
    """Say whether the broker that coordinates a group is among those that sent their lists.

    Where the metadata hides the partitions, `coordinator` counts: the one that last listed it.
    """
    if not partitions:
        return coordinator in answered
    held = partitions.get(partition_of(group_id, len(partitions)))
    return held is not None and held.leader in answered
