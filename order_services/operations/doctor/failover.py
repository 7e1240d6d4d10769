"""Watches whether the others take over while somebody stops a member of a group."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from order_services.operations.doctor.findings import Check, Finding, unknown, well, wrong
from order_services.operations.doctor.members import Group

PAUSE_SECONDS: Final = 0.5


def not_tried() -> Finding:
    """Return what is so where nobody asked for a trial."""
    return unknown(
        Check.FAILOVER,
        "no failover was tried",
        "say --try-failover payment, and stop one of its replicas when asked to; "
        "docs/failover.md says what else to try",
    )


def tried(
    service: str,
    read: Callable[[], Group],
    partitions: int,
    *,
    seconds: float,
    say: Callable[[str], None],
) -> Finding:
    """Ask for a replica to be stopped, and wait until the others hold all partitions again.

    Waits for `seconds` at most for each: that a member leaves, and that its partitions are taken.
    """
    before = read()
    size = len(before.members)
    if size < 2:
        return wrong(
            Check.FAILOVER,
            f"{before.group_id} has {size} members: nobody would take over",
            f"run two replicas of {service} or more",
        )
    say(f"stop or kill one of the {size} replicas of {service} now")
    clients = {member.client_id for member in before.members}
    if not _wait(lambda: len(read().members) < size, seconds):
        return unknown(
            Check.FAILOVER,
            f"all {size} members of {before.group_id} were still there after {seconds:g} s",
            "try again; a killed member is missed after SESSION_TIMEOUT_SECONDS",
        )
    left = time.monotonic()

    def taken() -> bool:
        group = read()
        held = sum(member.partitions for member in group.members)
        return group.stable and held >= partitions

    if not _wait(taken, seconds):
        return wrong(
            Check.FAILOVER,
            f"a member left {before.group_id}, and its partitions were with nobody {seconds:g} s later",
            f"see the logs of {service}",
        )
    after = read()
    gone = ", ".join(sorted(clients - {member.client_id for member in after.members})) or "a member"
    took = time.monotonic() - left
    return well(
        Check.FAILOVER,
        f"{gone} left {before.group_id}, and the others held its partitions {took:.0f} s later",
    )


def _wait(so: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        if so():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_SECONDS)
