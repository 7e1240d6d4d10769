"""The command `order-services`, which says what to install where only the monitor was."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; exit code 2 where a package that it needs is not installed."""
    try:
        # what it needs may be missing at once, or when a subcommand begins
        from order_services.cli import main as run  # noqa: PLC0415

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"order_services", "monitor"}:
            raise
        print(  # noqa: T201  # it is the command's output
            f"Error: order-services needs {error.name}: pip install 'kafka-lag-monitor[services]' "
            "(or [local], to run a broker and a database of its own)",
            file=sys.stderr,
        )
        sys.exit(2)
