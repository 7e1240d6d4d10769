"""Has replicas follow what the monitor says of each service's consumer group.

The monitor decides, from lag and rates, and stops at partitions and at what databases have connections
for; this only asks, bounds and acts. Without an answer nothing is changed.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

from order_services.domain.topics import GROUP_OF

TIMEOUT_S: Final = 5.0


class UnknownError(Exception):
    """The monitor does not say how many; the message is why."""


@dataclass(frozen=True, slots=True)
class Advice:
    """How many replicas a group should have, and why."""

    replicas: int
    reason: str


Ask = Callable[[str], Advice]
"""Returns the advice for a consumer group; raises UnknownError."""


class Actuator(Protocol):
    """Who starts and stops replicas."""

    def running(self) -> Mapping[str, int]:
        """Return how many replicas each service has, those that start among them."""

    def ask(self, counts: Mapping[str, int]) -> None:
        """Have so many of some services."""


class Monitor:
    """Asks a monitor over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def __call__(self, group: str) -> Advice:
        """Return its advice; raises UnknownError."""
        url = f"{self._url}/api/v1/scaling/{quote(group, safe='')}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  # the scheme was checked
                body = json.loads(answer.read())
            return Advice(int(body["replicas"]), str(body["reason"]))
        except urllib.error.HTTPError as error:
            raise UnknownError(_message(error.read()) or f"{url} answers {error.code}") from None
        except OSError as error:
            why = getattr(error, "reason", error)
            raise UnknownError(f"the monitor at {self._url} does not answer: {why}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UnknownError(f"{url} is no answer of the monitor ({error!r})") from None


class Autoscaler:
    """Follows the advice for some services, between `least` and `most` replicas of each."""

    def __init__(
        self,
        services: Collection[str],
        ask: Ask,
        actuator: Actuator,
        say: Callable[[str], None],
        *,
        least: int,
        most: int,
    ) -> None:
        self._services = services
        self._ask = ask
        self._actuator = actuator
        self._say = say
        self._least, self._most = least, most
        self._silent: dict[str, str] = {}

    def step(self) -> None:
        """Ask once for each service, and act; raises what the actuator raises."""
        running = self._actuator.running()
        for service in self._services:
            try:
                advice = self._ask(GROUP_OF[service].group_id)
            except UnknownError as error:
                self._tell_silence(service, str(error))
                continue
            self._silent.pop(service, None)
            wanted = max(self._least, min(self._most, advice.replicas))
            if wanted == running[service]:
                continue
            bound = "" if wanted == advice.replicas else f" ({advice.replicas} are advised)"
            self._say(f"{service} {running[service]} -> {wanted}{bound}: {advice.reason}")
            self._actuator.ask({service: wanted})

    def _tell_silence(self, service: str, why: str) -> None:
        """Say once that there is no advice, and not each time that it is asked for."""
        if self._silent.get(service) != why:
            self._silent[service] = why
            self._say(f"{service} stays as it is: {why}")


def _message(body: bytes) -> str | None:
    try:
        answer: Any = json.loads(body)
        return str(answer["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return None
