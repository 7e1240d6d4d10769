"""The questions of one poll, and what it learns about the brokers on its way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from monitor.kafka.brokers import Brokers
from monitor.kafka.questions import Ask
from monitor.kafka.steps import Step, Steps


class Exchange:
    """Asks in rounds; a broker that failed in one round is left out of those that follow.

    `suspects` are the brokers that failed in the last poll: they are asked again, but not waited
    for, until they answer. `down` has the brokers that did not answer and why, `refused` those of
    them that refused our login, `answered` those that answered, `errors` what else went wrong,
    `started_at` the moment at which the poll began. `steps` has the faults of our own.
    """

    def __init__(
        self,
        brokers: Brokers,
        timeout_s: float,
        suspects: frozenset[int],
        started_at: float = 0.0,
        steps: Steps | None = None,
    ) -> None:
        self.started_at = started_at
        self.steps = steps or Steps()
        self._brokers = brokers
        self._timeout_s = timeout_s
        self.suspects = suspects
        self.down: dict[int, str] = {}
        self.refused: set[int] = set()
        self.answered: set[int] = set()
        self.errors: list[str] = []

    def ask(self, asks: Iterable[Ask[Any]], *, again: bool = False) -> None:
        """Send all at once, then fill in each one's answer or failure.

        With `again` the caller asks for less where a reply is too large; it is no error then.
        """
        asks = [ask for ask in asks if ask.broker not in self.down]
        if asks:
            self._brokers.ask(asks, self._timeout_s, self.suspects)
        self.answered |= {ask.broker for ask in asks if ask.failure is None}
        self.suspects -= self.answered
        for ask in asks:
            if ask.failure is not None and ask.failure.fault is not None:
                subject = f"{type(ask.question).__name__} of broker {ask.broker}"
                self.steps.failed(Step.ANSWER, subject, ask.failure.fault)
            if ask.failure is None or (again and (ask.failure.too_large or ask.failure.lost)):
                continue
            if ask.failure.broker_down:
                self.down.setdefault(ask.broker, ask.failure.cause)
                if ask.failure.refused:
                    self.refused.add(ask.broker)
            else:
                self.errors.append(f"broker {ask.broker}: {ask.failure.cause}")

    def ask_aside(self, ask: Ask[Any]) -> None:
        """Ask what a broker may be too old to know: its failure is no fault."""
        self._brokers.ask([ask], self._timeout_s, self.suspects)

    def aside(self, steps: Steps) -> Exchange:
        """Return an exchange for what is asked between this poll and the next.

        What fails there is its own: a broker that searches remote storage for long, or may not be
        read from, is not down, and is asked as ever in the next poll. Those that failed here are
        not asked.
        """
        aside = Exchange(self._brokers, self._timeout_s, frozenset(), self.started_at, steps)
        aside.down = {**dict.fromkeys(self.suspects, "it did not answer before"), **self.down}
        return aside

    def healthy(self, brokers: Iterable[int]) -> list[int]:
        """Return those that nothing speaks against."""
        return [b for b in brokers if b not in self.down and b not in self.suspects]
