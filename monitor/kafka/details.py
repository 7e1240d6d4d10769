"""What is asked rarely: settings of topics, sizes of logs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from monitor.kafka.apis.describe_configs import DescribeTopicConfigs
from monitor.kafka.apis.describe_log_dirs import DescribeLogDirs
from monitor.kafka.exchange import Exchange
from monitor.kafka.questions import Ask
from monitor.model import LogSizes, Topic, TopicConfig

# The bound of one reply: past it a question goes out as several.
MAX_TOPICS_PER_DESCRIBE: Final = 5_000


class TopicConfigs:
    """The settings of all topics, read anew every `interval_s` seconds; of a new topic, at once."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_at = 0.0
        self._read: dict[str, str | None] = {}  # name -> topic id; those that are refused, too
        self.latest: Mapping[str, TopicConfig] = {}

    def read(
        self, exchange: Exchange, now: float, topics: Mapping[str, Topic], brokers: Iterable[int]
    ) -> None:
        """Ask one of the brokers for what is due: any of them knows.

        What is not answered is asked again at the next poll.
        """
        if now >= self._due_at:
            self._read = {}
            self._due_at = now + self._interval_s
        # a topic of the same name with another id was created anew, maybe with other settings
        wanted = [
            name
            for name, topic in topics.items()
            if name not in self._read or self._read[name] != topic.id
        ]
        healthy = exchange.healthy(brokers)
        batches = [
            wanted[start : start + MAX_TOPICS_PER_DESCRIBE]
            for start in range(0, len(wanted), MAX_TOPICS_PER_DESCRIBE)
            if healthy
        ]
        asks = [Ask(healthy[0], DescribeTopicConfigs(batch)) for batch in batches]
        exchange.ask(asks)
        known = dict(self.latest)
        for batch, ask in zip(batches, asks, strict=True):
            if ask.answer is not None:
                for name in batch:
                    self._read[name] = topics[name].id
                    known.pop(name, None)
                known.update(ask.answer)
        self.latest = {name: config for name, config in known.items() if name in topics}


class LogDirs:
    """The sizes of all logs, asked of each broker every `interval_s` seconds."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_at: dict[int, float] = {}
        self.latest: Mapping[int, LogSizes] = {}

    def read(self, exchange: Exchange, now: float, brokers: Collection[int]) -> None:
        """Ask what is due; of a broker that is silent, its last sizes and their time stay."""
        asks = [
            Ask(broker, DescribeLogDirs())
            for broker in brokers
            if now >= self._due_at.get(broker, 0.0)
        ]
        exchange.ask(asks)
        latest = {broker: self.latest[broker] for broker in brokers if broker in self.latest}
        for ask in asks:
            if ask.answer is not None:
                latest[ask.broker] = LogSizes(ask.answer, ask.answered_at)
            if ask.answer is not None or (ask.failure and not ask.failure.broker_down):
                # a refusal is not asked again at every poll
                self._due_at[ask.broker] = now + self._interval_s
        self.latest = latest
