"""What the monitor tells of itself: its polls, and the parts of its work that fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Final

from monitor.analysis.guard import Failure
from monitor.every import one_line
from monitor.exposition import metrics as m
from monitor.exposition.metrics import Metric
from monitor.exposition.series import Block, Samples, Values
from monitor.exposition.version import VERSION
from monitor.state import State

# As many parts are named; one fault in the program may hit every group of a large cluster.
MAX_NAMED: Final = 100


def samples(state: State, poll_interval_s: float | None) -> Samples:
    """Return what is told of the last poll, and of all that it saw: also of what is not shown."""
    cluster = (state.cluster,)
    found: defaultdict[Metric, Values] = defaultdict(dict)
    found[m.MONITOR_BUILD_INFO][VERSION,] = 1
    found[m.MONITOR_UP][cluster] = int(state.up)
    if state.error is not None:
        found[m.MONITOR_POLL_FAILED][state.cluster, one_line(state.error)] = 1
    if poll_interval_s is not None:
        found[m.MONITOR_POLL_INTERVAL][cluster] = poll_interval_s
    if state.succeeded_at is not None:
        found[m.MONITOR_LAST_POLL][cluster] = state.succeeded_at
    snapshot = state.snapshot
    if snapshot is None:
        return dict(found)
    found[m.MONITOR_POLL_DURATION][cluster] = round(state.duration_seconds, 6)
    for api, count in snapshot.requests.items():
        found[m.MONITOR_POLL_REQUESTS][state.cluster, api] = count
    silent = snapshot.end_offsets.silent.values()
    found[m.MONITOR_STALE_PARTITIONS][cluster] = sum(map(len, silent))
    groups = snapshot.groups.values()
    found[m.MONITOR_STALE_GROUPS][cluster] = sum(group.is_silent for group in groups)
    for broker, cause in snapshot.broker_errors.items():
        found[m.MONITOR_POLL_ERRORS][state.cluster, str(broker), one_line(cause)] = 1
    for error in snapshot.errors[:MAX_NAMED]:
        found[m.MONITOR_POLL_ERRORS][state.cluster, "", one_line(error)] = 1
    found[m.MONITOR_GROUP_ERRORS][cluster] = sum(group.error is not None for group in groups)
    return dict(found)


def faults(cluster: str, failed: Callable[[], Collection[Failure]]) -> Block:
    """Return the parts that failed up to the moment in which this is rendered."""
    return Block((), lambda: _faults(cluster, failed()), name="faults")


def _faults(cluster: str, failed: Collection[Failure]) -> Samples:
    found: Values = {(cluster, *part): 1 for part in sorted(failed)[:MAX_NAMED]}
    if len(failed) > MAX_NAMED:
        found[cluster, "others", ""] = 1
    return {m.MONITOR_INTERNAL_ERRORS: found}
