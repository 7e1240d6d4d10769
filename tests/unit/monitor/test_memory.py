from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# frees a large block, then all but the last of many of one MB each: that one is above the holes
PROGRAM = """
from pathlib import Path
from monitor.memory import give_large_blocks_back
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
give_large_blocks_back()
large = bytearray(b"x") * (8 << 20)
del large
before = resident()
blocks = [bytearray(b"x") * (1 << 20) for _ in range(40)]
del blocks[:-1]
print(resident() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries do so by themselves"
)
def test_what_a_poll_has_freed_is_the_systems_again() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 4 << 20
