"""What the commands have in common: their options, and the settings, read in one way."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from monitor.client_properties import read_client_properties
from monitor.pools.settings import DatabaseSettings
from monitor.secret_files import SUFFIX, is_secret
from monitor.settings import KafkaSettings, MonitorSettings, SettingsError, read_settings

P = ParamSpec("P")
R = TypeVar("R")

PREFIX: Final = "MONITOR_"
# What Kubernetes sets in every pod of a namespace that has a Service named `monitor`.
_SERVICE_LINKS: Final = re.compile(r"MONITOR_(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP).*)")


class Refusal(click.ClickException):
    """Input or surroundings that the command can't work with: one line, exit code 2."""

    exit_code = 2


def connection(command: Callable[P, R]) -> Callable[P, R]:
    """Add what says how to reach the cluster: --bootstrap-servers and --command-config."""
    command = click.option(
        "--command-config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Kafka's client.properties, as its own tools take it; goes before the environment.",
    )(command)
    return click.option(
        "--bootstrap-servers",
        metavar="HOST:PORT[,...]",
        help="Brokers to start from. [env: KAFKA_BOOTSTRAP_SERVERS or KAFKA_BROKERS; "
        "default: 127.0.0.1:9092]",
    )(command)


def watch(command: Callable[P, R]) -> Callable[P, R]:
    """Add --watch."""
    return click.option(
        "--watch",
        type=click.FloatRange(1, 3_600),
        metavar="SECONDS",
        help="Print anew every so many seconds, until Ctrl-C; rates and statuses then come in as "
        "well.",
    )(command)


def settings(
    *, command_config: Path | None = None, **given: Any
) -> tuple[KafkaSettings, MonitorSettings]:
    """Return the settings that all commands share; raises Refusal with what is wrong with them.

    They are the same for each command, so that `monitor lag` shows what `monitor serve` would: a
    mistake in any of them is told by all.
    """
    try:
        refuse_misspelt(os.environ)
        in_file = read_client_properties(command_config) if command_config else {}
        wanted = {name: value for name, value in given.items() if value is not None}
        return read_settings(**{**in_file, **wanted})
    except SettingsError as error:
        raise Refusal(str(error)) from None


def refuse_misspelt(environment: Mapping[str, str]) -> None:
    """Raise SettingsError for variables of ours that mean nothing: a filter that is not applied."""
    known = {
        f"{PREFIX}{name}".upper() + suffix
        for model in (MonitorSettings, DatabaseSettings)
        for name, field in model.model_fields.items()
        for suffix in ("", SUFFIX)
        if not suffix or is_secret(field)
    }
    faults = [
        f"{name} is no setting{_meant(name, known)}"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINKS.fullmatch(name)
    ]
    if faults:
        raise SettingsError("\n".join(faults))


def _meant(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; is {close[0]} meant?" if close else f"; there are {', '.join(sorted(known))}"
