"""The `monitor` command."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from monitor.analysis.measures import Analyst, GroupMeasures
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


class _Commands(click.Group):
    """Loads `pools` when it is called for: no other command waits for the database's driver."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "pools"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "pools":
            return super().get_command(ctx, cmd_name)
        from monitor.commands.pools import pools_command  # noqa: PLC0415

        return pools_command


@click.group(cls=_Commands)
@click.version_option(package_name="kafka-lag-monitor", prog_name="monitor")
def main() -> None:
    """Kafka consumer-group lag: print it once, or serve it to Prometheus.

    TLS and SASL are set by environment variables: KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CAFILE,
    KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and others.
    """


_WATCH = click.option(
    "--watch",
    type=click.FloatRange(1, 3_600),
    metavar="SECONDS",
    help="Print anew every so many seconds, until Ctrl-C; rates and statuses then come in as well.",
)


@main.command()
@_with_bootstrap_servers
@click.option("--group", "groups", multiple=True, help="Only this group; may be repeated.")
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be repeated.")
@click.option(
    "--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
)
@click.option("--seconds", is_flag=True, help="Add the column LAG-SECONDS to the table.")
@_WATCH
def lag(
    *,
    bootstrap_servers: str | None,
    groups: tuple[str, ...],
    topics: tuple[str, ...],
    output: str,
    seconds: bool,
    watch: float | None,
) -> None:
    """Print the lag of consumer groups, as kafka-consumer-groups --describe does.

    And how many seconds each group is behind, and what to do. Exit code 1 says that a part could
    not be read (named on standard error), 2 that nothing could.
    """
    # the report needs nothing of the web server, and a command should start quickly
    from monitor.commands import report  # noqa: PLC0415

    if watch is not None and output != "table":
        raise click.UsageError("--watch goes with --output table only")
    kafka, settings = _settings(bootstrap_servers=bootstrap_servers)
    wants_group, wants_topic = _one_of(groups), _one_of(topics)

    def show(snapshot: Snapshot, measured: Mapping[str, GroupMeasures]) -> None:
        _check_known("group", groups, snapshot.groups)
        committed = {topic for group in snapshot.groups.values() for topic in group.commits}
        _check_known("topic", topics, snapshot.topics.keys() | committed)
        found = report.reports(snapshot, measured, wants_group, wants_topic)
        if output == "json":
            click.echo(report.as_json(snapshot, found))
        elif output == "csv":
            click.echo(report.as_csv(found), nl=False)
        elif found:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            click.echo(report.as_table(found, width, seconds=seconds), nl=False)
        else:
            click.echo("The cluster has no consumer groups.", err=True)

    with _collector(kafka, settings, wants_group=wants_group, wants_topic=wants_topic) as collector:
        sys.exit(_look(collector, show, watch))


@main.command()
@_with_bootstrap_servers
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@_WATCH
def groups(bootstrap_servers: str | None, limit: int, watch: float | None) -> None:
    """List the consumer groups, worst first, and what to do about each.

    STATUS is Burrow's and needs ten polls: `new` until then; say --watch.
    """
    from monitor.commands import report  # noqa: PLC0415  # see `lag`

    def show(snapshot: Snapshot, measured: Mapping[str, GroupMeasures]) -> None:
        click.echo(report.worst_first(snapshot, measured, limit), nl=False)

    kafka, settings = _settings(bootstrap_servers=bootstrap_servers)
    filters: dict[str, Any] = {
        "wants_group": settings.wants_group(),
        "wants_topic": settings.wants_topic(),
    }
    with _collector(kafka, settings, connect=True, **filters) as collector:
        sys.exit(_look(collector, show, watch))


def _look(
    collector: Any,
    show: Callable[[Snapshot, Mapping[str, GroupMeasures]], None],
    watch: float | None,
) -> int:
    """Show one poll, or one after the other until Ctrl-C; return the exit code."""
    analyst = Analyst(collector.offsets_for_times)
    while True:
        snapshot = collector.poll()
        measured = analyst.measure(snapshot)
        if watch is not None:
            click.clear()
            click.echo(f"{time.strftime('%H:%M:%S')}  every {watch:g} s, Ctrl-C stops\n")
        show(snapshot, measured)
        code = _tell_faults(snapshot)
        if watch is None:
            return code
        try:
            time.sleep(watch)
        except KeyboardInterrupt:
            return code


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
    """Poll the cluster and serve /metrics, /health, /ready and a status page.

    MONITOR_TLS_CERTFILE and MONITOR_TLS_KEYFILE make it HTTPS, MONITOR_USERNAME and
    MONITOR_PASSWORD ask for a login.
    """
    from monitor.analysis.status import StatusRules  # noqa: PLC0415  # see `lag`
    from monitor.database.settings import read_database_settings  # noqa: PLC0415
    from monitor.databases import DatabaseWatch  # noqa: PLC0415
    from monitor.exposition import process  # noqa: PLC0415
    from monitor.memory import keep_heap_small  # noqa: PLC0415
    from monitor.poller import Poller  # noqa: PLC0415
    from monitor.web.app import create_app  # noqa: PLC0415
    from monitor.web.server import AddressError, CertificateError, WebServer  # noqa: PLC0415

    keep_heap_small()
    kafka, settings = _settings(**given)
    try:
        databases = DatabaseWatch(read_database_settings())
    except SettingsError as error:
        raise Refusal(str(error)) from None
    filters: dict[str, Any] = {
        "wants_group": settings.wants_group(),
        "wants_topic": settings.wants_topic(),
    }
    with _collector(
        kafka,
        settings,
        connect=not wait,
        read_committed=settings.read_committed,
        hide_empty_groups=settings.hide_empty_groups,
        **filters,
    ) as collector:
        poller = Poller(
            collector,
            stale_after_s=settings.stale_after_seconds,
            cluster=settings.cluster,
            families=settings.families,
            level=settings.level,
            members=settings.member_metrics,
            rules=StatusRules(settings.status_allowed_lag, intervals=settings.status_polls),
            more_blocks=lambda: (*databases.blocks(), process.block()),
        )
        try:
            server = WebServer(
                create_app(poller, settings.login), settings.host, settings.port, settings.tls_files
            )
            port = server.bind()
        except (AddressError, CertificateError) as error:
            raise Refusal(str(error)) from None
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


@contextmanager
def _collector(
    kafka: KafkaSettings, settings: MonitorSettings, *, connect: bool = True, **filters: Any
) -> Iterator[Any]:
    """Yield a collector; with `connect`, refuse a cluster that can't be reached."""
    from monitor.kafka.collector import Collector, Intervals  # noqa: PLC0415  # see `lag`
    from monitor.kafka.questions import UnreachableError  # noqa: PLC0415
    from monitor.kafka.wire import KafkaWire, OptionsError  # noqa: PLC0415

    intervals = Intervals(
        settings.request_timeout,
        settings.metadata_interval,
        settings.start_offsets_interval,
        topic_configs=settings.topic_configs_interval,
        log_sizes=settings.log_sizes_interval if settings.log_sizes else None,
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
