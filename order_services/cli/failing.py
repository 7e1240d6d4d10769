"""How a command ends when it cannot do what it was asked for."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

import click

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def fail(message: str) -> NoReturn:
    """Say why on one line of standard error, and end with 2."""
    click.echo(f"order-services: {message}", err=True)
    sys.exit(EXIT_USAGE)
