"""The `monitor` command: one file a subcommand, imported when it is called for.

So a command that is typed in a hurry waits for no web server and no database driver.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from typing import Any, Final, NoReturn

import click

from monitor import logs
from monitor.every import cause_of

# Each is the name of a module here that has a click command of the same name.
COMMANDS: Final = ("advise", "check", "config", "explain", "groups", "lag", "pools", "serve")

FAULT: Final = 2
NOT_JUDGED: Final = 3
"""What a monitoring plugin's exit code is where it has no judgement: 2 would page somebody."""


class MonitorFault(click.ClickException):
    """A fault of the monitor's own, which nobody on call can read a stack trace of."""

    exit_code = FAULT

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"the monitor failed: {cause_of(error)}; MONITOR_LOG_LEVEL=debug shows more"
        )
        if _is_debugging():
            traceback.print_exception(error)


class _PluginFault(MonitorFault):
    """The same before `check` is there to tell it."""

    exit_code = NOT_JUDGED


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, OSError):
            raise
        except KeyboardInterrupt:
            if _is_plugin():  # click's own code is a plugin's WARNING
                sys.exit(NOT_JUDGED)
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is
            raise (_PluginFault if _is_plugin() else MonitorFault)(error) from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"monitor.commands.{cmd_name}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101  # see COMMANDS
        return command


@click.group(cls=_Commands)
@click.version_option(package_name="kafka-lag-monitor", prog_name="monitor")
def main() -> None:
    """Kafka consumer-group lag: print it once, or serve it to Prometheus.

    TLS and SASL are set by environment variables: KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CAFILE,
    KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and others.
    """


def run() -> NoReturn:
    """Run the command as a program: output that can't be written is one line and exit code 2.

    It is 3 of `monitor check`.
    """
    if sys.stdout is None:
        _fail("there is nothing to write to: standard output is closed")
    # on standard error: what is printed may be JSON
    logs.configure(traces=_is_debugging())
    try:
        try:
            main()
        finally:
            sys.stdout.flush()  # a full disk is told by the last line, too
    except OSError as error:
        cant_write(error)
    sys.exit()


def cant_write(error: OSError) -> NoReturn:
    """End with one line that says why nothing was written."""
    _discard_output()
    # who reads no further (`| head`) has what they wanted
    _fail(f"can't write: {error.strerror}", silently=error.errno == errno.EPIPE)


def _is_plugin() -> bool:
    return sys.argv[1:2] == ["check"]


def _is_debugging() -> bool:
    return os.environ.get("MONITOR_LOG_LEVEL", "").lower() == "debug"


def _fail(message: str, *, silently: bool = False) -> NoReturn:
    if not silently and sys.stderr is not None:
        sys.stderr.write(f"Error: {message}\n")
    if _is_plugin():
        sys.exit(NOT_JUDGED)
    sys.exit(1 if silently else FAULT)


def _discard_output() -> None:
    """Have the interpreter's own flush at the end fail no more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
