from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import weakref

import pytest

from monitor.memory import POLLS_PER_COLLECTION, GarbageCollection

# frees a large block, then all but the last of many of one MB each: that one is above the holes
PROGRAM = """
from pathlib import Path
from monitor.memory import keep_heap_small
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
keep_heap_small()
large = bytearray(b"x") * (8 << 20)
del large
before = resident()
blocks = [bytearray(b"x") * (1 << 20) for _ in range(40)]
del blocks[:-1]
print(resident() - before)
"""

# threads that allocate at the same time, and glibc's own account of its heaps
THREADS = """
import ctypes, threading
from monitor.memory import keep_heap_small
keep_heap_small()
together = threading.Barrier(4)
def allocate():
    together.wait()
    kept = [bytearray(4_096) for _ in range(1_000)]
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""
# what it has imported by the time it gives up on a cluster that is not there
SERVE = """
import sys
import weakref
from click.testing import CliRunner
from monitor.commands import main
assert CliRunner().invoke(main, ["serve", "--bootstrap-servers", "127.0.0.1:1"]).exit_code == 2
print(sorted({"psycopg2", "rich", "pygments", "greenlet"} & sys.modules.keys()))
"""


def _said_by(program: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={k: v for k, v in os.environ.items() if not k.startswith("MONITOR_")} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries do so by themselves"
)


@glibc
def test_what_a_poll_has_freed_is_the_systems_again() -> None:
    assert int(_said_by(PROGRAM)) < 4 << 20


@glibc
def test_all_threads_share_one_heap() -> None:
    assert _said_by(THREADS).count("<heap nr=") == 1


def test_the_databases_driver_is_loaded_only_where_a_database_is_watched() -> None:
    watched = _said_by(SERVE, MONITOR_DATABASE_URL="postgresql://127.0.0.1/orders")
    assert watched == "['psycopg2']"


def test_nothing_that_draws_on_a_terminal_is_loaded_to_serve() -> None:
    assert _said_by(SERVE) == "[]"


class Cycle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_no_poll_is_followed_by_a_pass_over_what_it_made() -> None:
    passes: list[str] = []
    garbage = GarbageCollection()
    kept: list[object] = []
    gc.callbacks.append(lambda phase, _: passes.append(phase))
    try:
        with garbage.not_collected():
            kept.append([[] for _ in range(100_000)])
        kept.append([[]])
        assert not passes
    finally:
        gc.callbacks.pop()
        gc.unfreeze()


def test_cycles_that_polls_leave_are_collected_in_the_end() -> None:
    garbage = GarbageCollection()
    try:
        with garbage.not_collected():
            left = weakref.ref(Cycle())
        for _ in range(POLLS_PER_COLLECTION):
            with garbage.not_collected():
                pass
        assert left() is None
    finally:
        gc.unfreeze()
