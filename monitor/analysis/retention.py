"""Retention risk: what was deleted unread, and what will be.

Kafka deletes whole segments, the active one never, so a record is deleted *at or after* the times
given here: they are the time that is surely left. It goes by the timestamps that records carry, which
may be days older than their append (mirrored and replayed data).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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

    `unread_share` of the retained log is unread (0..1); the oldest unread message is safe for
    `remaining_seconds` more, None when it is kept for ever, nothing is unread, or it can't be known.
    """

    unread_share: float
    remaining_seconds: float | None


NO_RISK = RetentionRisk(0.0, None)


def retention_risk(
    committed: int,
    log_start: int,
    log_end: int,
    *,
    record_age: float | None,
    retention: Retention,
    log_bytes: int | None = None,
    produced_per_second: float | None = None,
) -> RetentionRisk:
    """Return the retention risk at a committed offset.

    `record_age` is the time in seconds since the oldest unread message's own timestamp, or since
    its append if that is longer. Retention by size counts only when `log_bytes` (of this partition)
    and `produced_per_second` (messages) are known, and takes the retained messages to be of equal
    size.
    """
    retained = log_end - log_start
    if committed >= log_end or retained <= 0:
        return NO_RISK
    share = (log_end - max(committed, log_start)) / retained
    if not retention.deletes:
        return RetentionRisk(share, None)
    limits = []
    if retention.milliseconds is not None and record_age is not None:
        limits.append(max(0.0, retention.milliseconds / 1000 - record_age))
    if retention.bytes_per_partition is not None and log_bytes and produced_per_second:
        room = retention.bytes_per_partition - log_bytes * share
        bytes_per_second = produced_per_second * log_bytes / retained
        limits.append(max(0.0, room / bytes_per_second))
    return RetentionRisk(share, min(limits, default=None))
