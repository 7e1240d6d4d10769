from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from order_services.messaging.commits import (
    COMMIT_INTERVAL_SECONDS,
    MAX_GAP_SECONDS,
    RETRY_MAX_SECONDS,
    ClientHangsError,
    OffsetCommits,
)

PATIENCE_S = 55.0
PARTITION = ("orders", 0)


@dataclass
class Client:
    """Takes commits and answers none."""

    commits: list[list[TopicPartition]] = field(default_factory=list)

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.commits.append(offsets)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def begun() -> tuple[OffsetCommits, Any, Clock]:
    clock, client = Clock(), Client()
    commits = OffsetCommits(PATIENCE_S, clock)
    commits.polled()
    commits.add({PARTITION: 7})
    commits.send(client)  # type: ignore[arg-type]  # a broker cannot be made to lose a commit
    assert len(client.commits) == 1
    return commits, client, clock


def test_a_long_batch_in_which_nobody_listened_does_not_make_a_commit_lost() -> None:
    commits, client, clock = begun()
    # two transactions of 30 s, and one poll after them
    clock.now += 60
    commits.send(client)
    commits.polled()
    commits.send(client)
    assert len(client.commits) == 1


def test_a_commit_is_lost_when_the_client_was_listened_to_for_long_enough() -> None:
    commits, client, clock = begun()
    for _ in range(int(PATIENCE_S / 0.25)):
        clock.now += 0.25
        commits.polled()
        commits.send(client)
    clock.now += 0.5
    commits.polled()
    with pytest.raises(ClientHangsError, match="55 s"):
        commits.send(client)


def test_a_client_whose_every_batch_is_long_is_given_up_in_the_end() -> None:
    commits, client, clock = begun()
    for _ in range(int(PATIENCE_S / MAX_GAP_SECONDS)):
        clock.now += 30
        commits.polled()
        commits.send(client)
    clock.now += 30
    commits.polled()
    with pytest.raises(ClientHangsError):
        commits.send(client)


def test_the_commits_of_a_busy_consumer_are_half_a_second_apart() -> None:
    commits, client, clock = begun()
    for offset in range(8, 108):
        commits.answered(None, [TopicPartition(*PARTITION, offset - 1)])
        commits.add({PARTITION: offset})
        clock.now += 0.1
        commits.polled()
        commits.send(client)
    assert len(client.commits) == pytest.approx(100 * 0.1 / COMMIT_INTERVAL_SECONDS, abs=2)
    # and nothing is left behind
    clock.now += COMMIT_INTERVAL_SECONDS
    commits.send(client)
    assert client.commits[-1][0].offset == 107


def test_commits_that_fail_are_tried_less_and_less_often() -> None:
    commits, client, clock = begun()
    began = clock.now
    while clock.now < began + 300:
        if commits.pending and len(client.commits) > 0:
            commits.answered(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), [])
        sent = len(client.commits)
        while len(client.commits) == sent and clock.now < began + 300:
            clock.now += 0.01
            commits.polled()
            commits.send(client)
    # not one each turn: 30,000
    assert len(client.commits) < 300 / (RETRY_MAX_SECONDS / 2) + 10
    commits.answered(None, [TopicPartition(*PARTITION, 7)])
    assert not commits.pending
    commits.add({PARTITION: 8})
    clock.now += RETRY_MAX_SECONDS
    sent = len(client.commits)
    commits.send(client)
    assert len(client.commits) == sent + 1
