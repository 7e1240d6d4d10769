"""`order-services doctor`: the scaling guide's checklist, asked of a running system."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import click
from sqlalchemy.engine import URL

from order_services.cli.database import database_option, database_url, settings_with
from order_services.cli.failing import EXIT_FAILED
from order_services.cli.kafka import client, kafka_option
from order_services.cli.printing import output_option, print_json
from order_services.domain.services import PORTS, SERVICES
from order_services.operations.doctor.examine import Examination, Trial
from order_services.operations.doctor.findings import Check, Finding, Verdict

EXIT_UNKNOWN: Final = 3
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[^\s,?#]*)?")
_WORDS: Final[Mapping[Verdict, str]] = {
    Verdict.WELL: "ok",
    Verdict.WRONG: "WRONG",
    Verdict.UNKNOWN: "unknown",
}


def _url(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None or _URL.fullmatch(value):
        return None if value is None else value.rstrip("/")
    raise click.BadParameter("say http://HOST:PORT")


def _urls(
    _context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> Mapping[str, Sequence[str]]:
    found: dict[str, Sequence[str]] = {
        service: (f"http://127.0.0.1:{port}",) for service, port in PORTS.items()
    }
    told = [
        f"{service}={urls}"
        for service in SERVICES
        if (urls := os.environ.get(f"{service.upper()}_URL"))
    ]
    # the command line comes last, and counts
    for value in (*told, *values):
        service, _, urls = value.partition("=")
        each = tuple(url.strip() for url in urls.split(","))
        if service not in SERVICES or not all(map(_URL.fullmatch, each)):
            raise click.BadParameter(
                f"{value!r}: say SERVICE=http://HOST:PORT[,http://HOST:PORT], with one of "
                f"{', '.join(SERVICES)}",
                param=parameter,
            )
        found[service] = each
    return found


@click.command("doctor")
@kafka_option
@database_option
@click.option("--pgbouncer", "pooler", callback=database_url, metavar="URL", envvar="PGBOUNCER_URL",
              help="PgBouncer's console, as one of its stats_users; else PGBOUNCER_URL.")  # fmt: skip
@click.option("--replicas", "urls", multiple=True, callback=_urls, metavar="SERVICE=URL[,URL]",
              help="Where a service's replicas are; else GATEWAY_URL, PAYMENT_URL, ... or its port here. "
                   "A name that stands for several is looked up.")  # fmt: skip
@click.option("--balancer", callback=_url, metavar="URL", envvar="BALANCER_URL",
              help="What stands in front of the gateways; else BALANCER_URL.")  # fmt: skip
@click.option("--monitor", callback=_url, metavar="URL", envvar="MONITOR_URL",
              default="http://127.0.0.1:9308", show_default=True,
              help="The lag monitor; else MONITOR_URL.")  # fmt: skip
@click.option("--try-failover", "service", type=click.Choice(SERVICES),
              help="Watch its group while you stop one of its replicas.")  # fmt: skip
@click.option("--for", "seconds", type=click.FloatRange(1, 3_600), default=120, show_default=True,
              help="How long to wait for it at most.")  # fmt: skip
@click.option("--skip", multiple=True, type=click.Choice([check.value for check in Check]),
              help="Leave an item out.")  # fmt: skip
@output_option
def command(
    *,
    brokers: str,
    database: URL | None,
    pooler: URL | None,
    urls: Mapping[str, Sequence[str]],
    balancer: str | None,
    monitor: str,
    service: str | None,
    seconds: float,
    skip: tuple[str, ...],
    output: str,
) -> None:
    """Go through the scaling checklist: what is well, what is wrong, and what to do.

    Topics against their declaration, partitions against replicas, groups across replicas, pools
    against what databases give, the balancer, health, lag, failover. Changes nothing. Exit code 0:
    all is well; 1: something is wrong; 3: nothing is wrong, and something could not be asked.
    """
    settings = settings_with(database)
    admin, silent = client(brokers)

    def say(text: str) -> None:
        click.echo(f"==> {text}", err=True)

    examination = Examination(
        settings=settings,
        urls=urls,
        monitor_url=monitor,
        admin=admin,
        kafka_silent=silent,
        balancer_url=balancer,
        pooler_url=pooler,
        trial=None if service is None else Trial(service, seconds, say),
    )
    found = examination.findings([check for check in Check if check.value not in skip])
    if output == "json":
        print_json([asdict(each) for each in found])
    else:
        for each in found:
            _print(each)
    verdicts = {each.verdict for each in found}
    if Verdict.WRONG in verdicts:
        sys.exit(EXIT_FAILED)
    if Verdict.UNKNOWN in verdicts:
        sys.exit(EXIT_UNKNOWN)


def _print(finding: Finding) -> None:
    # what others sent, as a group's id, must not move the cursor
    what = "".join(c if c.isprintable() else repr(c)[1:-1] for c in finding.what)
    click.echo(f"{_WORDS[finding.verdict]:<8} {finding.check.value:<11} {what}")
    if finding.remedy:
        click.echo(f"{'':<20} -> {finding.remedy}")
