"""Break the shop at random: kill, freeze, restart and scale, all from one seed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.crash.shop import Shop

EVERYTHING: Mapping[str, float] = {
    "kill": 10,
    "kill at the worst moment": 3,
    "kill broker": 1,
    "kill postgres": 1.5,
    "freeze": 3,
    "freeze server": 0.7,
    "scale": 3,
    "stop": 1,
}
AT_THE_WORST_MOMENT: Mapping[str, float] = {"kill at the worst moment": 1}
SERVICES = ("analytics", "payment", "inventory", "shipping", "gateway")
SCALABLE = {"gateway": (1, 2), "payment": (1, 3), "inventory": (1, 2), "shipping": (1, 2)}


@dataclass
class Chaos:
    """Do `kills` kills with other mishaps between them; `done` counts what happened."""

    shop: Shop
    seed: int
    kills: int
    pause_s: float = 1.0
    mishaps: Mapping[str, float] = field(default_factory=lambda: EVERYTHING)
    targets: Sequence[str] = SERVICES  # who is killed at the worst moment, in turn
    done: Counter[str] = field(default_factory=Counter)
    say: Callable[[str], None] = lambda _: None

    def run(self) -> None:
        """Return when the last kill is done; what was killed last may still be down."""
        choice = random.Random(self.seed)
        while self.killed < self.kills:
            time.sleep(choice.expovariate(1 / self.pause_s))
            kind = choice.choices(list(self.mishaps), list(self.mishaps.values()))[0]
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
        if kind == "freeze server":
            server = choice.choice((shop.broker, shop.postgres))
            server.pause()
            time.sleep(choice.uniform(0.5, 4))
            server.resume()
            return type(server).__name__
        if kind == "kill at the worst moment":
            return self._kill_at_the_worst_moment()
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

    def _kill_at_the_worst_moment(self) -> str:
        """Kill all replicas of a service with half of a batch's work done.

        First let messages pile up, then let the service take them while the database is frozen. In
        turn it dies there, before its transaction; or, with the broker dead, after its transaction
        and before its offsets and its published messages are acknowledged. (A frozen broker will not
        do: what waits in its sockets is carried out when it goes on.)
        """
        shop = self.shop
        turn = self.done["kill at the worst moment"] - 1
        service = self.targets[turn // 2 % len(self.targets)]
        # one that still starts holds no batch that could be cut in half
        shop.wait_until_ready(service)
        with shop.lock:
            victims = [
                shop.replicas[name] for name, spec in shop.specs.items() if spec.service == service
            ]
        for victim in victims:
            victim.pause()
        time.sleep(1.2)
        shop.postgres.pause()
        for victim in victims:
            victim.resume()
        time.sleep(1.0)
        after_transaction = turn % 2 == 1
        if after_transaction:
            shop.broker.kill()
            shop.postgres.resume()
            time.sleep(0.8)
        for victim in victims:
            victim.kill()
        shop.postgres.resume()
        shop.revive()
        return f"{service} {'after' if after_transaction else 'before'} its transaction"

    def _restart(self, choice: random.Random, name: str) -> str:
        time.sleep(choice.uniform(0, 1.5))
        self.shop.revive()
        return name
