"""What the commands have in common: their options, and the settings, read in one way."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from monitor.client_properties import read_client_properties
from monitor.commands.numbers import Number
from monitor.configuration import Configuration, Watched, meant, names_of, read_configuration
from monitor.pools.settings import DatabaseSettings
from monitor.settings import MonitorSettings, SettingsError

P = ParamSpec("P")
R = TypeVar("R")

PREFIX: Final = "MONITOR_"
CONFIG: Final = "MONITOR_CONFIG"
# What Kubernetes sets in every pod of a namespace that has a Service named `monitor`.
_SERVICE_LINKS: Final = re.compile(r"MONITOR_(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP).*)")


class Refusal(click.ClickException):
    """Input or surroundings that the command can't work with: one line, exit code 2."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Source:
    """Where a command takes its settings from, before the environment: a file, and flags."""

    config: Path | None
    command_config: Path | None
    flags: Mapping[str, Any]

    def read(self, **more_flags: Any) -> Configuration:
        """Return all settings; raises Refusal with all that is wrong with them.

        They are the same for each command, so that `monitor lag` shows what `monitor serve` would:
        a mistake in any of them is told by all.
        """
        try:
            refuse_misspelt(os.environ)
            in_file = read_client_properties(self.command_config) if self.command_config else {}
            said = {name: value for name, value in self.flags.items() if value is not None}
            return read_configuration(self.config, **{**in_file, **said, **more_flags})
        except SettingsError as error:
            raise Refusal(str(error)) from None

    def one(self) -> Watched:
        """Return the settings of one cluster; raises Refusal where it isn't clear which."""
        found = self.read()
        try:
            return found.one()
        except SettingsError as error:
            raise Refusal(str(error)) from None


config: Final = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG,
    metavar="FILE",
    help=f"Settings as YAML; `monitor config check` tells its mistakes. [env: {CONFIG}]",
)


def connection(command: Callable[..., R]) -> Callable[..., R]:
    """Add what says how to reach a cluster; the command gets it all as `source`."""

    @functools.wraps(command)
    def with_source(
        *,
        config: Path | None,
        command_config: Path | None,
        cluster: str | None,
        bootstrap_servers: str | None,
        **given: Any,
    ) -> R:
        flags = {"bootstrap_servers": bootstrap_servers, "cluster": cluster}
        return command(source=Source(config, command_config, flags), **given)

    for option in (
        click.option(
            "--command-config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Kafka's client.properties, as its own tools take it; goes before the environment.",
        ),
        click.option(
            "--bootstrap-servers",
            metavar="HOST:PORT[,...]",
            help="Brokers to start from. [env: KAFKA_BOOTSTRAP_SERVERS or KAFKA_BROKERS; "
            "default: 127.0.0.1:9092]",
        ),
        click.option(
            "--cluster",
            metavar="NAME",
            help="Only this cluster of --config; without clusters there, the cluster's name in "
            "metrics. [env: MONITOR_CLUSTER; default: its id]",
        ),
        config,
    ):
        with_source = option(with_source)
    return with_source


def watch(command: Callable[P, R]) -> Callable[P, R]:
    """Add --watch."""
    return click.option(
        "--watch",
        type=Number(1, 3_600),
        metavar="SECONDS",
        help="Print anew every so many seconds, until Ctrl-C; rates and statuses then come in as "
        "well.",
    )(command)


def refuse_misspelt(environment: Mapping[str, str]) -> None:
    """Raise SettingsError for variables of ours that mean nothing: a filter that is not applied."""
    known = {
        f"{PREFIX}{name}".upper()
        for model in (MonitorSettings, DatabaseSettings)
        for name in names_of(model)
    } | {CONFIG}
    faults = [
        f"{name} is no setting{meant(name, known)}"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINKS.fullmatch(name)
    ]
    if faults:
        raise SettingsError("\n".join(faults))
