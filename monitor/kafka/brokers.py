"""A connection to a cluster's brokers, as the collector sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.questions import Ask

# How much longer than the others a broker that failed in the last poll may take.
GRACE_S: Final = 0.1


class UnreachableError(Exception):
    """No bootstrap server could be asked; the message names each address and its cause."""

    def __init__(self, causes: Mapping[str, str]) -> None:
        self.causes = causes
        super().__init__("; ".join(f"{address}: {cause}" for address, cause in causes.items()))


class Brokers(Protocol):
    """A connection to a cluster's brokers."""

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        """Ask all bootstrap servers, return with the first that answers; raise UnreachableError."""

    def ask(
        self,
        asks: Sequence[Ask[Any]],
        timeout_s: float,
        not_awaited: Collection[int] = (),
    ) -> None:
        """Send all, then await all and fill in each one's answer or failure.

        Brokers in `not_awaited` are asked too, but nobody waits for them longer than for the others
        and GRACE_S. Their questions go on until `timeout_s`: see `take_recovered`.
        """

    def take_recovered(self) -> frozenset[int]:
        """Return the brokers whose answer came when nobody waited any longer, since the last call."""

    def take_request_counts(self) -> dict[str, int]:
        """Return the requests sent since the last call, by API name."""

    def close(self) -> None:
        """Close all connections."""
