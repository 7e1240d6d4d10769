"""What the benchmarks share: servers of their own, child processes, CPU accounting, tables."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from types import FrameType
from typing import Any, Final, ParamSpec, TypeVar

import psutil

from order_services.local.kafka import EmbeddedKafka
from order_services.local.postgres import EmbeddedPostgres
from order_services.local.process import StartError

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Servers:
    """A broker and a database that belong to this run alone."""

    kafka: EmbeddedKafka
    postgres: EmbeddedPostgres
    directory: Path

    def environment(self, database: str) -> dict[str, str]:
        """Return the variables that point a service at these servers."""
        return {
            "KAFKA_BROKERS": self.kafka.bootstrap_servers,
            "DB_HOST": self.postgres.host,
            "DB_PORT": str(self.postgres.port),
            "DB_NAME": database,
            "DB_USER": self.postgres.user,
            "DB_PASSWORD": self.postgres.password,
        }

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time of broker and database since they were started."""
        return {
            "Kafka": cpu_seconds(self.kafka.pid),
            "PostgreSQL": cpu_seconds(self.postgres.pid),
        }


@contextmanager
def servers(
    *, kafka: Mapping[str, str] | None = None, postgres: Mapping[str, str] | None = None
) -> Iterator[Servers]:
    """Start a broker and a database in a temporary directory; stop and remove them at the end."""
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    broker = EmbeddedKafka(directory / "kafka", overrides=kafka)
    database = EmbeddedPostgres(directory / "postgres" / "data", overrides=postgres)
    try:
        say("starting Kafka and PostgreSQL")
        broker.start()
        database.start()
        yield Servers(broker, database, directory)
    finally:
        broker.stop()
        database.stop()
        shutil.rmtree(directory, ignore_errors=True)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children, those that ended included."""
    process = psutil.Process(pid)
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended in between: its parent has it
            total += sum(each.cpu_times()[:4] if each is process else each.cpu_times()[:2])
    return total


def in_child(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Run a module's function in a fresh process: nobody else's CPU time, caches or counters."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_run_child, args=(theirs, function, arguments, named))
    child.start()
    theirs.close()
    try:
        ok, answer = ours.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"{function.__name__} ended with {child.exitcode}") from None
    finally:
        if sys.exc_info()[0] is not None:
            child.terminate()
        child.join()
    if not ok:
        raise RuntimeError(f"{function.__name__} failed:\n{answer}")
    result: R = answer
    return result


def _run_child(
    pipe: Pipe, function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]
) -> None:
    # Ctrl-C reaches the whole terminal: the parent hears it and ends us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pipe.send((True, function(*arguments, **named)))
    except Exception:  # noqa: BLE001  # the parent raises it
        pipe.send((False, traceback.format_exc()))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent * 100) // 10_000) - 1)]


def median(values: Iterable[float]) -> float:
    """Return the middle of the values: one disturbed round does not move it."""
    return statistics.median(values)


def say(text: str) -> None:
    """Print progress where it does not mix with the tables."""
    print(f"  .. {text}", file=sys.stderr, flush=True)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in Markdown, columns aligned, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(len(heading), *(len(row[column]) for row in cells))
        for column, heading in enumerate(headings)
    ]
    print(f"\n{title}\n")
    _line([heading.ljust(width) for heading, width in zip(headings, widths, strict=True)])
    _line(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    for row in cells:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        _line([first.strip().ljust(widths[0]), *rest])
    sys.stdout.flush()


def _line(cells: Iterable[str]) -> None:
    print("| " + " | ".join(cells) + " |")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def run(
    name: str,
    describe: str,
    measure: Callable[[argparse.Namespace], None],
    options: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> int:
    """Run one benchmark from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=describe)
    parser.add_argument("--quick", action="store_true", help="a short form, less exact")
    options(parser)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    print(f"$ python -m benchmarks.{' '.join([name, *sys.argv[1:]])}")
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
        flush=True,
    )
    try:
        measure(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (StartError, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(f"\n({time.monotonic() - started:.0f} s, load {os.getloadavg()[0]:.1f} at the end)\n")
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
