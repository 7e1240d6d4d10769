"""The `monitor` command."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from monitor.model import Snapshot
from monitor.settings import (
    KafkaSettings,
    MonitorSettings,
    SettingsError,
    read_settings,
    split_address,
)

# Within the ten seconds in which a wrong address must be told, diagnosis included.
CONNECT_TIMEOUT_S = 5.0

P = ParamSpec("P")
R = TypeVar("R")


class Refusal(click.ClickException):
    """Input or surroundings that the command can't work with: one line, exit code 2."""

    exit_code = 2


def _with_bootstrap_servers(command: Callable[P, R]) -> Callable[P, R]:
    return click.option(
        "--bootstrap-servers",
        metavar="HOST:PORT[,...]",
        help="Brokers to start from. [env: KAFKA_BOOTSTRAP_SERVERS or KAFKA_BROKERS; "
        "default: 127.0.0.1:9092]",
    )(command)


@click.group()
@click.version_option(package_name="kafka-lag-monitor", prog_name="monitor")
def main() -> None:
    """Kafka consumer-group lag: print it once, or serve it to Prometheus.

    TLS and SASL are set by environment variables: KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CAFILE,
    KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and others.
    """


@main.command()
@_with_bootstrap_servers
@click.option("--group", "groups", multiple=True, help="Only this group; may be repeated.")
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be repeated.")
@click.option(
    "--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
)
def lag(
    bootstrap_servers: str | None, groups: tuple[str, ...], topics: tuple[str, ...], output: str
) -> None:
    """Print the lag of consumer groups, as kafka-consumer-groups --describe does.

    Exit code 1 says that a part could not be read (named on standard error), 2 that nothing could.
    """
    # the report needs nothing of the web server, and a command should start quickly
    from monitor import report  # noqa: PLC0415

    kafka, settings = _settings(bootstrap_servers=bootstrap_servers)
    wants_group, wants_topic = _one_of(groups), _one_of(topics)
    with _collector(kafka, settings, wants_group=wants_group, wants_topic=wants_topic) as collector:
        snapshot = collector.poll()
    _check_known("group", groups, snapshot.groups)
    committed = {topic for group in snapshot.groups.values() for topic in group.commits}
    _check_known("topic", topics, snapshot.topics.keys() | committed)
    found = report.reports(snapshot, wants_group, wants_topic)
    if output == "json":
        click.echo(report.as_json(snapshot, found))
    elif output == "csv":
        click.echo(report.as_csv(found), nl=False)
    elif found:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo(report.as_table(found, width), nl=False)
    else:
        click.echo("The cluster has no consumer groups.", err=True)
    sys.exit(_tell_faults(snapshot))


@main.command()
@_with_bootstrap_servers
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
def serve(wait: bool, **given: Any) -> None:  # noqa: FBT001  # click passes options by name
    """Poll the cluster and serve /metrics, /health, /ready and a status page."""
    from monitor.poller import Poller  # noqa: PLC0415  # see `lag`
    from monitor.web.app import create_app  # noqa: PLC0415
    from monitor.web.server import AddressError, WebServer  # noqa: PLC0415

    kafka, settings = _settings(**given)
    with _collector(kafka, settings, connect=not wait) as collector:
        poller = Poller(
            collector, stale_after_s=settings.stale_after_seconds, cluster=settings.cluster
        )
        server = WebServer(create_app(poller), settings.host, settings.port)
        try:
            port = server.bind()
        except AddressError as error:
            raise Refusal(str(error)) from None
        poller.start(settings.poll_interval)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        click.echo(
            f"Watching {', '.join(kafka.bootstrap_servers)}; serving http://{shown}:{port}/ "
            "(metrics at /metrics). Ctrl-C stops."
        )
        server.serve_until_stopped()
        poller.stop()


@contextmanager
def _collector(
    kafka: KafkaSettings, settings: MonitorSettings, *, connect: bool = True, **filters: Any
) -> Iterator[Any]:
    """Yield a collector; with `connect`, refuse a cluster that can't be reached."""
    from monitor.kafka.collector import Collector, Intervals  # noqa: PLC0415  # see `lag`
    from monitor.kafka.questions import UnreachableError  # noqa: PLC0415
    from monitor.kafka.wire import KafkaWire, OptionsError  # noqa: PLC0415

    intervals = Intervals(
        settings.request_timeout, settings.metadata_interval, settings.start_offsets_interval
    )
    try:
        wire = KafkaWire(kafka)
    except OptionsError as error:
        raise Refusal(str(error)) from None
    try:
        if connect:
            try:
                wire.find_cluster(min(settings.request_timeout, CONNECT_TIMEOUT_S))
            except UnreachableError as error:
                _refuse_unreachable(kafka, error.causes)
        yield Collector(wire, intervals, **filters)
    finally:
        wire.close()


def _refuse_unreachable(kafka: KafkaSettings, causes: Mapping[str, str]) -> NoReturn:
    from monitor.kafka.diagnose import identify  # noqa: PLC0415  # only when something is wrong

    tls = kafka.security_protocol.endswith("SSL")
    told = []
    for index, (address, cause) in enumerate(causes.items()):
        # the first only: each may take seconds, and they are of one kind
        found = identify(*split_address(address), tls=tls) if not index else None
        told.append(f"{address}: {found or cause}")
    raise Refusal(f"can't reach Kafka at {'; '.join(told)}")


def _settings(**given: Any) -> tuple[KafkaSettings, MonitorSettings]:
    try:
        return read_settings(**given)
    except SettingsError as error:
        raise Refusal(str(error)) from None


def _one_of(names: tuple[str, ...]) -> Callable[[str], bool]:
    chosen = frozenset(names)
    return chosen.__contains__ if chosen else lambda _: True


def _check_known(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    there = set(known)
    missing = [name for name in names if name not in there]
    if missing:
        raise Refusal(f"the cluster has no {kind} {', '.join(map(repr, missing))}")


def _tell_faults(snapshot: Snapshot) -> int:
    faults = [
        f"broker {snapshot.brokers[broker].address if broker in snapshot.brokers else broker}: {cause}"
        for broker, cause in snapshot.broker_errors.items()
    ]
    faults += snapshot.errors
    faults += [
        f"group {group.id}: {group.error}" for group in snapshot.groups.values() if group.error
    ]
    for fault in faults:
        click.echo(f"Not read: {fault}", err=True)
    return int(bool(faults))
