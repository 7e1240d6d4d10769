"""What can be read of a lag, against logs of records, markers and transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.readable import MAX_LOOKS, NOTHING, Position, Readable, ReadableLogs
from monitor.model import LogLook

RECORD, MARKER, ABORTED, OPEN = "record", "marker", "aborted", "open"


@dataclass
class Log:
    """A partition's log: what lies at each offset; looks answer as the kafka layer does."""

    entries: list[str] = field(default_factory=list)
    reach: int = 1_000  # offsets that one look gets over
    is_refused: bool = False
    looked_from: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return len(self.entries)

    @property
    def stable_end(self) -> int:
        return self.entries.index(OPEN) if OPEN in self.entries else self.end

    def look(self, offset: int) -> LogLook:
        self.looked_from.append(offset)
        to = min(self.stable_end, offset + self.reach)
        for at in range(offset, to):
            if self.entries[at] == RECORD:
                return LogLook(at, at, self.stable_end)
        return LogLook(None, max(to, offset), self.stable_end)


def poll(
    logs: ReadableLogs, log: Log, offsets: Sequence[int], *, stands: bool = True
) -> list[Readable]:
    positions = [Position("t", 0, offset, log.end, stands) for offset in offsets]
    logs.observe({"t": [position for position in positions if position.offset < log.end]})
    for _ in range(MAX_LOOKS):
        asked = logs.questions()
        if not asked:
            break
        found: Mapping[str, Mapping[int, LogLook]] = (
            {} if log.is_refused else {"t": {0: log.look(asked["t"][0])}}
        )
        logs.answers(found)
    return [logs.of(position) for position in positions]


def test_a_record_at_the_commit_is_readable_and_asked_for_once() -> None:
    logs, log = ReadableLogs(), Log([RECORD] * 10)
    assert poll(logs, log, [4]) == [Readable(6, 4)]
    log.entries += [RECORD]
    assert poll(logs, log, [4]) == [Readable(7, 4)]
    assert log.looked_from == [4]


def test_a_marker_alone_is_nothing_to_read_and_is_asked_for_once() -> None:
    logs, log = ReadableLogs(), Log([RECORD] * 3 + [MARKER])
    for _ in range(3):
        assert poll(logs, log, [3]) == [NOTHING]
    assert log.looked_from == [3]


def test_what_comes_after_markers_is_looked_at_from_there_on() -> None:
    logs, log = ReadableLogs(), Log([RECORD] * 3 + [MARKER, ABORTED, MARKER])
    assert poll(logs, log, [3]) == [NOTHING]
    log.entries += [MARKER]
    assert poll(logs, log, [3]) == [NOTHING]
    log.entries += [RECORD, RECORD]
    assert poll(logs, log, [3]) == [Readable(6, 7)]
    assert log.looked_from == [3, 6, 7]


def test_many_markers_are_looked_at_poll_by_poll_and_count_as_readable_until_then() -> None:
    logs, log = ReadableLogs(), Log([MARKER] * 50, reach=5)
    assert poll(logs, log, [0]) == [Readable(50, 5 * MAX_LOOKS)]
    for _ in range(5):
        found = poll(logs, log, [0])
    assert found == [NOTHING]
    assert len(log.looked_from) == 10


def test_an_open_transaction_holds_back_what_comes_after_it() -> None:
    logs, log = ReadableLogs(), Log([RECORD] * 3 + [OPEN, RECORD, RECORD])
    assert poll(logs, log, [3]) == [Readable(0, None, held_at=3)]
    log.entries += [RECORD]
    assert poll(logs, log, [3]) == [Readable(0, None, held_at=3)]
    assert poll(logs, log, [2]) == [Readable(5, 2)]  # one record before it is left
    log.entries[3] = RECORD  # committed
    assert poll(logs, log, [3]) == [Readable(4, 3)]


def test_who_is_past_the_last_stable_offset_reads_uncommitted_records() -> None:
    logs, log = ReadableLogs(), Log([OPEN] * 6)
    assert poll(logs, log, [3]) == [Readable(3, 3)]


def test_a_consumer_that_goes_on_is_not_asked_about() -> None:
    logs, log = ReadableLogs(), Log([MARKER] * 6)
    assert poll(logs, log, [3], stands=False) == [Readable(3, 3)]
    assert log.looked_from == []


def test_where_the_log_may_not_be_looked_at_all_counts_as_readable() -> None:
    logs, log = ReadableLogs(), Log([MARKER] * 6, is_refused=True)
    assert poll(logs, log, [3]) == [Readable(3, 3)]
    log.is_refused = False
    assert poll(logs, log, [3]) == [NOTHING]


def test_one_look_serves_all_groups_that_stand_in_what_it_saw() -> None:
    logs, log = ReadableLogs(), Log([MARKER] * 6 + [RECORD])
    assert poll(logs, log, [1, 3, 6]) == [Readable(6, 6), Readable(4, 6), Readable(1, 6)]
    assert log.looked_from == [1]


def test_a_topic_created_anew_is_looked_at_anew() -> None:
    logs, log = ReadableLogs(), Log([MARKER] * 6)
    assert poll(logs, log, [3]) == [NOTHING]
    logs.forget("t")
    log.entries = [RECORD] * 6
    assert poll(logs, log, [3]) == [Readable(3, 3)]


ENTRIES = st.lists(st.sampled_from([RECORD, MARKER, ABORTED, MARKER, ABORTED, OPEN]), max_size=12)


@given(
    st.lists(
        st.tuples(ENTRIES, st.lists(st.integers(0, 40), min_size=1, max_size=3), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 4),
)
def test_after_enough_polls_exactly_what_a_reader_finds_is_readable(
    steps: list[tuple[list[str], list[int], bool]], reach: int
) -> None:
    logs, log = ReadableLogs(), Log(reach=reach)
    for more, offsets, refused in steps:
        log.entries = [RECORD if e == OPEN else e for e in log.entries] + more
        log.is_refused = refused
        poll(logs, log, offsets)
    log.is_refused = False
    for _ in range(60):
        found = poll(logs, log, offsets)
    for offset, readable in zip(offsets, found, strict=True):
        before = log.entries[offset : log.stable_end]
        left = max(0, log.end - offset)
        if offset > log.stable_end and left:
            assert readable == Readable(left, offset)
        elif RECORD in before:
            assert readable == Readable(left, offset + before.index(RECORD))
        elif left and OPEN in log.entries:
            assert readable == Readable(0, None, log.stable_end)
        else:
            assert readable == NOTHING
    asked = len(log.looked_from)
    poll(logs, log, offsets)
    held = sum(1 for r in found if r.held_at is not None)
    past = sum(1 for o in offsets if log.stable_end < o < log.end)
    assert len(log.looked_from) - asked <= held + past  # nothing is asked twice in vain


@pytest.mark.parametrize("offset", [0, 5, 6, 9])
def test_at_the_end_and_past_it_nothing_is_to_be_read(offset: int) -> None:
    found = poll(ReadableLogs(), Log([RECORD] * 6), [offset])
    assert found == [NOTHING if offset >= 6 else Readable(6 - offset, offset)]
