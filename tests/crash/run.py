"""One crash run: orders, mishaps, quiet, and the count."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.chaos import EVERYTHING, SERVICES, Chaos
from tests.crash.customers import Customers
from tests.crash.fragile import fragile_command
from tests.crash.reconcile import QUIET_TIMEOUT_S, Verdict, reconcile, wait_until_quiet
from tests.crash.shop import Shop

REPLICAS: Mapping[str, int] = {
    "gateway": 2,
    "payment": 2,
    "inventory": 2,
    "shipping": 1,
    "analytics": 1,
}


@dataclass(frozen=True)
class Report:
    """What a run did and what the count found."""

    accepted: int
    mishaps: Counter[str]
    kills: int
    seconds_to_ready: float
    seconds_to_quiet: float
    verdict: Verdict

    def __str__(self) -> str:
        mishaps = ", ".join(f"{kind} {count}" for kind, count in sorted(self.mishaps.items()))
        return (
            f"accepted {self.accepted}  kills {self.kills}  ({mishaps})\n"
            f"recovered: all ready {self.seconds_to_ready:.1f} s and all quiet "
            f"{self.seconds_to_quiet:.1f} s after the last mishap\n{self.verdict}"
        )


def crash_run(
    directory: Path,
    *,
    kills: int,
    seed: int,
    rate: float = 25.0,
    pause_s: float = 1.0,
    mishaps: Mapping[str, float] = EVERYTHING,
    targets: Sequence[str] = SERVICES,
    command: Callable[[str], list[str]] = fragile_command,
    quiet_timeout_s: float = QUIET_TIMEOUT_S,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run the shop under load with `kills` kills, then account for every order."""
    shop = Shop(directory, command)
    customers = Customers(lambda: shop.gateways, rate, seed)
    chaos = Chaos(shop, seed, kills, pause_s, mishaps, targets, say=say)
    try:
        say("starting the shop")
        shop.start(REPLICAS)
        customers.start()
        chaos.run()
        ready = shop.wait_until_ready()
        customers.stop()
        say("quiet: waiting until every order has come to its end")
        started = time.monotonic()
        calm = wait_until_quiet(shop.address, shop.broker.bootstrap_servers, quiet_timeout_s)
        if not calm:
            say("it never got quiet: counting what there is")
        quiet = time.monotonic() - started
        say("counting")
        verdict = reconcile(customers.ledger, shop.address, shop.broker.bootstrap_servers)
        verdict.wrong += chaos.complaints
    finally:
        customers.stop()
        shop.stop()
    return Report(len(customers.ledger.accepted), chaos.done, chaos.killed, ready, quiet, verdict)
