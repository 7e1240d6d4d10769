"""Whether a cluster without groups or topics has none, or just none that this login may see.

Brokers leave out, without a word, the groups and topics that a login may not describe. One without
any right sees an empty cluster.
"""

from __future__ import annotations

from typing import Final

from monitor.kafka.apis.describe_cluster import DescribeOwnRights
from monitor.kafka.exchange import Exchange
from monitor.kafka.questions import Ask

UNSEEN: Final = (
    "this login may not describe the cluster, so that groups and topics that it may not describe are "
    "left out: allow its user (ACLs) to DESCRIBE the cluster, the topics and the groups"
)


class Rights:
    """Asks a broker what this login may do, again after so many seconds while nothing is seen."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_at = 0.0
        self._unseen = False

    def unseen(self, exchange: Exchange, healthy: list[int], now: float) -> bool:
        """Say, of a cluster in which nothing is seen, whether this login may not see what there is."""
        if now >= self._due_at and healthy:
            ask = Ask(healthy[0], DescribeOwnRights())
            exchange.ask_aside(ask)
            if ask.answer is not None:
                self._unseen = not ask.answer
                self._due_at = now + self._interval_s
        return self._unseen

    def seen(self) -> None:
        """Take in that there is something to see: the question is open again once there is not."""
        self._due_at, self._unseen = 0.0, False
