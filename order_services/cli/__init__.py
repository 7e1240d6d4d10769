"""The `order-services` command: one file for each thing that it is about."""

from __future__ import annotations

from importlib import import_module
from typing import Final, NoReturn

import click

from order_services.cli.failing import fail

# A service starts with the packages that it needs: each command is imported when it is asked for.
COMMANDS: Final = (
    "autoscale", "dead-letters", "doctor", "migrate", "refused", "replay", "run", "scale", "topics", "up",
)  # fmt: skip
# They run, or speak to, a system on this machine.
LOCAL: Final = frozenset({"autoscale", "scale", "up"})


class LazyGroup(click.Group):
    """Finds the command NAME as `command` in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's own
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, importing it only now."""
        if cmd_name not in COMMANDS:
            return None
        try:
            module = import_module(f"order_services.cli.{cmd_name.replace('-', '_')}")
        except ImportError as error:
            # a container that runs one service has not installed the `local` extra
            if cmd_name not in LOCAL:
                raise
            return _not_installed(cmd_name, error.name or "a package")
        command: click.Command = module.command
        return command


def _not_installed(name: str, missing: str) -> click.Command:
    @click.command(
        name,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        short_help="Of a system on this machine (not installed).",
        add_help_option=False,
    )
    def command() -> NoReturn:
        fail(f"{name} needs the extra packages of 'local' ({missing} is missing)")

    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run the order services and keep their topics."""


def main() -> None:
    """Run the command."""
    cli(prog_name="order-services")
