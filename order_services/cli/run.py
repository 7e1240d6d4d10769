"""`order-services run`: one service."""

from __future__ import annotations

import runpy

import click

from order_services.domain.services import SERVICES


@click.command("run")
@click.argument("service", type=click.Choice(SERVICES))
def command(service: str) -> None:
    """Run one SERVICE, configured by the environment, until SIGTERM or Ctrl-C."""
    # its own __main__ ends the process with the service's exit code
    runpy.run_module(f"order_services.{service}", run_name="__main__")
