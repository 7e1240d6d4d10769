"""What `serve` starts with, made of the settings: what of it can't be used is refused before all else.

`config check` makes the same, so that a file in which it finds no mistake is one that `serve` takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from monitor.commands.options import Refusal
from monitor.configuration import Configuration, Watched
from monitor.exposition.families import history as history_family
from monitor.exposition.series import Block, Level
from monitor.history.place import OFF, NoPlaceError, own_place
from monitor.kafka.connecting import OptionsError, connection_options
from monitor.kafka.tokens import of_settings
from monitor.otlp.settings import EXPORTER, push_interval
from monitor.poller import Poller
from monitor.settings import MonitorSettings, is_loopback
from monitor.web.tls import Certificate, CertificateError, Secures
from monitor.web.web_config import WebConfigError, WebConfigFile

if TYPE_CHECKING:
    from monitor.history.recorder import Recorder
    from monitor.history.store import Store
    from monitor.otlp.push import Pusher

_log = structlog.get_logger(__name__)


class Start(NamedTuple):
    """What pages are served with, and what pushes how often; None of what is not asked for."""

    web_config: WebConfigFile | None
    certificate: Secures | None
    pushing: tuple[Pusher, float] | None


def start_of(
    configuration: Configuration, sources: Callable[[], Sequence[Poller]] = tuple
) -> Start:
    """Return what the settings have `serve` start with; raises Refusal.

    Nothing is connected to, and nothing written. What is pushed is of `sources`.
    """
    for watched in configuration.clusters:
        _refuse_unusable(watched, named=configuration.names_clusters)
    settings = configuration.process
    named = _named(settings)
    if named is not None and named.strip() != OFF:
        _store(named).close()
    try:
        web_config = _web_config(settings)
        certificate = _certificate(settings, web_config)
    except (CertificateError, WebConfigError) as error:
        raise Refusal(str(error)) from None
    return Start(web_config, certificate, _pushing(sources, settings.otlp_level))


def _refuse_unusable(watched: Watched, *, named: bool) -> None:
    try:
        connection_options(watched.kafka, of_settings(watched.kafka))
    except OptionsError as error:
        raise Refusal(f"{watched.settings.cluster}: {error}" if named else str(error)) from None


def _certificate(settings: MonitorSettings, web_config: WebConfigFile | None) -> Secures | None:
    """Return what HTTPS is served with, None for plain HTTP."""
    if web_config is not None:
        return web_config if web_config.has_tls else None
    files = settings.tls_files
    return Certificate(*files, settings.tls_client_cafile) if files else None


def _web_config(settings: MonitorSettings) -> WebConfigFile | None:
    """Return what --web.config.file says, None without one; raises WebConfigError, CertificateError."""
    if settings.web_config_file is None:
        return None
    found = WebConfigFile(settings.web_config_file)
    safe = found.has_tls or is_loopback(settings.host) or settings.allow_cleartext_password
    if found.has_users and not safe:
        raise WebConfigError(
            f"{settings.web_config_file}: basic_auth_users without tls_server_config have passwords "
            "sent in clear text: add it, or set MONITOR_ALLOW_CLEARTEXT_PASSWORD=true where a proxy "
            "in front has TLS"
        )
    return found


def history_of(settings: MonitorSettings) -> tuple[Recorder | None, Block | None]:
    """Return what keeps past polls, and what tells how that goes; neither where it is off.

    Where there is no place for it the monitor starts without.
    """
    try:
        place = own_place(_named(settings), settings.port)
    except NoPlaceError as error:
        _log.warning("no history is kept", cause=str(error), setting="MONITOR_HISTORY_URL")
        return None, history_family.not_kept()
    if place is None:
        return None, None
    # here, as SQLAlchemy takes 15 MB
    from monitor.history.recorder import Recorder  # noqa: PLC0415

    recorder = Recorder(_store(place), settings.stale_after_seconds)
    if isinstance(place, Path):
        _log.info("history is kept", file=str(place))
    return recorder, recorder.block()


def _named(settings: MonitorSettings) -> str | None:
    return None if settings.history_url is None else settings.history_url.get_secret_value()


def _store(place: str | Path) -> Store:
    """Return the history's database, which is not opened yet; raises Refusal."""
    from monitor.history.store import Store  # noqa: PLC0415  # SQLAlchemy takes 15 MB

    try:
        return Store(place)
    except ValueError as error:
        raise Refusal(f"MONITOR_HISTORY_URL: {error}") from None


def _pushing(sources: Callable[[], Sequence[Poller]], level: Level) -> tuple[Pusher, float] | None:
    """Return what pushes to an OpenTelemetry collector and how often, None unless it is asked for."""
    try:
        interval_s = push_interval(os.environ)
        if interval_s is None:
            return None
        # here, as most monitors push nothing: the library takes 20 MB
        from monitor.otlp.push import Pusher  # noqa: PLC0415

        return Pusher(sources, level), interval_s
    except ImportError:
        raise Refusal(
            f"{EXPORTER}=otlp needs an extra: pip install 'kafka-lag-monitor[otlp]'"
        ) from None
    except ValueError as error:
        raise Refusal(f"OpenTelemetry: {error}") from None
