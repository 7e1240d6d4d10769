"""Runs a test in a process of its own, for what it leaves behind there."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

_APART: Final = "TEST_RUNS_APART"
LIMIT_S: Final = 240.0


def ran_apart(request: pytest.FixtureRequest) -> bool:
    """Run the test at hand in a process of its own, and say so; False in there, where it is run."""
    if os.environ.get(_APART):
        return False
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "-q",
            "-m",
            "heavy or not heavy",
            request.node.nodeid,
        ],
        cwd=request.config.rootpath,
        env={**ours, _APART: "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:]
    return True
