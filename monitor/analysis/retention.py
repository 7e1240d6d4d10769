"""Retention risk: what was deleted unread, and what will be.

Kafka deletes whole segments, the active one never, so a record is deleted *at or after* the times
given here: they are the time that is surely left. It goes by the timestamps that records carry, which
may be days older than their append (mirrored and replayed data).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from monitor.model import nothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.analysis.lag import GroupLag
    from monitor.model import Group, PartitionOffsets, Snapshot


@dataclass(frozen=True, slots=True)
class Retention:
    """A topic's retention settings; None for what is unlimited (-1) or not known.

    `deletes` is whether cleanup.policy has delete: a topic that is only compacted loses no key's
    last record, whatever its retention.ms says.
    """

    milliseconds: int | None = None
    bytes_per_partition: int | None = None
    deletes: bool = True


class RetentionRisk(NamedTuple):
    """The risk of one group on one partition.

    `unread_share` of the retained log is unread (0..1); the oldest unread message is surely kept
    until `deleted_at` (monotonic seconds), None when it is kept for ever, nothing is unread, or it
    can't be known.
    """

    unread_share: float
    deleted_at: float | None


NO_RISK = RetentionRisk(0.0, None)


def retention_risk(
    committed: int,
    log_start: int,
    log_end: int,
    *,
    now: float,
    expires_at: float | None,
    retention: Retention,
    log_bytes: int | None = None,
    produced_per_second: float | None = None,
) -> RetentionRisk:
    """Return the retention risk at a committed offset, at `now`.

    `expires_at` is when the oldest unread message is older than retention.ms, by its own timestamp,
    or by its append if that was earlier. Retention by size counts only when `log_bytes` (of this
    partition) and `produced_per_second` (messages) are known, and takes the retained messages to be
    of equal size.
    """
    retained = log_end - log_start
    if committed >= log_end or retained <= 0:
        return NO_RISK
    share = (log_end - max(committed, log_start)) / retained
    if not retention.deletes:
        return RetentionRisk(share, None)
    limits = []
    if expires_at is not None:
        limits.append(expires_at)
    if retention.bytes_per_partition is not None and log_bytes and produced_per_second:
        room = retention.bytes_per_partition - log_bytes * share
        bytes_per_second = produced_per_second * log_bytes / retained
        limits.append(now + max(0.0, room / bytes_per_second))
    return RetentionRisk(share, min(limits, default=None))


def retention_risks(
    snapshot: Snapshot,
    group: Group,
    lag: GroupLag,
    *,
    now: float,
    expires_at: Mapping[str, Mapping[int, float]],
    log_bytes: PartitionOffsets,
    produced: Mapping[str, Mapping[int, float]],
) -> dict[str, dict[int, RetentionRisk]]:
    """Return the risk on each partition with lag whose log start and end are known.

    `expires_at` as in `retention_risk`, by topic and partition; `produced` is messages per second.
    """
    risks_of: dict[str, dict[int, RetentionRisk]] = {}
    for topic, unread in lag.topics.items():
        starts = snapshot.start_offsets.values.get(topic)
        commits = group.commits.get(topic)
        ends = snapshot.end_offsets.values.get(topic)
        if not unread or not (starts and commits and ends):
            continue
        retention = retention_of(snapshot, topic)
        sizes = log_bytes.get(topic, nothing())
        rates = produced.get(topic, nothing())
        expiries = expires_at.get(topic, nothing())
        risks = {
            partition: retention_risk(
                commits[partition],
                starts[partition],
                ends[partition],
                now=now,
                expires_at=expiries.get(partition),
                retention=retention,
                log_bytes=sizes.get(partition),
                produced_per_second=rates.get(partition),
            )
            for partition, messages in lag.partitions[topic].items()
            if messages
            and partition in commits
            and partition in ends
            and starts.get(partition, ends[partition] + 1) <= ends[partition]
        }
        if risks:
            risks_of[topic] = risks
    return risks_of


def retention_of(snapshot: Snapshot, topic: str) -> Retention:
    """Return how long records of a topic are kept, as far as that is known."""
    config = snapshot.topic_configs.get(topic)
    if config is None:
        return Retention()
    return Retention(
        _limit(config.retention_ms),
        _limit(config.retention_bytes),
        deletes="delete" in (config.cleanup_policies or ("delete",)),
    )


def _limit(value: int | None) -> int | None:
    return None if value is None or value < 0 else value
