"""Programs that only tests need, and that no Python package brings."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def program(name: str, package: str) -> str:
    """Return the program's path; without it skip the test, or fail it where CI=true."""
    # Debian puts some servers where an ordinary user's PATH does not look
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        missing(f"{name} is not installed; install it with: apt-get install {package}")
    return path


def missing(message: str) -> NoReturn:
    """Skip a test that lacks what the message says, or fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
