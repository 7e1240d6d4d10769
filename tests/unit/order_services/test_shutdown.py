from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from order_services.service.shutdown import RELAY_SHARE, stop_in_order

BUDGET_S = 1.0


@dataclass
class Thing:
    """A part that needs so many seconds from when it is asked; writes down what happens."""

    name: str
    needs_s: float
    said: list[str]
    due_at: float = field(default=0, init=False)
    given_s: float = field(default=0, init=False)

    def ask_to_stop(self) -> None:
        self.said.append(f"{self.name} asked")
        self.due_at = time.monotonic() + self.needs_s

    def stop(self, timeout_seconds: float) -> bool:
        self.given_s = timeout_seconds
        if not self.due_at:
            self.ask_to_stop()
        threading.Event().wait(min(timeout_seconds, max(0.0, self.due_at - time.monotonic())))
        ended = time.monotonic() >= self.due_at
        self.said.append(f"{self.name} {'ended' if ended else 'given up'}")
        return ended


def took(do: Callable[[], bool]) -> tuple[float, bool]:
    started = time.monotonic()
    answer = do()
    return time.monotonic() - started, answer


def test_all_are_asked_before_any_is_waited_for_and_the_relay_is_the_last() -> None:
    said: list[str] = []
    parts = [Thing("consumer", 0.3, said), Thing("worker", 0.3, said)]
    doors = [lambda _s: said.append("web closed"), lambda _s: said.append("writer closed")]
    seconds, ended = took(
        lambda: stop_in_order(BUDGET_S, doors=doors, parts=parts, relay=Thing("relay", 0, said))
    )
    assert ended
    # 0.3 s for both, not 0.6
    assert 0.3 <= seconds < 0.6
    assert set(said[:4]) == {"consumer asked", "worker asked", "web closed", "writer closed"}
    assert said.index("web closed") < said.index("writer closed")
    assert said[-4:] == ["consumer ended", "worker ended", "relay asked", "relay ended"]


def test_what_hangs_takes_no_more_than_the_budget_and_leaves_the_relay_its_share() -> None:
    said: list[str] = []
    hang = threading.Event()
    relay = Thing("relay", 60, said)
    seconds, ended = took(
        lambda: stop_in_order(
            BUDGET_S,
            doors=[lambda _s: hang.wait(60)],
            parts=[Thing(name, 60, said) for name in ("consumer", "one", "other")],
            relay=relay,
        )
    )
    hang.set()
    assert not ended
    assert BUDGET_S <= seconds < BUDGET_S + 0.5
    assert relay.given_s > 0.9 * RELAY_SHARE * BUDGET_S


def test_a_door_that_jams_leaves_the_next_one_no_less_closed() -> None:
    said: list[str] = []

    def jam(_seconds: float) -> None:
        raise RuntimeError("jammed")

    assert stop_in_order(
        BUDGET_S,
        doors=[jam, lambda _s: said.append("closed")],
        parts=[],
        relay=Thing("relay", 0, said),
    )
    assert "closed" in said
