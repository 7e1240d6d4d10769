"""Writes what polls found, beside them: a full, slow or absent database costs the history, no poll."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Final

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import SQLAlchemyError

from monitor.analysis.kept import Kept
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.status import Status
from monitor.exposition.families.history import (
    LAST_WRITE,
    NOT_TAKEN,
    NOT_WRITTEN,
    RESTORED,
    UP,
)
from monitor.exposition.metric import Metric
from monitor.exposition.series import Block, Samples
from monitor.history.kept_rows import kept_of, rows_of
from monitor.history.store import Store, why_failed
from monitor.history.summary import Summary, with_gaps
from monitor.model import Snapshot
from monitor.state import State

_log = structlog.get_logger(__name__)

# Polls that wait for the database: of one that hangs, memory is not to tell.
MAX_WAITING: Final = 16
STOP_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 5.0
TAKE_UP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Write:
    """What a poll found that is new, or all if it `is_anew`: of what was before none holds on."""

    cluster: str
    at: float
    summaries: Sequence[Summary]
    is_anew: bool


@dataclass(frozen=True, slots=True)
class _Condense:
    """The rows that are old enough are to be joined."""


@dataclass(frozen=True, slots=True)
class _Keep:
    """What is new of the memory of a cluster's monitor is to be written."""

    cluster: str


_Task = _Write | _Condense | _Keep


class Recorder:
    """Writes in a thread of its own; `record` only puts down what is to be written.

    Of a group to which nothing happened nothing is written: its last row holds on, as long as polls
    follow each other within `patience_s`.
    """

    def __init__(
        self, store: Store, patience_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._patience_s = patience_s
        self._clock = clock
        # None ends it
        self._waiting: queue.Queue[_Task | None] = queue.Queue(MAX_WAITING)
        self._last: dict[str, tuple[Snapshot, Mapping[str, GroupMeasures]]] = {}
        # clusters of which a poll was lost: what it found new is not there to hold on
        self._incomplete: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        # rows are joined by the hour of the calendar: those of an hour are whole then
        self._calendar = BackgroundScheduler(timezone="UTC")
        self._calendar.add_job(self._put, "cron", args=(_Condense(),), minute=3)
        self._is_stopped = threading.Event()
        self._creating = threading.Lock()
        self._is_created = False
        # what is to be kept, by cluster: what came since takes the place of what was not written
        self._to_keep: dict[str, Kept] = {}
        self._keeping = threading.Lock()
        self._kept: set[str] = set()  # clusters of which this process has written something
        self._restored: dict[str, bool] = {}
        self._fault: str | None = None
        self._written_at: float | None = None
        self._not_written = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()
        self._calendar.start()

    def stop(self) -> None:
        """Write what waits, for a moment at most."""
        self._is_stopped.set()
        if self._thread.is_alive():
            self._calendar.shutdown(wait=False)
            self._put(None)
            self._thread.join(STOP_SECONDS)
        self._store.close()

    def record(self, state: State) -> None:
        """Put down what a poll found that is new; a state without a new poll that reached a broker has nothing.

        Of a group that is not known any more the row knows nothing.
        """
        snapshot = state.snapshot
        last_snapshot, last = self._last.get(state.cluster, (None, {}))
        if snapshot is None or snapshot is last_snapshot or state.error is not None:
            return
        groups = state.without_older_than(self._patience_s).groups
        self._last[state.cluster] = (snapshot, groups)
        at = _moment(snapshot)
        # deleted, or its coordinator is silent
        summaries = [Summary(group, at) for group in last.keys() - groups.keys()]
        is_anew = (
            last_snapshot is None
            or at - _moment(last_snapshot) > self._patience_s
            or state.cluster in self._incomplete
        )
        if is_anew:
            self._incomplete.discard(state.cluster)
            last = {}
        summaries += [
            _summary(snapshot, group, measures)
            for group, measures in groups.items()
            if (before := last.get(group)) is not measures and before != measures
        ]
        self._put(_Write(state.cluster, at, summaries, is_anew))

    def keep(self, cluster: str, kept: Kept) -> None:
        """Put down what a restart takes up, as far as it is new; the first of a process is all."""
        with self._keeping:
            before = self._to_keep.get(cluster)
            self._to_keep[cluster] = kept if before is None else before.followed_by(kept)
        self._put(_Keep(cluster))

    def take_up(self, cluster: str, restore: Callable[[Kept], None]) -> bool:
        """Hand what was kept of a cluster to `restore`, and return whether it went on from that.

        False where nothing was kept, or `restore` raises as it can't go on. Waits for the database
        for some seconds at most.
        """
        reader: queue.Queue[Kept | Exception | None] = queue.Queue()
        threading.Thread(
            target=lambda: reader.put(self._recall(cluster)), name="history restore", daemon=True
        ).start()
        try:
            kept = reader.get(timeout=TAKE_UP_SECONDS)
        except queue.Empty:
            kept = ValueError("the database takes too long")
        if isinstance(kept, Kept):
            try:
                restore(kept)
            except Exception as error:  # noqa: BLE001  # whatever it is, the monitor has to begin
                kept = error
        self._restored[cluster] = isinstance(kept, Kept)
        if isinstance(kept, Exception):
            _log.warning("begins anew, not where it stood", cluster=cluster, cause=why_failed(kept))
        elif kept is not None:
            _log.info("goes on where it stood", cluster=cluster, groups=len(kept.groups))
        return self._restored[cluster]

    def _recall(self, cluster: str) -> Kept | Exception | None:
        try:
            self._create()
            kept = kept_of(self._store.kept(cluster))
        except Exception as error:  # noqa: BLE001  # told by who asked
            return error
        with self._keeping:
            later = self._to_keep.get(cluster)
        if kept is None or later is None:
            return later or kept
        return kept.followed_by(later)

    def read(
        self, cluster: str, group_id: str, since: float, until: float
    ) -> Sequence[Summary] | None:
        """Return a group's rows between two Unix times, None while the database can't be read.

        One that knows nothing is where nobody looked.
        """
        try:
            rows = self._store.read(cluster, group_id, since, until)
            if not rows:
                return rows
            gaps = self._store.gaps(cluster, rows[0].at, until, self._patience_s)
            return with_gaps(rows, gaps)
        except SQLAlchemyError as error:
            _log.warning("history not read", cause=why_failed(error))
            return None

    @property
    def is_written(self) -> bool:
        """Say whether nothing waits to be written."""
        return not self._waiting.unfinished_tasks

    def block(self) -> Block:
        """Return how writing goes."""
        return Block((), self._samples, name="history")

    def _samples(self) -> Samples:
        found: dict[Metric, Mapping[tuple[str, ...], float]] = {
            UP: {(): int(self._fault is None)},
            NOT_WRITTEN: {(): self._not_written},
            NOT_TAKEN: {(): len(self._store.not_taken)},
            RESTORED: {(cluster,): int(went) for cluster, went in self._restored.items()},
        }
        if self._written_at is not None:
            found[LAST_WRITE] = {(): round(self._written_at, 3)}
        return found

    def _put(self, what: _Task | None) -> None:
        try:
            self._waiting.put_nowait(what)
        except queue.Full:
            self._lose(what)
            self._note("the database takes too long")

    def _lose(self, what: _Task | None) -> None:
        if isinstance(what, _Write):
            self._not_written += 1
            self._incomplete.add(what.cluster)

    def _run(self) -> None:
        while (what := self._waiting.get()) is not None:
            try:
                self._do(what)
            except Exception as error:  # noqa: BLE001  # drivers refuse some texts in their own ways
                self._lose(what)
                self._note(why_failed(error))
                self._is_stopped.wait(RETRY_SECONDS)
            finally:
                self._waiting.task_done()

    def _do(self, what: _Task) -> None:
        self._create()
        if isinstance(what, _Keep):
            self._write_kept(what.cluster)
        elif isinstance(what, _Write):
            # a group that is not there any more may have a row of before, which would hold on
            patience_s = 0.0 if what.is_anew else self._patience_s
            self._store.write(what.cluster, what.summaries, at=what.at, patience_s=patience_s)
            self._written_at = self._clock()
        else:
            # later it may yet turn out that nobody looked
            self._store.condense(self._clock() - self._patience_s)
        self._note(None)

    def _create(self) -> None:
        with self._creating:
            if not self._is_created:
                self._store.create()
                self._is_created = True

    def _write_kept(self, cluster: str) -> None:
        with self._keeping:
            kept = self._to_keep.get(cluster)
        if kept is None:
            return  # with the one before
        self._store.keep(cluster, rows_of(kept), anew=cluster not in self._kept)
        self._kept.add(cluster)
        with self._keeping:
            if self._to_keep.get(cluster) is kept:
                del self._to_keep[cluster]

    def _note(self, fault: str | None) -> None:
        """Log a fault once, and its end."""
        if fault is not None and self._fault is None:
            _log.warning("history not written", cause=fault)
        elif fault is None and self._fault is not None:
            _log.info("history written again", not_written=self._not_written)
        self._fault = fault


def _moment(snapshot: Snapshot) -> float:
    return round(snapshot.taken_at, 3)


def _summary(snapshot: Snapshot, group: str, measures: GroupMeasures) -> Summary:
    behind, since = measures.behind(snapshot.seen_at), measures.behind_since
    produced = list(_known(rates.produced for rates in measures.rates.values()))
    consumed = list(_known(rates.consumed for rates in measures.rates.values()))
    status = measures.status.status
    return Summary(
        group,
        _moment(snapshot),
        measures.lag.total if measures.lag.partitions else None,
        None if behind is None else round(behind, 3),
        None if since is None or isinf(since) else round(since + snapshot.wall_offset, 3),
        measures.facts.members,
        None if status is Status.NOTFOUND else int(status),
        round(sum(produced), 3) if produced else None,
        round(sum(consumed), 3) if consumed else None,
        measures.rebalances,
    )


def _known(rates: Iterator[float | None]) -> Iterator[float]:
    return (rate for rate in rates if rate is not None)
