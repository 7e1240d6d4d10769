"""What the doctor makes of facts: each item on a system that is well, and on ones that are not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from click.testing import CliRunner

from order_services.cli import cli
from order_services.domain.services import SERVICES
from order_services.domain.topics import GROUPS, TOPIC_OF_NAME, TOPICS
from order_services.local.ports import LOOPBACK, free_port
from order_services.operations.doctor import checks, failover
from order_services.operations.doctor.connections import Pooler, Server
from order_services.operations.doctor.findings import Finding, Verdict
from order_services.operations.doctor.members import Group, Member
from order_services.operations.doctor.replicas import Answers, Replica
from order_services.operations.topic_admin import Difference

COUNTS = {topic.name: topic.partitions for topic in TOPICS}
NOW = 1_000_000.0


def group(service: str, *partitions: int, stable: bool = True, group_id: str = "") -> Group:
    declared = checks.GROUP_OF_SERVICE[service]
    members = tuple(
        Member(f"{service}-service-{number}", held) for number, held in enumerate(partitions, 1)
    )
    return Group(group_id or declared.group_id, stable, members)


def healthy(**changed: Group | None) -> dict[str, Group]:
    """Return every group with two members that share all partitions; changed ones by service."""
    found = {}
    for service, declared in checks.GROUP_OF_SERVICE.items():
        total = sum(COUNTS[topic] for topic in declared.topics)
        one = changed.get(service, group(service, total // 2, total - total // 2))
        if one is not None:
            found[one.group_id] = one
    return found


def answers(count: int = 2, pool_max: int | None = 5, **counts: int) -> list[Answers]:
    return [
        Answers(Replica(service, f"http://{service}-{number}:1"), (), pool_max)
        for service in SERVICES
        for number in range(counts.get(service, count))
    ]


def verdicts(findings: Iterator[Finding]) -> list[str]:
    found = list(findings)
    for each in found:
        assert bool(each.remedy) == (each.verdict is not Verdict.WELL), each
    return [each.verdict.value for each in found]


def test_topics_that_differ_come_with_the_command_that_mends_them() -> None:
    assert verdicts(checks.topics([])) == ["well"]
    (found,) = checks.topics([Difference("orders", "does not exist", "topics create")])
    assert (found.verdict, found.what) == (Verdict.WRONG, "orders does not exist")
    assert found.remedy == "order-services topics create"


def test_members_share_all_partitions() -> None:
    assert verdicts(checks.partitions(healthy(), COUNTS)) == ["well"] * 5


@pytest.mark.parametrize(
    ("payment", "expected", "told"),
    [
        (group("payment", 1, 1, 1, 1, 1, 1, 0, 0), "wrong", "2 of 8 members"),
        (group("payment", 2, 2), "wrong", "holds 4 of 6 partitions"),
        (group("payment", 6, 0, stable=False), "unknown", "handing its partitions on"),
        (group("payment"), "wrong", "nobody is in payment-service-group"),
        (None, "wrong", "nobody is in payment-service-group"),
    ],
)
def test_members_and_partitions_that_do_not_fit_are_told(
    payment: Group | None, expected: str, told: str
) -> None:
    found = list(checks.partitions(healthy(payment=payment), COUNTS))
    (one,) = [each for each in found if each.verdict is not Verdict.WELL]
    assert one.verdict.value == expected
    assert told in one.what
    assert one.remedy


def test_more_members_than_partitions_are_told_how_many_are_useful() -> None:
    found = checks.partitions(healthy(payment=group("payment", 1, 1, 1, 1, 1, 1, 0)), COUNTS)
    (one,) = [each for each in found if each.verdict is Verdict.WRONG]
    assert "run at most 6 of payment" in one.remedy
    assert "topics alter orders --partitions 7" in one.remedy


def test_all_replicas_of_a_service_are_in_its_group() -> None:
    assert verdicts(checks.groups(healthy(), answers())) == ["well"]


def test_a_replica_in_another_group_is_named() -> None:
    stray = group("payment", 6, group_id="payment-service-group-2")
    alone = group("payment", 6)
    found = list(checks.groups(healthy(payment=alone) | {stray.group_id: stray}, answers()))
    assert [each.verdict.value for each in found] == ["wrong", "wrong"]
    assert "payment-service-1 is in payment-service-group-2" in found[0].what
    assert "2 of payment answer, and 1 are in payment-service-group" in found[1].what


def test_members_that_nobody_asked_are_no_fault_but_are_told() -> None:
    found = list(checks.groups(healthy(), answers(payment=1)))
    assert [each.verdict.value for each in found] == ["unknown"]
    assert "PAYMENT_URL" in found[0].remedy


@pytest.mark.parametrize(
    ("server", "pooler", "via", "expected"),
    [
        (Server(97, 10), None, False, ["well"]),
        (Server(50, 0), None, False, ["well"]),
        (Server(49, 0), None, False, ["wrong"]),
        (Server(97, 50), None, False, ["wrong"]),
        (Server(30, 0), Pooler(1000, 20, "transaction"), True, ["well"]),
        (Server(30, 0), Pooler(49, 20, "transaction"), True, ["wrong"]),
        (Server(19, 0), Pooler(1000, 20, "transaction"), True, ["wrong"]),
        (Server(97, 0), Pooler(1000, 20, "session"), True, ["wrong"]),
        (Server(19, 0), Pooler(49, 20, "session"), True, ["wrong"] * 3),
        (Server(97, 0), None, True, ["unknown"]),
    ],
)
def test_pools_fit_what_the_database_or_its_pooler_gives(
    server: Server,
    pooler: Pooler | None,
    via: bool,  # noqa: FBT001  # pytest gives it by name
    expected: list[str],
) -> None:
    # ten replicas with five connections each
    assert verdicts(checks.pools(answers(), server, pooler, via_pooler=via)) == expected


def test_a_pool_that_is_not_told_makes_no_sum_well() -> None:
    found = checks.pools(answers(pool_max=None), Server(97, 0), None, via_pooler=False)
    assert verdicts(found) == ["unknown"]


@pytest.mark.parametrize(
    ("gateways", "url", "status", "silent", "expected"),
    [
        (1, None, None, None, "well"),
        (2, None, None, None, "unknown"),
        (2, "http://b", 200, None, "well"),
        (2, "http://b", 502, None, "wrong"),
        (2, "http://b", None, "connection refused", "wrong"),
    ],
)
def test_several_gateways_have_one_address(
    gateways: int, url: str | None, status: int | None, silent: str | None, expected: str
) -> None:
    assert verdicts(checks.balancer(gateways, url, status, silent)) == [expected]


def test_each_replica_that_is_ill_or_silent_is_named() -> None:
    assert verdicts(checks.health(answers())) == ["well"]
    ill = [
        *answers(),
        Answers(Replica("payment", "http://x:1"), ("database: away",), 5),
        Answers(Replica("shipping", "http://y:1"), silent="connection refused"),
    ]
    found = list(checks.health(ill))
    assert [each.verdict.value for each in found] == ["wrong", "wrong"]
    assert found[0].what == "payment at http://x:1: database: away"
    assert "SHIPPING_URL" in found[1].remedy


def page(age: float = 1, up: float = 1, groups: Sequence[str] | None = None) -> Any:
    ids = [each.group_id for each in GROUPS] if groups is None else groups
    return {
        "kafka_monitor_up": [({}, up)],
        "kafka_monitor_poll_interval_seconds": [({}, 5.0)],
        "kafka_monitor_last_poll_timestamp_seconds": [({}, NOW - age)],
        "kafka_consumergroup_lag_sum": [({"consumergroup": each}, 0.0) for each in ids],
    }


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        (page(), 0),
        (page(age=60), 1),
        (page(up=0), 1),
        (page(groups=["payment-service-group"]), 4),
        ({}, 6),
        (None, 1),
    ],
)
def test_a_monitor_that_does_not_measure_is_told(seen: Any, wrong: int) -> None:
    found = verdicts(checks.lag("http://m", seen, "connection refused", NOW))
    assert found == (["wrong"] * wrong or ["well"])


class Scene:
    """A group that changes each time it is read, and stays at its last state."""

    def __init__(self, *states: Group) -> None:
        self._states = list(states)

    def __call__(self) -> Group:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


ALONE = Group("payment-service-group", True, (Member("payment-service-2", 6),))
NOBODY = Group("payment-service-group", False, ())


@pytest.mark.parametrize(
    ("states", "expected", "told"),
    [
        ([group("payment", 3, 3), ALONE], "well", "payment-service-1 left"),
        ([ALONE], "wrong", "1 members: nobody would take over"),
        ([group("payment", 3, 3)], "unknown", "were still there"),
        ([group("payment", 3, 3), NOBODY], "wrong", "with nobody"),
        ([group("payment", 3, 3), group("payment", 3)], "wrong", "with nobody"),
    ],
)
def test_a_failover_is_what_was_seen(
    states: list[Group], expected: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    said: list[str] = []
    found = failover.tried("payment", Scene(*states), 6, seconds=0.01, say=said.append)
    assert (found.verdict.value, told in found.what) == (expected, True), found
    assert bool(said) == (len(states[0].members) > 1)


# -- the command ---------------------------------------------------------------------------------


def doctor(*arguments: str, env: Mapping[str, str] | None = None) -> Any:
    return CliRunner().invoke(cli, ["doctor", *arguments], env=env)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--replicas", "payments=http://a:1"],
        ["--replicas", "payment=a:1"],
        ["--monitor", "a:1"],
        ["--balancer", "ftp://a"],
        ["--try-failover", "nobody"],
        ["--skip", "everything"],
        ["--for", "0"],
        ["--pgbouncer", "x"],
    ],
)
def test_what_it_cannot_use_is_refused(arguments: list[str]) -> None:
    answer = doctor(*arguments)
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output


def test_a_system_that_is_away_costs_no_answer_and_no_trace() -> None:
    away = free_port()
    address = f"http://{LOOPBACK}:{away}"
    answer = doctor(
        *("--kafka", f"{LOOPBACK}:{away}", "--monitor", address, "--balancer", address),
        *("--database", f"postgresql://u:a-secret@{LOOPBACK}:{away}/n"),
        *(part for service in SERVICES for part in ("--replicas", f"{service}={address}")),
    )
    assert answer.exit_code == 1
    assert isinstance(answer.exception, SystemExit)
    for item in (
        "topics",
        "partitions",
        "groups",
        "pools",
        "balancer",
        "health",
        "lag",
        "failover",
    ):
        assert f" {item} " in answer.output
    assert "Traceback" not in answer.output
    assert "a-secret" not in answer.output
    assert "\nok " not in answer.output


def test_the_groups_of_all_services_are_known() -> None:
    assert set(checks.GROUP_OF_SERVICE) == set(SERVICES)
    assert set(checks.GROUP_OF_SERVICE.values()) == set(GROUPS)
    assert {topic for each in GROUPS for topic in each.topics} <= set(TOPIC_OF_NAME)
