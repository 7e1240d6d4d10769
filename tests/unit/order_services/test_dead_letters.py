from __future__ import annotations

from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from order_services.cli import cli, printing
from order_services.operations import redrive_progress
from order_services.operations.dead_letters import DeadLetter
from order_services.operations.redrive import Selection
from order_services.operations.redrive_progress import Progress


def letter(**changes: object) -> DeadLetter:
    fields: dict[str, object] = {
        "group_id": "g",
        "partition": 0,
        "offset": 7,
        "key": b"key",
        "value": b'{"eventType": "ORDER_CREATED"}',
        "headers": [],
        "origin_topic": "orders",
        "origin_partition": 3,
        "origin_offset": 41,
        "error": "ValueError: totalCents: no",
        "attempts": 4,
        "failed_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
    }
    return DeadLetter(**{**fields, **changes})  # type: ignore[arg-type]  # tests name them


@given(st.sets(st.integers(0, 5000)), st.integers(0, 200))
def test_progress_survives_its_way_through_a_commit(offsets: set[int], oldest: int) -> None:
    progress = Progress()
    progress.forget(oldest)
    for offset in offsets:
        progress.add(offset)
    again = Progress.of(progress.first, progress.metadata())
    assert again == progress
    for offset in range(5002):
        assert (offset in again) == (offset in offsets or offset < oldest)


def test_a_first_look_has_sent_nothing_and_a_foreign_note_is_passed_over() -> None:
    assert 0 not in Progress.of(-1001, None)
    assert Progress.of(5, "someone else's note") == Progress(5)


def test_many_gaps_fit_into_one_commit() -> None:
    progress = Progress()
    for offset in range(1, 40_000, 2):
        progress.add(offset)
    assert len(progress.metadata()) < redrive_progress.MAX_METADATA_BYTES


def test_the_type_is_taken_from_the_header_or_else_from_the_value() -> None:
    assert letter().event_type == "ORDER_CREATED"
    assert letter(headers=[("event-type", b"X")]).event_type == "X"
    assert letter(value=b"\xff").event_type is None
    assert letter(value=b"[1]").event_type is None
    assert letter(value=None).event_type is None


def test_filters_must_all_let_a_letter_pass() -> None:
    assert Selection().takes(letter())
    assert Selection(frozenset({"ORDER_CREATED"}), frozenset({7})).takes(letter())
    assert not Selection(frozenset({"ORDER_CREATED"}), frozenset({8})).takes(letter())
    assert not Selection(frozenset({"OTHER"}), frozenset({7})).takes(letter())


def test_an_error_is_counted_by_its_kind() -> None:
    assert letter().error_kind == "ValueError"
    assert letter(error="strange").error_kind == "strange"


@pytest.mark.parametrize(
    "options", [[], ["--all", "--limit", "3"], ["--offset", "-1"], ["--limit", "0"]]
)
def test_a_replay_wants_to_hear_which(options: list[str]) -> None:
    command = ["dead-letters", "redrive", "--group", "g", *options]
    assert CliRunner().invoke(cli, command).exit_code == 2


@given(st.binary(max_size=600))
def test_any_value_is_shown_in_80_columns_without_control_characters(value: bytes) -> None:
    for line in printing.value_lines(value):
        assert len(line) <= 80
        assert line.isprintable()
