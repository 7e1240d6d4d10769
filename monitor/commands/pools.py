"""`monitor pools`: the services' connection pools against what the databases take."""

from __future__ import annotations

import csv
import io
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, NoReturn

import click
import orjson

from monitor.commands import options
from monitor.commands.numbers import Number
from monitor.configuration import read_configuration
from monitor.pools.analysis import analyse
from monitor.pools.collector import DatabaseCollector
from monitor.pools.model import DatabaseSnapshot
from monitor.pools.report import OneMore, Outcome, PoolReport, ServiceUse
from monitor.settings import SettingsError
from monitor.words import columns, safe, shorten

WIDTH: Final = 80
_SERVICE_WIDTH: Final = 18

_COLUMNS: Final = (
    "service", "replicas", "pool_max", "total", "open", "in_use", "waiting", "timeouts", "via",
    "one_more", "one_more_where", "one_more_by", "one_more_left",
)  # fmt: skip


@click.command("pools")
@options.config
@click.option("--database-url", metavar="URL",
              help="PostgreSQL, as a URL or DSN. Others can see a password given here: better say "
              "MONITOR_DATABASE_URL.")  # fmt: skip
@click.option("--pgbouncer-url", metavar="URL",
              help="PgBouncer's admin console; better MONITOR_PGBOUNCER_URL.")  # fmt: skip
@click.option("--service-url", "service_urls", multiple=True, metavar="[NAME=]URL",
              help="A replica whose /metrics has its pool; repeatable, or MONITOR_SERVICE_URLS "
              "separated by commas.")  # fmt: skip
@click.option("--pool-max", type=click.IntRange(1, 100_000),
              help="Assume this pool max where a replica's own is not read.")  # fmt: skip
@click.option("--timeout", type=Number(0.1, 60), metavar="SECONDS",
              help="What each source gets to answer; 2 unless MONITOR_DATABASE_TIMEOUT says "
              "otherwise.")  # fmt: skip
@click.option("--output", type=click.Choice(["table", "json", "csv"]), default="table",
              show_default=True)  # fmt: skip
def pools(
    *,
    config: Path | None,
    database_url: str | None,
    pgbouncer_url: str | None,
    service_urls: tuple[str, ...],
    pool_max: int | None,
    timeout: float | None,
    output: str,
) -> None:
    """Show replicas x pool max of each service against the databases' limits.

    And what would happen with one replica more. A replica is a connection whose application name
    ends in a number, as payment-service-1; a role with pg_monitor sees all that is needed.
    """
    try:
        settings = read_configuration(
            config,
            database_url=database_url,
            pgbouncer_url=pgbouncer_url,
            service_urls=service_urls or None,
            pool_max=pool_max,
            database_timeout=timeout,
        ).databases
    except SettingsError as error:
        _fail(str(error))
    if settings.postgres_address is None and settings.pgbouncer_address is None:
        _fail("no database is named: say --database-url or set MONITOR_DATABASE_URL")
    collector = DatabaseCollector(settings)
    snapshot = collector.collect()
    collector.close()
    databases = [r for r in (snapshot.postgres, snapshot.pgbouncer) if r is not None]
    if all(reading.value is None for reading in databases):
        _fail("; ".join(f"can't reach {reading.source}: {reading.error}" for reading in databases))
    report = analyse(snapshot, settings.pool_max)
    render = {"table": _table, "json": _json, "csv": _csv}[output]
    click.echo(render(snapshot, report), nl=False)
    if output != "table":
        for line in report.errors:
            click.echo(f"monitor pools: {line}", err=True)


def _fail(message: str) -> NoReturn:
    lines = " | ".join(message.splitlines())
    click.echo(f"monitor pools: {lines}", err=True)
    sys.exit(2)


def _json(snapshot: DatabaseSnapshot, report: PoolReport) -> str:
    content = asdict(report)
    for service, use in zip(content["services"], report.services, strict=True):
        service["one_more"]["text"] = str(use.one_more)
    for budget, source in zip(content["budgets"], report.budgets, strict=True):
        budget["left"] = source.left
    content["taken_at"] = snapshot.taken_at
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n"


def _csv(_snapshot: DatabaseSnapshot, report: PoolReport) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for use in report.services:
        more = use.one_more
        writer.writerow([
            use.service, use.replicas, use.pool_max, use.total, use.open, use.in_use, use.waiting,
            use.timeouts, use.via, more.outcome, more.where, more.by, more.left,
        ])  # fmt: skip
    return text.getvalue()


def _table(snapshot: DatabaseSnapshot, report: PoolReport) -> str:
    parts = [_services(report.services), _budgets(report), _bouncer(report), _rest(report)]
    if snapshot.postgres is not None and snapshot.postgres.value is not None:
        server = snapshot.postgres.value
        parts.insert(
            2,
            f"PostgreSQL takes {server.max_connections}: {server.superuser_reserved_connections} "
            f"for superusers, {server.reserved_connections} reserved, {server.budget} for "
            "services\n",
        )
    return "\n".join(part for part in parts if part)


def _services(services: Sequence[ServiceUse]) -> str:
    if not services:
        return (
            "No service was seen: none has connections with a numbered application name, as "
            "payment-1.\n"
        )
    rows = [
        [
            shorten(safe(use.service), _SERVICE_WIDTH), use.replicas, use.pool_max, use.total, use.open,
            use.in_use, use.waiting,
        ]
        for use in services
    ]  # fmt: skip
    header = ["SERVICE", "REPL", "MAX", "TOTAL", "OPEN", "USED", "WAIT"]
    lines = columns([header, *rows], left={0}).splitlines()
    room = WIDTH - len(lines[0]) - 2
    endings = ["ONE REPLICA MORE", *(_one_more(use.one_more, room) for use in services)]
    return "".join(f"{line}  {ending}\n" for line, ending in zip(lines, endings, strict=True))


def _one_more(more: OneMore, room: int) -> str:
    text = str(more)
    if len(text) > room and more.outcome is Outcome.EXCEEDS:
        text = f"exceeds by {more.by}"  # the limits below say which
    return text


def _budgets(report: PoolReport) -> str:
    rows = [
        [
            shorten(safe(b.where), 30), b.limit, b.open,
            b.committed if b.is_complete else f">={b.committed}", b.left if b.is_complete else f"<={b.left}",
        ]
        for b in report.budgets
    ]  # fmt: skip
    header = ["LIMIT", "TAKES", "OPEN", "PROMISED", "LEFT"]
    return columns([header, *rows], left={0}) if rows else ""


def _bouncer(report: PoolReport) -> str:
    rows = [
        [
            shorten(safe(f"{q.database}/{q.user}"), 30), q.size, q.servers, q.server_active, q.clients,
            q.waiting, f"{q.maxwait_seconds:.1f} s",
        ]
        for q in report.queues
    ]  # fmt: skip
    header = ["PGBOUNCER POOL", "SIZE", "SERVERS", "ACTIVE", "CLIENTS", "WAIT", "LONGEST"]
    return columns([header, *rows], left={0}) if rows else ""


def _rest(report: PoolReport) -> str:
    paragraphs = []
    if report.others:
        names = ", ".join(f"{name} {count}" for name, count in report.others.items())
        paragraphs.append(f"Other connections: {names}")
    paragraphs += [f"! {line}" for line in report.advice]
    paragraphs += [f"not read: {line}" for line in report.errors]
    lines = [
        textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for text in paragraphs
    ]
    return "".join(f"{line}\n" for line in lines)
