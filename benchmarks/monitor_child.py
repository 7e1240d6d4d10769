"""`monitor serve` as it is, except that it polls when told: each poll is measured by itself.

A line of JSON on standard input asks for a poll; a line of JSON on standard output answers. It
imports nothing that the monitor does not: its memory is the monitor's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

# first, as in the program: it says what its libraries do without
from monitor.commands import main  # isort: split

import monitor.poller
from monitor.analysis.time_questions import TimeReplies, Times
from monitor.exposition.render import Page
from monitor.model import LogLook, Snapshot
from monitor.poller import Poller, Source
from monitor.state import State

FIRST_LINE: Final = "Watching "

Answer = TypeVar("Answer")


class _Watched:
    """A source that adds up what it costs."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.take_request_counts = source.take_request_counts
        self.start()

    def start(self) -> None:
        self.collect_cpu = self.times_cpu = 0.0
        self.time_questions = 0

    def poll(self) -> Snapshot:
        snapshot, self.collect_cpu = _timed(self._source.poll)
        return snapshot

    def offsets_for_times(self, wanted: Times) -> TimeReplies:
        self.time_questions += 1
        found, cpu = _timed(lambda: self._source.offsets_for_times(wanted))
        self.times_cpu += cpu
        return found

    def look_at_logs(self, wanted: Times) -> Mapping[str, Mapping[int, LogLook]]:
        return self._source.look_at_logs(wanted)


class _ToldPoller(Poller):
    """Polls when a line comes in, instead of by the clock."""

    def __init__(self, source: Source, **options: Any) -> None:
        self._watched = _Watched(source)
        super().__init__(self._watched, **options)

    def start(self, interval_s: float) -> None:  # noqa: ARG002  # the lines decide
        threading.Thread(target=self._obey, daemon=True).start()

    def _obey(self) -> None:
        for line in sys.stdin:
            print(json.dumps(self._measured(**json.loads(line))), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)  # whoever told us is gone

    def _measured(self, *, lags: bool) -> dict[str, Any]:
        self._watched.start()
        began = time.perf_counter()
        state, cpu = _timed(self.poll)
        wall = time.perf_counter() - began
        page = self.page()
        figures = {
            "error": state.error,
            "cpu_s": cpu,
            "wall_s": wall,
            "collect_cpu_s": self._watched.collect_cpu,
            "times_cpu_s": self._watched.times_cpu,
            "time_questions": self._watched.time_questions,
            "requests": dict(state.snapshot.requests) if state.snapshot else {},
            "memory": _memory_mb(),
            "page_bytes": page.length,
            "gzip_bytes": len(page.gzipped),
        }
        return figures | (_lags(state) if lags else {"samples": _samples(page)})


def _lags(state: State) -> dict[str, Any]:
    """Return when log ends were seen, and [group, topic, partition, committed, unread, seconds]."""
    assert state.snapshot is not None  # the monitor starts with a poll that succeeds
    rows = []
    for group_id, measures in state.groups.items():
        commits = state.snapshot.groups[group_id].commits
        for topic, partitions in measures.lag.partitions.items():
            seconds = measures.behind_by_partition(topic, state.snapshot.seen_at)
            rows += [
                [
                    group_id,
                    topic,
                    partition,
                    commits[topic][partition],
                    unread,
                    seconds.get(partition),
                ]
                for partition, unread in partitions.items()
            ]
    seen_at = state.snapshot.end_offsets.seen_at + state.snapshot.wall_offset
    return {"seen_at": seen_at, "lags": rows}


def _samples(page: Page) -> int:
    # part by part: joined, the text would be the largest thing in the monitor's memory
    return sum(
        part.count(b"\n") - part.count(b"\n#") - part.startswith(b"#") for part in page.pieces()
    )


def _timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    """Return the answer and the CPU seconds of all threads: the network's is one of them."""
    before = time.process_time()
    answer = call()
    return answer, time.process_time() - before


def _memory_mb() -> dict[str, float]:
    """Return the resident memory now and at its highest."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {
        name: int(fields[field].split()[0]) / 1024
        for name, field in (("now", "VmRSS"), ("highest", "VmHWM"))
    }


if __name__ == "__main__":
    monitor.poller.Poller = _ToldPoller  # type: ignore[misc]  # `serve` takes it from there
    main()
