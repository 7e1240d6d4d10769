from __future__ import annotations

import pytest

from order_services.domain.topics import PAYMENT_GROUP
from order_services.messaging.dead_letters import (
    MAX_ERROR_LENGTH,
    DeadLetterLimit,
    DeadLetterLimitError,
    dead_letter,
    describe,
)
from order_services.messaging.messages import ReceivedMessage
from order_services.process.backoff import Backoff
from order_services.process.pace import Pace
from order_services.service.health import Health
from order_services.storage.outbox import decode_headers, encode_headers


def test_waits_grow_to_their_bound_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(1, 8)
    waits = [backoff.next_seconds() for _ in range(6)]
    for wait, step in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert step / 2 <= wait <= step
    backoff.reset()
    assert backoff.next_seconds() <= 1


def test_turns_keep_their_pace_and_one_that_was_late_delays_no_other() -> None:
    pace = Pace(0.5)
    assert pace.due_in(7) == 0
    pace.began(7.25)  # for what came at 7
    for at in (7.5, 8, 8.5, 9):
        assert pace.due_in(at) == 0
        pace.began(at)


def test_many_turns_in_a_row_are_as_far_apart_as_their_pace() -> None:
    pace = Pace(0.5)
    now = began = 7.0
    turns = 0
    while now < began + 10:
        now += pace.due_in(now) or 0.0625
        if not pace.due_in(now):
            pace.began(now)
            turns += 1
    assert turns <= 10 / 0.5 + 2


def test_turns_that_nobody_held_up_hold_up_the_next_for_one_pace_at_most() -> None:
    pace = Pace(0.5)
    for n in range(100):  # full batches
        pace.began(7 + n / 64)
    assert pace.due_in(7 + 99 / 64) == 0.5


def test_dead_letters_are_limited_within_a_window() -> None:
    now = [0.0]
    limit = DeadLetterLimit(3, 60, clock=lambda: now[0])
    limit.check(3)
    limit.record(2)
    limit.check(1)
    with pytest.raises(DeadLetterLimitError, match="more than 3 messages"):
        limit.check(2)
    now[0] = 60
    limit.check(3)


def test_a_dead_letter_keeps_the_message_and_tells_of_its_last_failure() -> None:
    # all bytes, names that come twice, and no value at all
    kept = [("event-type", b"X"), ("odd", bytes(range(256))), ("odd", b""), ("none", None)]
    headers = [*kept, ("dead-letter-offset", b"1"), ("dead-letter-for", b"payment-service-group")]
    message = ReceivedMessage("orders", 2, 7, b"k", b"\x00v", headers)
    letter = dead_letter(message, PAYMENT_GROUP, ValueError("no"), attempts=3)
    assert (letter.topic, letter.key, letter.value) == (
        "payment-service-group.dead-letters",
        b"k",
        b"\x00v",
    )
    published = decode_headers(encode_headers(letter.headers).decode())
    assert published[:4] == kept
    about = dict(published[4:])
    assert about["dead-letter-offset"] == b"7"
    assert about["dead-letter-attempts"] == b"3"
    assert "dead-letter-for" not in about


def test_an_error_is_described_on_one_short_line() -> None:
    text = describe(ValueError("a\nb" + "x" * 10_000))
    assert text.startswith("ValueError: a b")
    assert len(text) == MAX_ERROR_LENGTH


def test_health_gives_every_reason() -> None:
    health = Health()
    health.add_readiness(lambda: None)
    health.add_readiness(lambda: "first")
    health.add_readiness(lambda: "second")
    assert health.ready() == ["first", "second"]
    assert health.alive() == []
