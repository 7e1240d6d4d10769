"""Starts and stops replicas of a system that runs, as somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from order_services.domain.services import SERVICES
from order_services.local.plan import Plan, ServiceReplica
from order_services.local.ports import is_free
from order_services.local.process import StartError
from order_services.local.replicas import Replicas


class Programs(Protocol):
    """Who starts and stops programs; the supervisor."""

    def dismiss(self, name: str) -> None:
        """Have a program end in good order, without waiting for it."""

    def is_leaving(self, name: str) -> bool:
        """Say whether a program that was dismissed has not ended yet."""

    def see_off(self) -> None:
        """Forget those that have ended."""


class Rescaling:
    """Brings a plan's replicas to what is asked for, a step at each call of `go_on`."""

    def __init__(
        self,
        plan: Plan,
        replicas: Replicas,
        programs: Programs,
        start: Callable[[ServiceReplica], None],
        say: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self._replicas = replicas
        self._programs = programs
        self._start = start
        self._say = say
        self._told: tuple[Mapping[str, int], Mapping[str, str]] | None = None

    def go_on(self) -> bool:
        """Do what can be done now; return whether the replicas changed."""
        self._programs.see_off()
        counts = {service: self.plan.replicas.get(service, 1) for service in SERVICES}
        before, refused = dict(counts), {}
        for service, wanted in self._replicas.wanted().items():
            while counts[service] > wanted:
                self._programs.dismiss(ServiceReplica(service, counts[service], 0).name)
                counts[service] -= 1
            while counts[service] < wanted:
                why = self._add(service, counts[service] + 1)
                if why is not None:
                    refused[service] = why
                    break
                counts[service] += 1
        changed = counts != before
        if changed:
            self.plan = replace(self.plan, replicas=counts)
            self._say(
                "replicas: "
                + ", ".join(
                    f"{s} {before[s]} -> {counts[s]}" for s in SERVICES if counts[s] != before[s]
                )
            )
        if (counts, refused) != self._told:
            self._told = (counts, refused)
            self._replicas.tell(counts, refused, self.plan.monitor_url)
        return changed

    def _add(self, service: str, number: int) -> str | None:
        """Start a replica; return why it can't be, None when it was."""
        replica = self.plan.replica(service, number)
        if self._programs.is_leaving(replica.name):
            return f"{replica.name} has not ended yet"
        if not is_free(replica.port):
            return f"port {replica.port} ({replica.name}) is taken"
        try:
            self._start(replica)
        except StartError as error:
            return str(error)
        return None
