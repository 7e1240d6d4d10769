"""How the history of polls is written."""

from __future__ import annotations

from typing import Final

from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric
from monitor.exposition.series import Block

_WHEN: Final = "past polls are to be kept (MONITOR_HISTORY_URL)"
UP: Final = Metric(
    "kafka_monitor_history_up",
    "gauge",
    "1 if the last poll could be written to the history, 0 if not, or there is no place for one: charts "
    "then have a gap, and a restart begins anew.",
    when=_WHEN,
)
LAST_WRITE: Final = Metric(
    "kafka_monitor_history_last_write_timestamp_seconds",
    "gauge",
    "When a poll was last written to the history, as a Unix time.",
    unit="seconds",
    when="a poll was written to the history",
)
NOT_WRITTEN: Final = Metric(
    "kafka_monitor_history_polls_not_written_total",
    "counter",
    "Polls that are not in the history, as the database did not take them.",
    when=_WHEN,
)
NOT_TAKEN: Final = Metric(
    "kafka_monitor_history_names_not_taken",
    "gauge",
    "Groups and topics that are not in the history, as the database takes no such name: too long, with a "
    "NUL, or in characters that its encoding lacks. The log names them.",
    when=_WHEN,
)
RESTORED: Final = Metric(
    "kafka_monitor_history_restored",
    "gauge",
    "1 if the monitor went on where the one before it stood when it was stopped, 0 if it began anew: "
    "nothing was kept, or it is too old, of another version or not to be read.",
    ("cluster",),
    when=_WHEN,
)
FAMILY: Final = Family(
    "history",
    "About the history of polls; on where it is kept.",
    (UP, LAST_WRITE, NOT_WRITTEN, NOT_TAKEN, RESTORED),
    is_always_on=True,
)


def not_kept() -> Block:
    """Return what is told where there is no place for a history."""
    return Block((), lambda: {UP: {(): 0}}, name="history")
