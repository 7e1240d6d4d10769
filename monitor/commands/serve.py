"""`monitor serve`: polls a cluster, and serves what it knows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from monitor import logs
from monitor.analysis.scaling.advisor import Advisor, BudgetOf
from monitor.commands import options
from monitor.commands.numbers import Number
from monitor.commands.starting import history_of, start_of
from monitor.commands.watching import collector_of, rules_of, scaling_rules_of
from monitor.configuration import Configuration, Watched
from monitor.exposition.families import process
from monitor.fleet import Fleet, Watch
from monitor.memory import keep_heap_small
from monitor.poller import Keeper, Poller
from monitor.pools.services import ServiceTarget
from monitor.pools.watch import DatabaseWatch
from monitor.state import State
from monitor.web.app import create_app
from monitor.web.server import AddressError, WebServer
from monitor.web.trends import Trends

if TYPE_CHECKING:
    from monitor.history.recorder import Recorder

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
    start = start_of(configuration, lambda: tuple(fleet.pollers.values()))
    pushing = start.pushing
    recorder, history_block = history_of(process_settings)
    trends = Trends(process_settings.stale_after_seconds)
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
        app = create_app(
            fleet,
            process_settings.login,
            client_certificates=process_settings.tls_client_cafile is not None,
            web_config=start.web_config,
            reload=reload if process_settings.reload_by_http else None,
            history=recorder.read if recorder else None,
            trends=trends,
            pools=None if databases.is_empty else databases.report,
            services=[ServiceTarget.parse(url) for url in configuration.databases.service_urls],
        )
        server = WebServer(app, process_settings.host, process_settings.port, start.certificate)
        port = server.bind()
    except AddressError as error:
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
        click.echo(_greeting(configuration, port, "https" if start.certificate else "http"))

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
