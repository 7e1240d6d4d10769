"""Break the shop at random: kill, freeze, restart and scale, all from one seed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from order_services.local.process import ManagedProcess
from tests.crash.shop import Shop

EVERYTHING: Mapping[str, float] = {
    "kill": 10,
    "kill beside a frozen server": 3,
    "kill broker": 1,
    "kill postgres": 1.5,
    "freeze": 3,
    "freeze server": 0.7,
    "scale": 3,
    "stop": 1,
}
# A process dies while it waits for the broker or the database: half of what it does is done.
AT_THE_WORST_MOMENT: Mapping[str, float] = {"kill beside a frozen server": 1}
SCALABLE = {"gateway": (1, 2), "payment": (1, 3), "inventory": (1, 2), "shipping": (1, 2)}


@dataclass
class Chaos:
    """Do `kills` kills with other mishaps between them; `done` counts what happened."""

    shop: Shop
    seed: int
    kills: int
    pause_s: float = 1.0
    mishaps: Mapping[str, float] = field(default_factory=lambda: EVERYTHING)
    done: Counter[str] = field(default_factory=Counter)
    say: Callable[[str], None] = lambda _: None

    def run(self) -> None:
        """Return when the last kill is done; what was killed last may still be down."""
        choice = random.Random(self.seed)
        while self.killed < self.kills:
            time.sleep(choice.expovariate(1 / self.pause_s))
            kind = choice.choices(
                (
                    "kill",
                    "kill broker",
                    "kill postgres",
                    "freeze",
                    "freeze server",
                    "scale",
                    "stop",
                ),
                (10, 1, 1.5, 3, 0.7, 3, 1),
            )[0]
            what = self._mishap(kind, choice)
            self.say(f"{self.killed}/{self.kills} {kind} {what}")

    @property
    def killed(self) -> int:
        """How many processes were killed with SIGKILL."""
        return sum(count for kind, count in self.done.items() if kind.startswith("kill"))

    def _mishap(self, kind: str, choice: random.Random) -> str:
        shop = self.shop
        self.done[kind] += 1
        if kind == "scale":
            service = choice.choice(list(SCALABLE))
            count = choice.randint(*SCALABLE[service])
            shop.scale(service, count)
            return f"{service} to {count}"
        if kind == "kill broker":
            shop.broker.kill()
            return self._restart(choice, "broker")
        if kind == "kill postgres":
            shop.postgres.kill()
            return self._restart(choice, "postgres")
        if "server" in kind:
            server = choice.choice((shop.broker, shop.postgres))
            server.pause()
            time.sleep(choice.uniform(0.5, 3))
            victims = self._victims(choice) if kind.startswith("kill") else []
            for victim in victims:
                victim.kill()
            server.resume()
            shop.revive()
            return f"{type(server).__name__} {' '.join(victim.name for victim in victims)}"
        with shop.lock:
            name, process = choice.choice(list(shop.replicas.items()))
        if kind == "freeze":
            # longer than the session at times: the member is thought dead and comes back
            process.pause()
            time.sleep(choice.choice((0.3, 1.0, 9.0)))
            process.resume()
        elif kind == "stop":
            process.stop(timeout_s=30)
            self._restart(choice, name)
        else:
            process.kill()
            self._restart(choice, name)
        return name

    def _victims(self, choice: random.Random) -> list[ManagedProcess]:
        """Pick all replicas of one service: none is left to make up for the others."""
        shop = self.shop
        with shop.lock:
            service = choice.choice(sorted({spec.service for spec in shop.specs.values()}))
            return [
                shop.replicas[name] for name in shop.replicas if shop.specs[name].service == service
            ]

    def _restart(self, choice: random.Random, name: str) -> str:
        time.sleep(choice.uniform(0, 1.5))
        self.shop.revive()
        return name
