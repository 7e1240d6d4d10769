"""Writes `docs/metrics.md` from the declarations: `python -m monitor.exposition.docs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from monitor.exposition.catalogue import DEFAULT_FAMILIES, FAMILIES
from monitor.exposition.families import exporter, measures, monitor
from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric
from monitor.pools.metrics import FAMILY as DATABASE

_INTRODUCTION: Final = f"""\
# Metrics of the monitor

Made from the declarations in `monitor/exposition/families/` and `monitor/pools/metrics.py` by
`python -m monitor.exposition.docs`; a test holds this file, the declarations and `/metrics` to each
other.

What is not known is absent: there is no -1, no NaN and no infinity in place of it. A group or
partition whose broker does not answer keeps its last figures, with their age beside them, until
they are older than `MONITOR_STALE_AFTER` (three polls); then they are absent too.

- **Families** are switched on by name: `MONITOR_FAMILIES={",".join(DEFAULT_FAMILIES)}` is the
  default. `{monitor.FAMILY.name}` and `process` are always on, `{DATABASE.name}` when `MONITOR_DATABASE_URL`,
  `MONITOR_PGBOUNCER_URL` or `MONITOR_SERVICE_URLS` is set.
- **Levels**: `MONITOR_LEVEL=partition` (the default), `topic` or `group` says how far down the
  metrics of consumer groups go in the families `{exporter.FAMILY.name}` and `{measures.FAMILY.name}`. Where a level has
  fewer labels than are listed here, samples are joined as *rolled up by* says, under the same
  name; `-` there means that the metric is left out. `sum by (consumergroup)` of a lag is the same
  at every level. Our own family `{measures.FAMILY.name}` goes down to topics only, unless
  `MONITOR_MEASURES_LEVEL=partition` asks for more: each of its metrics by partition is as many series
  as `kafka_consumergroup_lag` has. Which partitions a figure comes from is told by
  `kafka_consumergroup_lag` and `kafka_consumergroup_partition_status`, which have them at that level.
- **Groups that nobody was seen to read with** since the monitor's start have no rates, balance,
  share unread or commit age, no state while they are Empty and no status while it is OK: most groups of a
  large cluster are retired ones. All else is told as of others.
- **Filters**: `MONITOR_GROUPS_ALLOW`, `MONITOR_GROUPS_DENY`, `MONITOR_TOPICS_ALLOW` and
  `MONITOR_TOPICS_DENY` are regular expressions that must match the whole name; deny goes before
  allow. `MONITOR_MEMBER_METRICS=false` leaves out the metrics of single members.
- **Cluster**: with `MONITOR_CLUSTER` set every series has that name as its label `cluster`. Without
  it only those that list the label have it, with the cluster's id.
- **Status** is Burrow's, by its rules and defaults, from ten polls: until a partition was watched
  for ten polls (150 s at the default interval) it is OK, and
  `kafka_consumergroup_status_complete_ratio` is below 1. Silence is STOP only beyond what is usual
  for the group: `kafka_consumergroup_commit_patience_seconds`.
- **Rates** are over the last ten polls; the lag in seconds is right from the first.
- Counters start at 0 with the monitor. What was deleted unread before the first poll is in the gauge
  `kafka_consumergroup_unread_deleted_messages` only.
- **Readable**: seconds, status, rates and advice go by what a consumer can read and has not.
  Transaction markers, records of aborted transactions, deleted records and what an open transaction
  holds back are none of it, but are in `kafka_consumergroup_lag`, as in Apache's tool. Where a commit
  stands still the monitor looks into the log (a Fetch, which needs READ on the topic, of batch
  headers only); where it may not, all up to the log end counts as readable.
"""


def document() -> str:
    """Return the whole document."""
    return "\n".join([_INTRODUCTION, *(line for family in FAMILIES for line in _family(family))])


def _family(family: Family) -> Iterator[str]:
    yield f"## {family.name}\n\n{family.about}\n"
    yield "| metric | type | unit | labels | rolled up by | meaning |"
    yield "|---|---|---|---|---|---|"
    for metric in family.metrics:
        yield _row(metric)
    yield ""


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    can_be_joined = "partition" in metric.labels or "topic" in metric.labels
    is_of_group = "consumergroup" in metric.labels and can_be_joined
    rollup = (metric.rollup or "-") if is_of_group else ""
    meaning = f"{metric.help} *Only while {metric.when}.*" if metric.when else metric.help
    cells = (f"`{metric.name}`", metric.kind, metric.unit, labels, rollup, meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    sys.stdout.write(document())
