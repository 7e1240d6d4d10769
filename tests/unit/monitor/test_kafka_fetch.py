"""What a read_committed consumer can read, found in the bytes of a Fetch reply."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from kafka.protocol.consumer import FetchResponse
from kafka.record.default_records import DefaultRecordBatchBuilder

from monitor.kafka.apis.fetch import FETCH_VERSIONS, FoundLooks, LookAtLogs, look
from monitor.kafka.questions import Failure
from monitor.model import LogLook

GZIP = 1
DELTA_AT, ATTRIBUTES_AT = 23, 21
MARKER = struct.Struct(">hh")


def batch(
    first: int,
    offsets: list[int],
    *,
    last: int | None = None,
    producer: int = -1,
    transactional: bool = False,
    compression: int = 0,
) -> bytes:
    """Return a batch with these offsets; `last` is its last one's, where compaction took it out."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=transactional,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1_000_000,
    )
    for offset in offsets:
        builder.append(offset - first, 1_000 + offset, b"k", b"value" * 100, [])
    data = bytearray(builder.build())
    assert data[ATTRIBUTES_AT + 1] & 0b111 == compression
    struct.pack_into(">q", data, 0, first)
    if last is not None:
        struct.pack_into(">i", data, DELTA_AT, last - first)
    return bytes(data)


def marker(offset: int, producer: int, *, commit: bool) -> bytes:
    """Return the control batch that ends a producer's transaction."""
    builder = DefaultRecordBatchBuilder(2, 0, True, producer, 0, -1, 1_000)
    builder.append(0, 1_000, MARKER.pack(0, int(commit)), struct.pack(">hi", 0, 0), [])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, offset)
    data[ATTRIBUTES_AT + 1] |= 0b10_0000
    return bytes(data)


def old_message(offset: int, *, compressed: bool = False) -> bytes:
    """Return a message of format 1."""
    body = struct.pack(">Ibbqii", 0, 1, GZIP if compressed else 0, 1_000, -1, -1)
    return struct.pack(">qi", offset, len(body)) + body


def test_a_record_is_readable_where_it_stands() -> None:
    assert look(batch(10, [10, 11, 12]), 10, []) == (10, 13)
    assert look(batch(10, [10, 11, 12]), 12, []) == (12, 13)
    assert look(batch(10, [10, 11, 12]), 7, []) == (10, 13)


def test_markers_are_not_readable() -> None:
    records = marker(3, 1, commit=True) + marker(4, 1, commit=False) + marker(5, 2, commit=True)
    assert look(records, 3, []) == (None, 6)


def test_a_record_after_markers_is_found() -> None:
    records = marker(3, 1, commit=True) + batch(4, [4])
    assert look(records, 3, []) == (4, 5)


def test_records_of_an_aborted_transaction_are_not_readable() -> None:
    records = batch(0, [0, 1, 2], producer=7, transactional=True) + marker(3, 7, commit=False)
    assert look(records, 0, [(0, 7)]) == (None, 4)
    assert look(records, 1, [(0, 7)]) == (None, 4)


def test_a_transaction_that_was_committed_after_an_aborted_one_of_its_producer_is_readable() -> (
    None
):
    records = b"".join(
        [
            batch(0, [0, 1], producer=7, transactional=True),
            marker(2, 7, commit=False),
            batch(3, [3, 4], producer=7, transactional=True),
            marker(5, 7, commit=True),
        ]
    )
    assert look(records, 0, [(0, 7)]) == (3, 5)


def test_transactions_that_run_at_the_same_time_are_told_apart() -> None:
    records = b"".join(
        [
            batch(0, [0], producer=7, transactional=True),
            batch(1, [1], producer=8, transactional=True),
            marker(2, 7, commit=False),
            marker(3, 8, commit=True),
        ]
    )
    assert look(records, 0, [(0, 7)]) == (1, 2)
    assert look(records, 0, [(1, 8)]) == (0, 1)
    assert look(records, 0, [(0, 7), (1, 8)]) == (None, 4)


def test_an_aborted_transaction_that_begins_later_hides_nothing_before_it() -> None:
    records = batch(0, [0], producer=7, transactional=True) + batch(
        5, [5], producer=7, transactional=True
    )
    assert look(records, 0, [(5, 7)]) == (0, 1)


def test_an_idempotent_producers_record_is_readable_while_its_id_has_an_aborted_transaction() -> (
    None
):
    assert look(batch(0, [0], producer=7), 0, [(0, 7)]) == (0, 1)


def test_records_that_compaction_took_out_are_not_readable() -> None:
    assert look(batch(0, [0, 3], last=9), 1, []) == (3, 10)
    assert look(batch(0, [0, 3], last=9), 4, []) == (None, 10)
    assert look(batch(0, [], last=9), 0, []) == (None, 10)


def test_a_compressed_batch_with_holes_is_not_guessed_at() -> None:
    holed = batch(0, [0, 3], last=9, compression=GZIP)
    assert look(holed, 0, []) == (0, 10)
    assert look(holed, 1, []) == (1, 10)  # two records, and room for one before
    assert look(holed, 4, []) == (None, 4)
    assert look(holed + marker(10, 1, commit=True), 4, []) == (None, 4)
    # at least one is readable, and none before
    assert look(holed + batch(10, [10]), 4, []) == (4, 11)


def test_a_batch_that_is_cut_off_is_known_by_its_header_alone() -> None:
    whole = batch(1, [1, 2])
    assert look(marker(0, 1, commit=True) + whole[:-5], 0, []) == (1, 3)
    assert look(marker(0, 1, commit=True) + whole[:50], 0, []) == (None, 1)
    assert look(marker(0, 1, commit=False)[:-20], 0, []) == (None, 0)
    assert look(batch(0, [0, 3], last=9)[: 61 + 2], 2, []) == (None, 2)


def test_messages_of_older_formats_are_readable() -> None:
    assert look(old_message(4) + old_message(5), 5, []) == (5, 6)
    assert look(old_message(9, compressed=True), 5, []) == (5, 10)


def reply(version: int, partitions: dict[int, Any], error: int = 0) -> Any:
    """Return a reply as it comes off the wire."""
    topic = FetchResponse.FetchableTopicResponse
    part = topic.PartitionData
    told = FetchResponse(
        throttle_time_ms=12,
        error_code=error,
        session_id=0,
        responses=[
            topic(
                topic="t",
                partitions=[
                    part(
                        partition_index=index,
                        error_code=of.get("error", 0),
                        high_watermark=of.get("end", 100),
                        last_stable_offset=of.get("stable", 90),
                        log_start_offset=0,
                        aborted_transactions=None
                        if "aborted" not in of
                        else [
                            part.AbortedTransaction(producer_id=p, first_offset=f)
                            for f, p in of["aborted"]
                        ],
                        preferred_read_replica=-1,
                        records=of.get("records"),
                    )
                    for index, of in partitions.items()
                ],
            )
        ],
        node_endpoints=[],
    )
    return FetchResponse.decode(told.encode(version=version), version=version)


def read(told: Any, wanted: dict[str, dict[int, int]]) -> FoundLooks:
    found = LookAtLogs(wanted).read([told])
    assert not isinstance(found, Failure)
    return found


@pytest.mark.parametrize("version", FETCH_VERSIONS)
def test_each_version_of_the_reply_is_read(version: int) -> None:
    aborted = batch(5, [5], producer=7, transactional=True) + marker(6, 7, commit=False)
    told = reply(
        version,
        {
            0: {"records": aborted, "aborted": [(5, 7)]},
            1: {"records": batch(8, [8])},
            2: {"error": 29},
            3: {},
            4: {"stable": -1},
        },
    )
    wanted = {"t": {0: 5, 1: 8, 2: 0, 3: 100, 4: 100}}
    assert told.throttle_time_ms == 12
    found = read(told, wanted)
    assert found.looks == {
        "t": {
            0: LogLook(None, 7, 90),
            1: LogLook(8, 9, 90),
            3: LogLook(None, 100, 90),
            4: LogLook(None, 100, 100),
        }
    }
    assert found.errors == {"t": {2: "TOPIC_AUTHORIZATION_FAILED"}}
    assert not found.leader_moved


@pytest.mark.parametrize("version", [4, 12])
def test_a_leader_that_moved_is_noticed(version: int) -> None:
    found = read(reply(version, {0: {"error": 6}}), {"t": {0: 0}})
    assert found.leader_moved
    assert found.looks == {}


def test_a_reply_that_is_refused_whole_is_a_failure() -> None:
    found = LookAtLogs({"t": {0: 0}}).read([reply(12, {}, error=29)])
    assert found == Failure("Fetch: TOPIC_AUTHORIZATION_FAILED")
