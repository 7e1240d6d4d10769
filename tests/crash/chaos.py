"""Break the shop at random: kill, freeze, restart and scale, all from one seed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from order_services.local.process import ManagedProcess
from order_services.process.settings import KILL_AFTER_SECONDS
from tests.crash.fragile import FATAL_SIGNAL
from tests.crash.shop import Shop

EVERYTHING: Mapping[str, float] = {
    "kill": 10,
    "kill at the worst moment": 3,
    "kill broker": 1,
    "kill postgres": 1.5,
    "freeze": 2,
    "freeze server": 0.7,
    "scale": 2,
    "stop": 0.5,
    "two signals": 1,
    "fatal error": 2,
    "fence": 0.7,
}
AT_THE_WORST_MOMENT: Mapping[str, float] = {"kill at the worst moment": 1}
# A machine with all of this on it is slow, and not the matter here.
STOP_MARGIN_S = 15.0
SERVICES = ("analytics", "payment", "inventory", "shipping", "gateway")
# The gateway takes orders on without its consumer, so nothing would start that one again.
FENCED = ("analytics", "payment", "inventory", "shipping")
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
    complaints: list[str] = field(default_factory=list)
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
        self.done[kind] += 1
        of_the_shop: Mapping[str, Callable[[random.Random], str]] = {
            "scale": self._scale,
            "kill broker": self._kill_broker,
            "kill postgres": self._kill_postgres,
            "freeze server": self._freeze_server,
            "kill at the worst moment": self._kill_at_the_worst_moment,
            "fence": self._fence,
        }
        if kind in of_the_shop:
            return of_the_shop[kind](choice)
        with self.shop.lock:
            name, process = choice.choice(list(self.shop.replicas.items()))
        if kind == "fatal error":
            # of its producer and its consumer; it goes on with others
            process.signal(FATAL_SIGNAL)
        elif kind == "two signals":
            self._stop_twice(choice, name, process)
        elif kind == "freeze":
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

    def _scale(self, choice: random.Random) -> str:
        service = choice.choice(list(SCALABLE))
        count = choice.randint(*SCALABLE[service])
        self.shop.scale(service, count)
        return f"{service} to {count}"

    def _kill_broker(self, choice: random.Random) -> str:
        self.shop.broker.kill()
        return self._restart(choice, "broker")

    def _kill_postgres(self, choice: random.Random) -> str:
        self.shop.postgres.kill()
        return self._restart(choice, "postgres")

    def _freeze_server(self, choice: random.Random) -> str:
        server = choice.choice((self.shop.broker, self.shop.postgres))
        server.pause()
        time.sleep(choice.uniform(0.5, 4))
        server.resume()
        return type(server).__name__

    def _kill_at_the_worst_moment(self, _choice: random.Random) -> str:
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

    def _fence(self, choice: random.Random) -> str:
        """Have another process be the static member that a replica is, for a while."""
        shop = self.shop
        with shop.lock:
            name = choice.choice(
                [name for name, spec in shop.specs.items() if spec.service in FENCED]
            )
        intruder = shop.intruder(name)
        intruder.start()
        time.sleep(choice.uniform(3, 6))
        # the one that was fenced has ended itself by now, or will
        intruder.stop(timeout_s=30)
        return self._restart(choice, name)

    def _stop_twice(self, choice: random.Random, name: str, process: ManagedProcess) -> None:
        """Tell a program to stop, and again before it has heard: it must not hang."""
        # one that has no handler yet is ended at once, which proves nothing
        for _ in range(2):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            until = time.perf_counter() + choice.uniform(0, 100e-6)
            while time.perf_counter() < until:
                pass
        if not process.wait(KILL_AFTER_SECONDS + STOP_MARGIN_S):
            self.complaints.append(f"{name} did not end after two signals")
        self._restart(choice, name)

    def _restart(self, choice: random.Random, name: str) -> str:
        time.sleep(choice.uniform(0, 1.5))
        self.shop.revive()
        return name
