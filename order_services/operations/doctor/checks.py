"""What the facts mean: pure functions, one for each item of the checklist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from order_services.domain.topics import (
    ANALYTICS_GROUP,
    GATEWAY_GROUP,
    GROUPS,
    INVENTORY_GROUP,
    PAYMENT_GROUP,
    SHIPPING_GROUP,
    TOPICS,
    ConsumerGroup,
)
from order_services.operations.doctor.connections import Pooler, Server
from order_services.operations.doctor.findings import Check, Finding, unknown, well, wrong
from order_services.operations.doctor.members import Group
from order_services.operations.doctor.replicas import Answers, Samples
from order_services.operations.topic_admin import Difference

GROUP_OF_SERVICE: Final[Mapping[str, ConsumerGroup]] = {
    "gateway": GATEWAY_GROUP,
    "payment": PAYMENT_GROUP,
    "inventory": INVENTORY_GROUP,
    "shipping": SHIPPING_GROUP,
    "analytics": ANALYTICS_GROUP,
}
# A monitor that has not polled for so many of its intervals shows the past.
STALE_INTERVALS: Final = 3
_TRY_AGAIN: Final = "ask again in a few seconds"


def topics(differences: Sequence[Difference]) -> Iterator[Finding]:
    """Compare topics with their declaration."""
    if not differences:
        yield well(Check.TOPICS, f"all {len(TOPICS)} topics are as declared")
    for each in differences:
        yield wrong(Check.TOPICS, f"{each.topic} {each.what}", f"order-services {each.remedy}")


def partitions(groups: Mapping[str, Group], counts: Mapping[str, int]) -> Iterator[Finding]:
    """Compare members with partitions; `counts` are the partitions of each topic that exists."""
    for service, declared in GROUP_OF_SERVICE.items():
        group = groups.get(declared.group_id)
        if group is None or not group.members:
            what = f"nobody is in {declared.group_id}: what it should read waits"
            yield wrong(Check.PARTITIONS, what, f"start {service}")
            continue
        if not group.stable:
            what = f"{declared.group_id} is handing its partitions on"
            yield unknown(Check.PARTITIONS, what, _TRY_AGAIN)
            continue
        there = sum(counts.get(topic, 0) for topic in declared.topics)
        held = sum(member.partitions for member in group.members)
        idle = sum(member.partitions == 0 for member in group.members)
        size = len(group.members)
        if idle:
            busiest = max(declared.topics, key=lambda topic: counts.get(topic, 0))
            yield wrong(
                Check.PARTITIONS,
                f"{idle} of {size} members of {declared.group_id} hold no partition",
                f"run at most {size - idle} of {service}, or give topics more partitions: "
                f"order-services topics alter {busiest} --partitions {size}",
            )
        elif held < there:
            yield wrong(
                Check.PARTITIONS,
                f"{declared.group_id} holds {held} of {there} partitions: what is in the others waits",
                "new partitions are noticed within 5 minutes; later, see the logs of " + service,
            )
        else:
            what = f"{size} in {declared.group_id} share {there} partitions"
            yield well(Check.PARTITIONS, what)


def groups(found: Mapping[str, Group], answers: Sequence[Answers]) -> Iterator[Finding]:
    """Tell whether all replicas of a service are in its group, and in no other."""
    strays = [
        (service, group.group_id, member.client_id)
        for service, declared in GROUP_OF_SERVICE.items()
        for group in found.values()
        if group.group_id != declared.group_id
        for member in group.members
        if member.client_id == f"{service}-service"
        or member.client_id.startswith(f"{service}-service-")
    ]
    for service, group_id, client_id in strays:
        yield wrong(
            Check.GROUPS,
            f"{client_id} is in {group_id}: it reads every message beside the other replicas",
            f"run it in {GROUP_OF_SERVICE[service].group_id}, as this release's services do",
        )
    running = Counter(each.replica.service for each in answers if each.silent is None)
    same = True
    for service, declared in GROUP_OF_SERVICE.items():
        group = found.get(declared.group_id)
        size = 0 if group is None else len(group.members)
        if running[service] > size:
            same = False
            yield wrong(
                Check.GROUPS,
                f"{running[service]} of {service} answer, and {size} are in {declared.group_id}",
                "see the logs of those that are missing: two with one INSTANCE_ID, or other brokers",
            )
        elif running[service] < size:
            same = False
            yield unknown(
                Check.GROUPS,
                f"{size} are in {declared.group_id}, and {running[service]} of {service} answer here",
                f"name every replica in {service.upper()}_URL, with commas between them",
            )
    if same and not strays:
        members = sum(running.values())
        yield well(Check.GROUPS, f"all {members} replicas are in the group of their service")


def pools(
    answers: Sequence[Answers], server: Server, pooler: Pooler | None, *, via_pooler: bool
) -> Iterator[Finding]:
    """Compare replicas x pool maximum with what the database, or its pooler, gives."""
    running = [each for each in answers if each.silent is None]
    silent = [each for each in running if each.pool_max is None]
    if silent:
        names = ", ".join(sorted(each.replica.url for each in silent))
        yield unknown(Check.POOLS, f"no pool is told by {names}", "look whether they are services")
    total = sum(each.pool_max or 0 for each in running)
    largest = max((each.pool_max or 0 for each in running), default=0)
    free = server.usable - server.others
    asked = f"{len(running)} replicas may open {total} connections"
    if not via_pooler:
        if total > free:
            yield wrong(
                Check.POOLS,
                f"{asked}, and PostgreSQL has {free} for them",
                "run fewer, lower DB_POOL_MAX, or put PgBouncer between (DB_VIA_PGBOUNCER=true)",
            )
        elif not silent:
            more = (free - total) // largest if largest else 0
            what = f"{asked} of PostgreSQL's {free}; {more} replicas more would fit"
            yield well(Check.POOLS, what)
        return
    if pooler is None:
        yield unknown(
            Check.POOLS,
            f"{asked} at PgBouncer, which was not asked",
            "say --pgbouncer postgresql://USER:PASSWORD@HOST:6432/pgbouncer, "
            "with one of its stats_users",
        )
        return
    before = len(silent)
    if total > pooler.max_clients:
        before += 1
        yield wrong(
            Check.POOLS,
            f"{asked}, and PgBouncer takes {pooler.max_clients} clients",
            "raise max_client_conn, or run fewer",
        )
    if pooler.pool_size > server.usable:
        before += 1
        yield wrong(
            Check.POOLS,
            f"PgBouncer may open {pooler.pool_size} connections of each pool, and PostgreSQL has "
            f"{server.usable}",
            "lower default_pool_size, or raise max_connections",
        )
    if pooler.mode != "transaction":
        before += 1
        yield wrong(
            Check.POOLS,
            f"PgBouncer's pool_mode is {pooler.mode}: a client keeps its connection, so nothing is shared",
            "set pool_mode = transaction",
        )
    if not before:
        yield well(
            Check.POOLS,
            f"{asked} of PgBouncer's {pooler.max_clients}, on {pooler.pool_size} of PostgreSQL's "
            f"{server.usable}",
        )


def balancer(
    gateways: int, url: str | None, status: int | None, silent: str | None
) -> Iterator[Finding]:
    """Tell whether orders reach the gateways by one address; `status` is that of its /ready."""
    if url is None:
        if gateways <= 1:
            yield well(Check.BALANCER, "one gateway needs none")
        else:
            yield unknown(
                Check.BALANCER,
                f"{gateways} gateways, and no balancer is named",
                "say --balancer URL",
            )
    elif silent is not None:
        yield wrong(
            Check.BALANCER,
            f"{url} does not answer: {silent}",
            "start it; deploy/nginx has its configuration",
        )
    elif status != 200:
        yield wrong(
            Check.BALANCER,
            f"{url} answered {status} for the gateways' /ready",
            "see the balancer's log for which gateways it reaches",
        )
    else:
        yield well(Check.BALANCER, f"{url} reaches a gateway that takes orders")


def health(answers: Sequence[Answers]) -> Iterator[Finding]:
    """Tell what replicas say of themselves."""
    ill = False
    for each in answers:
        name = f"{each.replica.service} at {each.replica.url}"
        if each.silent is not None:
            ill = True
            where = f"{each.replica.service.upper()}_URL"
            yield wrong(
                Check.HEALTH,
                f"{name} does not answer: {each.silent}",
                f"start it, or say in {where} where it is",
            )
        for reason in each.reasons:
            ill = True
            yield wrong(Check.HEALTH, f"{name}: {reason}", "see its log")
    if not ill:
        yield well(Check.HEALTH, f"{len(answers)} replicas are alive and ready")


def lag(url: str, page: Samples | None, silent: str | None, now: float) -> Iterator[Finding]:
    """Tell whether somebody measures the lag of every group; `now` is a Unix time."""
    if page is None:
        yield wrong(
            Check.LAG,
            f"no lag monitor answers at {url}: {silent}",
            "start one (monitor serve), or say --monitor URL",
        )
        return
    ill = False
    interval = max(
        (value for _, value in page.get("kafka_monitor_poll_interval_seconds", ())), default=0
    )
    polled = max(
        (value for _, value in page.get("kafka_monitor_last_poll_timestamp_seconds", ())), default=0
    )
    if not any(value == 1 for _, value in page.get("kafka_monitor_up", ())):
        ill = True
        yield wrong(Check.LAG, f"the monitor at {url} reaches no broker", "see its page and log")
    elif now - polled > STALE_INTERVALS * interval + STALE_INTERVALS:
        ill = True
        what = f"the monitor at {url} polled last {now - polled:.0f} s ago"
        yield wrong(Check.LAG, what, "see its page and log")
    seen = {
        labels.get("consumergroup") for labels, _ in page.get("kafka_consumergroup_lag_sum", ())
    }
    for declared in GROUPS:
        if declared.group_id not in seen:
            ill = True
            yield wrong(
                Check.LAG,
                f"the monitor at {url} shows no lag of {declared.group_id}",
                "see whether it may describe the group, whether the group has committed, and the "
                "monitor's MONITOR_GROUPS_ALLOW",
            )
    if not ill:
        yield well(Check.LAG, f"the monitor at {url} measures all {len(GROUPS)} groups")
