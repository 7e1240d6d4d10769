from __future__ import annotations

from order_services.messaging.lanes import KEYLESS, WHOLE_TOPIC, Lane, Lanes, partition_of


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def lanes(clock: Clock) -> Lanes:
    made = Lanes(1, 8, clock)
    made.learn({"orders": 6})
    return made


def keys_of(partition: int, count: int = 3) -> list[bytes]:
    wanted = [
        b"%d" % number for number in range(200) if partition_of(b"%d" % number, 6) == partition
    ]
    return wanted[:count]


def test_a_closed_partition_closes_no_other() -> None:
    clock = Clock()
    some = lanes(clock)
    some.close(Lane("orders", 2), 10)
    assert [some.is_open("orders", key) for key in keys_of(2)] == [False] * 3
    assert [some.is_open("orders", key) for key in keys_of(3)] == [True] * 3
    assert some.is_open("orders", None)
    assert some.is_open("payments", keys_of(2)[0])
    assert some.closed_topics() == []


def test_a_topic_whose_partitions_nobody_knows_is_one_lane() -> None:
    some = lanes(Clock())
    assert some.of("missing", b"1") == some.of("missing", None) == Lane("missing", WHOLE_TOPIC)
    assert some.of("orders", None) == Lane("orders", KEYLESS)
    some.close(Lane("missing", WHOLE_TOPIC), 1)
    assert not some.is_open("missing", b"1")
    assert some.closed_topics() == ["missing"]


def test_a_lane_is_tried_with_its_first_row_after_longer_and_longer_waits() -> None:
    clock = Clock()
    some = lanes(clock)
    lane = Lane("orders", 2)
    waits = []
    for row_id in (30, 20, 40, 50, 60):
        some.close(lane, row_id)
        began = clock.now
        while not some.due():
            clock.now += 0.1
        waits.append(clock.now - began)
    assert some.due() == {20: lane}
    for wait, step in zip(waits, (1, 2, 4, 8, 8), strict=True):
        assert step / 2 <= wait <= step + 0.2
    assert some.open(lane)
    assert not some.open(lane)
    assert some.is_open("orders", keys_of(2)[0])
    assert not some.due()


def test_what_is_under_way_is_not_tried_again_before_it_must_have_been_reported() -> None:
    clock = Clock()
    some = lanes(clock)
    some.close(Lane("orders", 2), 10, 15.0)
    clock.now += 14.9
    assert not some.due()
    clock.now += 0.2
    assert list(some.due()) == [10]
