"""What is asked rarely: settings of topics, sizes of logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from monitor.kafka.questions import Ask, DescribeLogDirs, DescribeTopicConfigs
from monitor.model import LogSizes, Topic, TopicConfig

# The bound of one reply: past it a question goes out as several.
MAX_TOPICS_PER_DESCRIBE: Final = 5_000


class TopicConfigs:
    """The settings of all topics, read anew every `interval_s` seconds; of a new topic, at once."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_at = 0.0
        self._asks: list[tuple[Sequence[str], Ask[dict[str, TopicConfig]]]] = []
        self._read: dict[str, str | None] = {}  # name -> topic id; those that are refused, too
        self.latest: Mapping[str, TopicConfig] = {}

    def asks(
        self, now: float, topics: Mapping[str, Topic], healthy: Sequence[int]
    ) -> list[Ask[dict[str, TopicConfig]]]:
        """Return what is to be asked now, of one of the healthy brokers: any of them knows."""
        if now >= self._due_at:
            self._read = {}
            self._due_at = now + self._interval_s
        # a topic of the same name with another id was created anew, maybe with other settings
        wanted = [
            name
            for name, topic in topics.items()
            if name not in self._read or self._read[name] != topic.id
        ]
        batches = [
            wanted[start : start + MAX_TOPICS_PER_DESCRIBE]
            for start in range(0, len(wanted), MAX_TOPICS_PER_DESCRIBE)
        ]
        self._asks = [
            (batch, Ask(healthy[0], DescribeTopicConfigs(batch))) for batch in batches if healthy
        ]
        return [ask for _, ask in self._asks]

    def take(self, topics: Mapping[str, Topic]) -> None:
        """Take in the answers; what was not answered is asked again at the next poll."""
        known = dict(self.latest)
        for batch, ask in self._asks:
            if ask.answer is not None:
                for name in batch:
                    self._read[name] = topics[name].id
                    known.pop(name, None)
                known.update(ask.answer)
        self._asks = []
        self.latest = {name: config for name, config in known.items() if name in topics}


class LogDirs:
    """The sizes of all logs, asked of each broker every `interval_s` seconds."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_at: dict[int, float] = {}
        self._asks: list[Ask[dict[str, dict[int, int]]]] = []
        self.latest: Mapping[int, LogSizes] = {}

    def asks(self, now: float, brokers: Iterable[int]) -> list[Ask[dict[str, dict[int, int]]]]:
        """Return what is to be asked now."""
        self._asks = [
            Ask(broker, DescribeLogDirs())
            for broker in brokers
            if now >= self._due_at.get(broker, 0.0)
        ]
        return list(self._asks)

    def take(self, now: float, brokers: Iterable[int]) -> None:
        """Take in the answers; of a broker that was silent, its last sizes and their time stay."""
        latest = {broker: self.latest[broker] for broker in brokers if broker in self.latest}
        for ask in self._asks:
            if ask.answer is not None:
                latest[ask.broker] = LogSizes(ask.answer, ask.answered_at)
            if ask.answer is not None or (ask.failure and not ask.failure.broker_down):
                # a refusal is not asked again at every poll
                self._due_at[ask.broker] = now + self._interval_s
        self._asks = []
        self.latest = latest
