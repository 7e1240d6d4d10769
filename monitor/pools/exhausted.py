"""Which pools of database connections are used up, as the cause of a group's lag needs to know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.analysis.causes.symptoms import Pool, Pools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.pools.report import PoolReport


def pools_of(report: PoolReport, group: str) -> Pools:
    """Return the pools that are used up: somebody waits for a connection, or none is left to have.

    A service is the group's own if the group is called after it: `payment-service-group` is that of
    `payment-service`, and of `payment`.
    """
    found = (*_services(report, group), *_queues(report), *_budgets(report))
    looked_at = len(report.services) + len(report.queues) + len(report.budgets)
    return Pools(found, looked_at)


def _services(report: PoolReport, group: str) -> Iterator[Pool]:
    for service in report.services:
        if service.waiting:
            yield Pool(
                f"the pool of {service.service}", _is_of(service.service, group),
                service.waiting, None, service.in_use, service.total,
            )  # fmt: skip


def _queues(report: PoolReport) -> Iterator[Pool]:
    for queue in report.queues:
        if queue.waiting:
            yield Pool(
                f"PgBouncer's pool {queue.database}", False,
                queue.waiting, queue.maxwait_seconds, queue.server_active, queue.size,
            )  # fmt: skip


def _budgets(report: PoolReport) -> Iterator[Pool]:
    for budget in report.budgets:
        if budget.open >= budget.limit:
            yield Pool(budget.where, False, 0, None, budget.open, budget.limit)


def _is_of(service: str, group: str) -> bool:
    name = service.removesuffix("-service")
    return group == name or group.startswith((f"{name}-", f"{name}.", f"{name}_"))
