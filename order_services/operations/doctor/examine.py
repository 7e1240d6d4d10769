"""Asks everybody once, and has the checks judge: what one does not answer costs its own items only."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from confluent_kafka.admin import AdminClient
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from order_services.operations import topic_admin
from order_services.operations.doctor import checks, connections, failover, members, replicas
from order_services.operations.doctor.findings import Check, Finding, unknown, wrong
from order_services.process.settings import ServiceSettings
from order_services.storage.database import Database


@dataclass(frozen=True, slots=True)
class Trial:
    """A failover that somebody will bring about while the doctor watches."""

    service: str
    seconds: float
    say: Callable[[str], None]


@dataclass(frozen=True)
class Examination:
    """Whom to ask. `admin` is None where no broker answers, `kafka_silent` says why then."""

    settings: ServiceSettings
    urls: Mapping[str, Sequence[str]]
    monitor_url: str
    admin: AdminClient | None = None
    kafka_silent: str = ""
    balancer_url: str | None = None
    pooler_url: URL | None = None
    trial: Trial | None = None

    def findings(self, wanted: Collection[Check] = tuple(Check)) -> list[Finding]:
        """Return what the wanted checks find, in the checklist's order."""
        by_check: Mapping[Check, Callable[[], Iterable[Finding]]] = {
            Check.TOPICS: self._topics,
            Check.PARTITIONS: self._partitions,
            Check.GROUPS: self._groups,
            Check.POOLS: self._pools,
            Check.BALANCER: self._balancer,
            Check.HEALTH: lambda: checks.health(self._answers),
            Check.LAG: self._lag,
            Check.FAILOVER: self._failover,
        }
        return [
            finding for check, of_it in by_check.items() if check in wanted for finding in of_it()
        ]

    # -- asking --------------------------------------------------------------------------------

    @cached_property
    def _answers(self) -> list[replicas.Answers]:
        return replicas.ask_all(replicas.everywhere(self.urls))

    def _of_kafka(
        self, check: Check, judge: Callable[[AdminClient], Iterable[Finding]]
    ) -> Iterator[Finding]:
        cause = self.kafka_silent
        if self.admin is not None:
            try:
                yield from judge(self.admin)
            except (topic_admin.TopicError, members.GroupsError) as error:
                cause = str(error)
            else:
                return
        yield unknown(
            check,
            f"Kafka does not tell: {cause}",
            "say --kafka HOST:PORT, or see the brokers' logs",
        )

    # -- the items -----------------------------------------------------------------------------

    def _topics(self) -> Iterator[Finding]:
        return self._of_kafka(Check.TOPICS, lambda admin: checks.topics(topic_admin.check(admin)))

    def _partitions(self) -> Iterator[Finding]:
        return self._of_kafka(
            Check.PARTITIONS,
            lambda admin: list(checks.partitions(members.read(admin), _counts(admin))),
        )

    def _groups(self) -> Iterator[Finding]:
        return self._of_kafka(
            Check.GROUPS, lambda admin: list(checks.groups(members.read(admin), self._answers))
        )

    def _pools(self) -> Iterator[Finding]:
        pooler, database = None, Database(self.settings)
        try:
            with database.begin() as connection:
                server = connections.server(connection)
            if self.pooler_url is not None:
                pooler = connections.pooler(self.pooler_url)
        except SQLAlchemyError as error:
            # the driver's text names host and user
            what = f"the services' database does not answer ({type(error).__name__})"
            yield wrong(Check.POOLS, what, "say --database URL, or see PostgreSQL's log")
        except connections.PoolerError as error:
            what = f"PgBouncer's console does not answer ({error})"
            yield unknown(Check.POOLS, what, "say --pgbouncer URL, with one of its stats_users")
        else:
            via = self.settings.db_via_pgbouncer or pooler is not None
            yield from checks.pools(self._answers, server, pooler, via_pooler=via)
        finally:
            database.close()

    def _balancer(self) -> Iterator[Finding]:
        status, silent = None, None
        if self.balancer_url is not None:
            try:
                status, _ = replicas.get(f"{self.balancer_url}/ready")
            except replicas.SilentError as error:
                silent = str(error)
        gateways = sum(each.replica.service == "gateway" for each in self._answers)
        return checks.balancer(gateways, self.balancer_url, status, silent)

    def _lag(self) -> Iterator[Finding]:
        page, silent = None, None
        try:
            page = replicas.samples(f"{self.monitor_url}/metrics")
        except replicas.SilentError as error:
            silent = str(error)
        return checks.lag(self.monitor_url, page, silent, time.time())

    def _failover(self) -> Iterator[Finding]:
        trial = self.trial
        if trial is None:
            yield failover.not_tried()
            return
        group = checks.GROUP_OF_SERVICE[trial.service]

        def watch(admin: AdminClient) -> Iterator[Finding]:
            counts = _counts(admin)
            yield failover.tried(
                trial.service,
                lambda: members.read_one(admin, group.group_id),
                sum(counts.get(topic, 0) for topic in group.topics),
                seconds=trial.seconds,
                say=trial.say,
            )

        yield from self._of_kafka(Check.FAILOVER, watch)


def _counts(admin: AdminClient) -> dict[str, int]:
    return {each.name: len(each.partitions) for each in topic_admin.describe(admin)}
