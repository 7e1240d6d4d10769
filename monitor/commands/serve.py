"""`monitor serve`: polls a cluster, and serves what it knows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from monitor import logs
from monitor.analysis.scaling.advisor import Advisor, BudgetOf
from monitor.commands import options
from monitor.commands.numbers import Number
from monitor.commands.watching import collector_of, rules_of, scaling_rules_of
from monitor.configuration import Configuration, Watched
from monitor.exposition.families import history as history_family
from monitor.exposition.families import process
from monitor.exposition.series import Block, Level
from monitor.fleet import Fleet, Watch
from monitor.history.place import NoPlaceError, own_place
from monitor.memory import keep_heap_small
from monitor.otlp.settings import EXPORTER, push_interval
from monitor.poller import Keeper, Poller
from monitor.pools.services import ServiceTarget
from monitor.pools.watch import DatabaseWatch
from monitor.settings import MonitorSettings, is_loopback
from monitor.state import State
from monitor.web.app import create_app
from monitor.web.server import AddressError, WebServer
from monitor.web.tls import Certificate, CertificateError, Secures
from monitor.web.trends import Trends
from monitor.web.web_config import WebConfigError, WebConfigFile

if TYPE_CHECKING:
    from monitor.history.recorder import Recorder
    from monitor.otlp.push import Pusher

_log = structlog.get_logger(__name__)


@click.command()
@options.connection
@click.option("--host", help="Address to listen on. [env: MONITOR_HOST; default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on. [env: MONITOR_PORT; default: 9308]")
@click.option(
    "--poll-interval",
    type=Number(1, 3_600),
    metavar="SECONDS",
    help="Time between polls. [env: MONITOR_POLL_INTERVAL; default: 15]",
)
@click.option(
    "--web.config.file",
    "web_config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Prometheus' web.config.yml: TLS, client certificates, users, headers; read again when it "
    "changes. [env: MONITOR_WEB_CONFIG_FILE]",
)
@click.option("--wait", is_flag=True, help="Wait for a cluster that can't be reached yet.")
def serve(*, source: options.Source, wait: bool, **given: Any) -> None:
    """Poll the cluster, or those of --config, and serve /metrics, /health, /ready and a status page.

    MONITOR_TLS_CERTFILE and MONITOR_TLS_KEYFILE make it HTTPS, MONITOR_USERNAME and
    MONITOR_PASSWORD ask for a login; or --web.config.file does all that. SIGHUP has the settings of the
    clusters read again; those of the server itself (addresses, TLS, login) and of databases need a
    restart.
    """
    keep_heap_small()
    configuration = source.read(**given)
    process_settings = configuration.process
    logs.configure(process_settings.log_level, process_settings.log_format)
    databases = DatabaseWatch(configuration.databases)
    # of several clusters those that are away cost only themselves
    connects = not wait and len(configuration.clusters) == 1
    recorder, history_block = history_of(process_settings)
    pushing = _pushing(lambda: tuple(fleet.pollers.values()), process_settings.otlp_level)
    trends = Trends()
    fleet = Fleet(
        configuration,
        lambda watched, published: _open(
            watched, published, recorder, databases.budget_of, connect=connects
        ),
        own_blocks=lambda: (
            *databases.blocks(),
            process.block(),
            *([pushing[0].block()] if pushing else ()),
            *([history_block] if history_block else ()),
        ),
        own_failed=databases.failed,
        record=_recording(trends, recorder),
    )
    reloading = threading.Lock()

    def reload() -> str | None:
        """Read the settings again; a mistake leaves those before in force, and is returned."""
        with reloading:
            try:
                fleet.reload(source.read(**given))
            except click.ClickException as error:
                message = error.format_message()
                _log.error("settings not used: those before stay in force", cause=message)
                fleet.note_reload(failed=True)
                return message
            return None

    try:
        web_config = web_config_of(process_settings)
        certificate = _certificate(process_settings, web_config)
        app = create_app(
            fleet,
            process_settings.login,
            client_certificates=process_settings.tls_client_cafile is not None,
            web_config=web_config,
            reload=reload if process_settings.reload_by_http else None,
            history=recorder.read if recorder else None,
            trends=trends,
            pools=None if databases.is_empty else databases.report,
            services=[ServiceTarget.parse(url) for url in configuration.databases.service_urls],
        )
        server = WebServer(app, process_settings.host, process_settings.port, certificate)
        port = server.bind()
    except (AddressError, CertificateError, WebConfigError) as error:
        fleet.stop()
        raise options.Refusal(str(error)) from None

    def begin() -> None:
        databases.start(process_settings.poll_interval)
        if recorder:
            recorder.start()
        fleet.start()
        if pushing:
            pusher, interval_s = pushing
            pusher.start(interval_s)
        click.echo(_greeting(configuration, port, "https" if certificate else "http"))

    server.serve_until_stopped(begin, on_hangup=reload)
    if pushing:
        pushing[0].stop()
    fleet.stop()
    databases.stop()
    if recorder:
        recorder.stop()


def _recording(trends: Trends, recorder: Recorder | None) -> Callable[[State], None]:
    """Return what takes each state that is published."""

    def record(state: State) -> None:
        trends.record(state)
        if recorder:
            recorder.record(state)

    return record


def _certificate(settings: MonitorSettings, web_config: WebConfigFile | None) -> Secures | None:
    """Return what HTTPS is served with, None for plain HTTP."""
    if web_config is not None:
        return web_config if web_config.has_tls else None
    files = settings.tls_files
    return Certificate(*files, settings.tls_client_cafile) if files else None


def _greeting(configuration: Configuration, port: int, scheme: str) -> str:
    """Say what is watched, and where that is served."""
    addresses = ", ".join(
        f"{name}: {address}" if name else address
        for name, address in (
            (each.settings.cluster, ", ".join(each.kafka.bootstrap_servers))
            for each in configuration.clusters
        )
    )
    return (
        f"Watching {addresses}; serving {url_of(scheme, configuration.process.host, port)} "
        "(metrics at /metrics). Ctrl-C stops."
    )


def url_of(scheme: str, host: str, port: int) -> str:
    """Return where a browser finds what is served."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


def web_config_of(settings: MonitorSettings) -> WebConfigFile | None:
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
    named = settings.history_url
    given = None if named is None else named.get_secret_value()
    try:
        place = own_place(given, settings.port)
    except NoPlaceError as error:
        _log.warning("no history is kept", cause=str(error), setting="MONITOR_HISTORY_URL")
        return None, history_family.not_kept()
    if place is None:
        return None, None
    # here, as SQLAlchemy takes 30 MB
    from monitor.history.recorder import Recorder  # noqa: PLC0415
    from monitor.history.store import Store  # noqa: PLC0415

    try:
        recorder = Recorder(Store(place), settings.stale_after_seconds)
    except ValueError as error:
        raise options.Refusal(f"MONITOR_HISTORY_URL: {error}") from None
    if isinstance(place, Path):
        _log.info("history is kept", file=str(place))
    return recorder, recorder.block()


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
        raise options.Refusal(
            f"{EXPORTER}=otlp needs an extra: pip install 'kafka-lag-monitor[otlp]'"
        ) from None
    except ValueError as error:
        raise options.Refusal(f"OpenTelemetry: {error}") from None


def _open(
    watched: Watched,
    published: Callable[[], None],
    keeper: Keeper | None,
    budget_of: BudgetOf,
    *,
    connect: bool,
) -> Watch:
    settings = watched.settings
    with ExitStack() as opened:
        collector = opened.enter_context(collector_of(watched.kafka, settings, connect=connect))
        poller = Poller(
            collector,
            stale_after_s=settings.stale_after_seconds,
            cluster=settings.cluster,
            families=settings.families,
            level=settings.level,
            measures_level=settings.measures_level,
            members=settings.member_metrics,
            hide_empty_groups=settings.hide_empty_groups,
            rules=rules_of(settings),
            keeper=keeper,
            scaling=Advisor(scaling_rules_of(settings), budget_of),
            published=published,
        )
        return Watch(watched, poller, opened.pop_all().close)
    raise AssertionError  # the stack keeps no fault to itself; mypy can't know
