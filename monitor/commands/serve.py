"""`monitor serve`: polls a cluster, and serves what it knows."""

from __future__ import annotations

from typing import Any

import click

from monitor import logs
from monitor.commands import options
from monitor.commands.watching import collector_of, rules_of
from monitor.exposition.families import process
from monitor.memory import keep_heap_small
from monitor.poller import Poller
from monitor.pools.settings import read_database_settings
from monitor.pools.watch import DatabaseWatch
from monitor.settings import SettingsError
from monitor.web.app import create_app
from monitor.web.server import AddressError, WebServer
from monitor.web.tls import Certificate, CertificateError


@click.command()
@options.connection
@click.option("--host", help="Address to listen on. [env: MONITOR_HOST; default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on. [env: MONITOR_PORT; default: 9308]")
@click.option(
    "--poll-interval",
    type=float,
    metavar="SECONDS",
    help="Time between polls. [env: MONITOR_POLL_INTERVAL; default: 15]",
)
@click.option(
    "--cluster",
    help="Name of the cluster in metrics. [env: MONITOR_CLUSTER; default: the cluster's id]",
)
@click.option("--wait", is_flag=True, help="Wait for a cluster that can't be reached yet.")
def serve(*, wait: bool, **given: Any) -> None:
    """Poll the cluster and serve /metrics, /health, /ready and a status page.

    MONITOR_TLS_CERTFILE and MONITOR_TLS_KEYFILE make it HTTPS, MONITOR_USERNAME and
    MONITOR_PASSWORD ask for a login.
    """
    keep_heap_small()
    kafka, settings = options.settings(**given)
    logs.configure(settings.log_level, settings.log_format)
    try:
        databases = DatabaseWatch(read_database_settings())
    except SettingsError as error:
        raise options.Refusal(str(error)) from None
    with collector_of(kafka, settings, connect=not wait) as collector:
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
            more_blocks=lambda: (*databases.blocks(), process.block()),
            more_failed=databases.failed,
        )
        try:
            authorities = settings.tls_client_cafile
            certificate = (
                Certificate(*settings.tls_files, authorities) if settings.tls_files else None
            )
            app = create_app(poller, settings.login, client_certificates=authorities is not None)
            server = WebServer(app, settings.host, settings.port, certificate)
            port = server.bind()
        except (AddressError, CertificateError) as error:
            raise options.Refusal(str(error)) from None
        databases.start(settings.poll_interval)
        poller.start(settings.poll_interval)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "https" if settings.tls_files else "http"
        click.echo(
            f"Watching {', '.join(kafka.bootstrap_servers)}; serving {scheme}://{shown}:{port}/ "
            "(metrics at /metrics). Ctrl-C stops."
        )
        server.serve_until_stopped()
        poller.stop()
        databases.stop()
