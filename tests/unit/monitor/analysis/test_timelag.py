"""Time lag against a fake log whose append times are known, over the workloads that break others."""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.analysis.measures import age as age_of
from monitor.analysis.time_questions import MAX_FIRST_TIME_QUESTIONS, MAX_TIME_QUESTIONS
from monitor.analysis.timelag import TimeLag, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

POLL_SECONDS = 15.0
START = 1_800_000_000.0
KEY = ("orders", 0)
UNCOMPACTED = {KEY[0]}


@dataclass
class FakeLog:
    """A partition as the broker keeps it: records by offset, and ListOffsets on them."""

    offsets: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # append times, ascending
    stamps: list[float] | None = None  # record timestamps where they are not the append times
    end: int = 0
    appended: list[float] = field(default_factory=list)  # of all records, removed ones too

    def append(self, time: float, *, hole: int = 0) -> None:
        self.offsets.append(self.end)
        self.times.append(time)
        self.appended.append(time)
        self.end += 1 + hole

    def end_at(self, time: float) -> int:
        count = bisect_left(self.times, time)
        if count == len(self.times):
            return self.end
        return self.offsets[count]

    def append_time(self, committed: int) -> float:
        return self.times[bisect_left(self.offsets, committed)]

    def offset_for(self, milliseconds: int, now: float) -> tuple[int, int]:
        stamps = self.stamps or self.times
        visible = bisect_left(self.times, now)
        if self.stamps is None:
            at = bisect_left(stamps, milliseconds / 1000, 0, visible)
            at = next(
                (i for i in range(at, visible) if int(stamps[i] * 1000) >= milliseconds), visible
            )
        else:
            at = next((i for i in range(visible) if int(stamps[i] * 1000) >= milliseconds), visible)
        if at == visible:
            return -1, -1
        return self.offsets[at], int(stamps[at] * 1000)

    def remove(self, keep: Callable[[int], bool]) -> None:
        """Compact: drop records; offsets stay."""
        kept = [(o, t) for o, t in zip(self.offsets, self.times, strict=True) if keep(o)]
        self.offsets = [o for o, _ in kept]
        self.times = [t for _, t in kept]


def observe(
    lag: TimeLag,
    ends: dict[str, dict[int, int]],
    lagging: Iterable[tuple[TopicPartition, int]],
    **told: Any,
) -> None:
    """Take in a poll and all committed offsets that are behind in it."""
    lag.observe(ends, **told)
    wanted: dict[str, dict[int, set[int]]] = {topic: {} for topic in ends}
    for (topic, partition), offset in lagging:
        wanted.setdefault(topic, {}).setdefault(partition, set()).add(offset)
    lag.want(wanted)


def seconds_of(lag: TimeLag, partition: TopicPartition, committed: int) -> float | None:
    moment = lag.oldest_at(partition, committed)
    return None if moment is None else age_of(moment, lag._clock.now)


def bracket_of(lag: TimeLag, partition: TopicPartition, committed: int) -> tuple[float, float]:
    log = lag._log(partition)
    assert log is not None
    return log.bounds(committed, lag._clock.offset)


def poll(
    lag: TimeLag,
    log: FakeLog,
    committed: int,
    now: float,
    *,
    wall: float | None = None,
    compacted: bool = False,
    rounds: int = MAX_TIME_QUESTIONS,
) -> int:
    """One poll as the poller does it; returns the requests that it took."""
    end = log.end_at(now)
    observe(
        lag,
        {KEY[0]: {KEY[1]: end}},
        [(KEY, committed)] if committed < end else [],
        now=now - START,
        wall=now if wall is None else wall,
        uncompacted=() if compacted else UNCOMPACTED,
    )
    for sent in range(rounds):
        asked = lag.questions()
        if not asked:
            return sent
        lag.answers(asked, {key: log.offset_for(ms, now) for key, ms in asked.items()})
    return rounds


# --- the workloads: how records are appended, and what the consumer has committed at a time


def steady(log: FakeLog, rng: random.Random, begin: float, end: float, rate: float) -> None:
    now = begin
    while (now := now + rng.expovariate(rate)) < end:
        log.append(now)


def bursts(log: FakeLog, rng: random.Random, begin: float, end: float) -> None:
    now = begin
    while now < end:
        for _ in range(rng.randrange(200, 2000)):
            now += rng.expovariate(2000)
            log.append(now)
        now += rng.uniform(20, 120)


def trickle(log: FakeLog, rng: random.Random, begin: float, end: float) -> None:
    now = begin
    while (now := now + rng.uniform(10, 90)) < end:
        log.append(now)


def clumps(log: FakeLog, rng: random.Random, begin: float, end: float) -> None:
    """Batches of records with one timestamp."""
    now = begin
    while (now := now + rng.expovariate(0.5)) < end:
        for _ in range(rng.randrange(1, 50)):
            log.append(now)


def transactions(log: FakeLog, rng: random.Random, begin: float, end: float) -> None:
    """Transactions of some records; the marker takes an offset and is not a record."""
    now = begin
    while now < end:
        size = rng.randrange(1, 40)
        for i in range(size):
            now += rng.expovariate(50)
            log.append(now, hole=1 if i == size - 1 else 0)
        now += rng.expovariate(0.5)


def behind(seconds: float) -> Callable[[FakeLog, float], int]:
    return lambda log, now: log.end_at(now - seconds)


def stands_still_from(seconds: float) -> Callable[[FakeLog, float], int]:
    return lambda log, now: log.end_at(min(now, START + seconds))


def rewinds(log: FakeLog, now: float) -> int:
    since = now - START
    return log.end_at(now - 5 if since < 300 else START + 30 + (since - 300) * 1.5)


def catches_up(log: FakeLog, now: float) -> int:
    return log.end_at(START - 1200 + (now - START) * 2.5)


def whole_offsets(log: FakeLog) -> None:
    """Compact the older half of the log: every third record survives."""
    limit = log.offsets[len(log.offsets) // 2]
    log.remove(lambda offset: offset >= limit or offset % 3 == 0)


@dataclass(frozen=True)
class Workload:
    produce: Callable[[FakeLog, random.Random], None]
    committed: Callable[[FakeLog, float], int]
    compact: bool = False
    monitor_starts: float = 0.0


def at_rate(rate: float) -> Callable[[FakeLog, random.Random], None]:
    return lambda log, rng: steady(log, rng, START - 1200, START + 900, rate)


def over(
    pattern: Callable[[FakeLog, random.Random, float, float], None],
) -> Callable[[FakeLog, random.Random], None]:
    return lambda log, rng: pattern(log, rng, START - 1200, START + 900)


def idle(log: FakeLog, rng: random.Random) -> None:
    steady(log, rng, START - 1200, START + 100, 20)


WORKLOADS = {
    "steady": Workload(at_rate(50), behind(40)),
    "burst": Workload(over(bursts), behind(45)),
    "stall": Workload(at_rate(30), stands_still_from(100)),
    "trickle": Workload(over(trickle), behind(100)),
    "idle": Workload(idle, stands_still_from(60)),
    "standing still": Workload(over(bursts), stands_still_from(-300)),
    "hot partition": Workload(at_rate(200), catches_up),
    "rewind": Workload(at_rate(40), rewinds),
    "clumps": Workload(over(clumps), behind(70)),
    "transactional": Workload(over(transactions), behind(35)),
    "compacted": Workload(at_rate(10), stands_still_from(-600), compact=True),
    "monitor restarted": Workload(over(bursts), behind(400), monitor_starts=600),
}


def simulate(workload: Workload, seed: int) -> tuple[list[float], list[int], list[int]]:
    """Return the errors in seconds, the requests of each poll, and the polls without an answer."""
    rng = random.Random(seed)
    log = FakeLog()
    workload.produce(log, rng)
    commits = [workload.committed(log, START + i * POLL_SECONDS) for i in range(60)]
    if workload.compact:
        whole_offsets(log)
    lag = TimeLag()
    errors: list[float] = []
    requests: list[int] = []
    unknown: list[int] = []
    for i, committed in enumerate(commits):
        now = START + i * POLL_SECONDS + rng.random()
        if now - START < workload.monitor_starts:
            continue
        rounds = MAX_TIME_QUESTIONS if requests else MAX_FIRST_TIME_QUESTIONS
        requests.append(poll(lag, log, committed, now, compacted=workload.compact, rounds=rounds))
        seconds = seconds_of(lag, KEY, committed)
        truth = now - log.append_time(committed) if committed < log.end_at(now) else 0.0
        if seconds is None:
            unknown.append(len(requests) - 1)
        else:
            errors.append(abs(seconds - truth))
    return errors, requests, unknown


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_error_stays_within_a_second_over(name: str) -> None:
    errors: list[float] = []
    for seed in range(3):
        found, requests, unknown = simulate(WORKLOADS[name], seed)
        assert len(unknown) <= 1, "a search may need a second poll, rarely"
        assert max(requests[1:]) <= MAX_TIME_QUESTIONS
        errors += found
    assert quantile(errors, 0.5) <= 0.5
    assert quantile(errors, 0.99) <= 0.5
    assert max(errors) <= 1.0


def a_log(*times: float) -> FakeLog:
    log = FakeLog()
    for time in times:
        log.append(START + time)
    return log


def test_nothing_unread_is_zero() -> None:
    log, lag = a_log(-100, -50), TimeLag()
    poll(lag, log, 2, START)
    assert seconds_of(lag, KEY, 2) == 0
    assert seconds_of(lag, KEY, 5) == 0  # a commit past the end


def test_a_partition_that_was_never_seen_is_unknown() -> None:
    assert TimeLag().oldest_at(KEY, 0) is None


def test_it_grows_by_one_second_per_second_while_the_consumer_stands_still() -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START - 300, START + 600, 5)
    committed = log.end_at(START - 20)
    seen = []
    for i in range(40):
        poll(lag, log, committed, START + i * POLL_SECONDS)
        seconds = seconds_of(lag, KEY, committed)
        assert seconds is not None
        seen.append(seconds)
    assert {round(b - a, 6) for a, b in pairwise(seen)} == {POLL_SECONDS}


def test_a_standing_consumer_is_asked_about_once() -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START - 300, START + 600, 5)
    committed = log.end_at(START - 20)
    poll(lag, log, committed, START)
    assert [poll(lag, log, committed, START + i * POLL_SECONDS) for i in range(1, 20)] == [0] * 19


def test_a_reply_with_the_committed_offset_itself_is_exact() -> None:
    log, lag = a_log(-500, -123.456), TimeLag()
    poll(lag, log, 1, START)
    assert seconds_of(lag, KEY, 1) == pytest.approx(123.456, abs=0.002)


def test_without_an_answer_it_stays_unknown_rather_than_guessed() -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START - 3000, START, 5)
    observe(
        lag, {"orders": {0: log.end}}, [(KEY, 10)], now=0.0, wall=START, uncompacted=UNCOMPACTED
    )
    asked = lag.questions()
    assert set(asked) == {KEY}
    lag.answers(asked, {})
    assert lag.questions() == {}
    assert seconds_of(lag, KEY, 10) is None


def test_without_answers_the_polls_alone_bound_it() -> None:
    lag = TimeLag()
    observe(lag, {"orders": {0: 10}}, [], now=0.0, wall=START, uncompacted=UNCOMPACTED)
    observe(
        lag, {"orders": {0: 20}}, [(KEY, 10)], now=15.0, wall=START + 15, uncompacted=UNCOMPACTED
    )
    lag.answers(lag.questions(), {})
    assert seconds_of(lag, KEY, 10) == 7.5
    observe(
        lag, {"orders": {0: 20}}, [(KEY, 10)], now=30.0, wall=START + 30, uncompacted=UNCOMPACTED
    )
    lag.answers(lag.questions(), {})
    assert seconds_of(lag, KEY, 10) == 22.5


def test_a_wall_clock_that_jumps_does_not_move_what_the_polls_saw() -> None:
    lag = TimeLag()
    observe(lag, {"orders": {0: 10}}, [], now=0.0, wall=START, uncompacted=UNCOMPACTED)
    observe(
        lag,
        {"orders": {0: 20}},
        [(KEY, 10)],
        now=15.0,
        wall=START + 15 - 3600,
        uncompacted=UNCOMPACTED,
    )
    lag.answers(lag.questions(), {})
    assert seconds_of(lag, KEY, 10) == 7.5


def test_a_wall_clock_that_jumps_back_for_good_leaves_the_answer_sane() -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START - 300, START + 600, 5)
    committed = log.end_at(START - 20)
    for i in range(10):
        now = START + i * POLL_SECONDS
        poll(lag, log, committed, now, wall=now - (3600 if i > 4 else 0))
        seconds = seconds_of(lag, KEY, committed)
        assert seconds is None or 0 <= seconds <= i * POLL_SECONDS + 21


def test_groups_at_the_same_offset_share_one_question() -> None:
    lag = TimeLag()
    observe(
        lag,
        {"orders": {0: 100}},
        [(KEY, 50), (KEY, 50), (KEY, 60)],
        now=0.0,
        wall=START,
        uncompacted=UNCOMPACTED,
    )
    assert len(lag.questions()) == 1


def test_that_no_record_is_as_new_says_nothing_of_the_records_to_come() -> None:
    log, lag = a_log(-600, -300, 12), TimeLag()
    poll(lag, log, 1, START)
    poll(lag, log, 2, START + POLL_SECONDS, rounds=0)
    _, high = bracket_of(lag, KEY, 2)
    assert high == START + POLL_SECONDS


def test_what_one_group_learned_serves_the_others() -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START - 300, START, 5)
    first = log.end_at(START - 100)
    poll(lag, log, first, START)
    low, high = bracket_of(lag, KEY, first + 1)
    assert high - low < 310  # bounded below, although nobody asked for this offset


def test_a_rewind_is_found_again() -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START - 900, START + 60, 5)
    poll(lag, log, log.end_at(START), START)
    committed = log.end_at(START - 600)
    for i in (1, 2):
        poll(lag, log, committed, START + i * POLL_SECONDS)
    assert seconds_of(lag, KEY, committed) == pytest.approx(
        START + 2 * POLL_SECONDS - log.append_time(committed), abs=0.5
    )


def test_a_truncated_log_forgets_the_records_that_were_replaced() -> None:
    lag = TimeLag()
    for now, end in ((0.0, 60), (15.0, 100), (30.0, 130), (600.0, 50)):
        observe(lag, {"orders": {0: end}}, [], now=now, wall=START + now, uncompacted=UNCOMPACTED)
    observe(
        lag, {"orders": {0: 140}}, [(KEY, 80)], now=615.0, wall=START + 615, uncompacted=UNCOMPACTED
    )
    low, high = bracket_of(lag, KEY, 80)
    assert (low, high) == (START + 600, START + 615)


def test_of_a_topic_that_stood_until_now_is_known_when_it_was_seen_to_stand() -> None:
    lag = TimeLag()
    for now, end in ((0.0, 60), (15.0, 60), (30.0, 60), (45.0, 70)):
        observe(lag, {"orders": {0: end}}, [], now=now, wall=START + now, uncompacted=UNCOMPACTED)
    low, high = bracket_of(lag, KEY, 60)
    assert (low, high) == (START + 30, START + 45)
    _, before = bracket_of(lag, KEY, 59)
    assert before == START


def test_a_topic_created_anew_starts_anew() -> None:
    lag = TimeLag()
    observe(lag, {"orders": {0: 100}}, [], now=0.0, wall=START, uncompacted=UNCOMPACTED)
    lag.forget("orders")
    assert seconds_of(lag, KEY, 50) is None


@pytest.mark.parametrize("offset", [-7 * 86400.0, 86400.0], ids=["old", "future"])
def test_record_timestamps_that_are_not_append_times_do_not_blow_it_up(offset: float) -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START, START + 300, 5)
    log.stamps = [time + offset for time in log.times]
    for i in range(20):
        now = START + 1 + i * POLL_SECONDS
        committed = log.end_at(now - 40)
        poll(lag, log, committed, now)
        if i > 3 and committed < log.end_at(now):
            # what the polls alone can tell: half their interval off at most
            truth = now - log.append_time(committed)
            assert seconds_of(lag, KEY, committed) == pytest.approx(
                truth, abs=POLL_SECONDS / 2 + 0.5
            )


def test_timestamps_out_of_order_stay_within_what_the_polls_saw() -> None:
    rng = random.Random(1)
    log, lag = FakeLog(), TimeLag()
    steady(log, rng, START, START + 300, 5)
    log.stamps = [time - rng.uniform(0, 1.5) for time in log.times]
    for i in range(20):
        now = START + 1 + i * POLL_SECONDS
        committed = log.end_at(now - 40)
        poll(lag, log, committed, now)
        if i > 3 and committed < log.end_at(now):
            assert seconds_of(lag, KEY, committed) == pytest.approx(40, abs=2.5)


def test_compaction_of_the_oldest_unread_record_moves_on_to_the_next() -> None:
    log, lag = a_log(-900, -600, -300, -60), TimeLag()
    for i in range(3):
        poll(lag, log, 1, START + i, compacted=True)
    assert seconds_of(lag, KEY, 1) == pytest.approx(602, abs=0.5)
    log.remove(lambda offset: offset != 1)
    poll(lag, log, 1, START + 5, compacted=True)
    assert seconds_of(lag, KEY, 1) == pytest.approx(305, abs=0.5)


def test_memory_of_a_partition_is_bounded() -> None:
    lag = TimeLag()
    for i in range(500):
        observe(
            lag,
            {"orders": {0: 10 * i, 1: 10 * i}},
            [(KEY, 0)],
            now=15.0 * i,
            wall=START,
            uncompacted=UNCOMPACTED,
        )
    lagging, idle = (lag._topics["orders"].appends.logs()[p].ends for p in (0, 1))
    assert len(lagging) <= 48
    assert len(idle) <= 6


def test_a_running_monitor_is_not_misled_by_where_the_removed_record_was() -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START, START + 300, 5)
    committed = log.end_at(START + 100)
    for i in range(20):
        now = START + 1 + i * POLL_SECONDS
        if i == 12:  # a minute and more after they came, when polls had seen the log grow
            log.remove(lambda offset: offset >= log.end_at(START + 150) or offset % 400 == 0)
        poll(lag, log, committed, now, compacted=True)
        if committed < log.end_at(now):
            assert seconds_of(lag, KEY, committed) == pytest.approx(
                truth(log, committed, now), abs=0.5
            )


def test_of_a_compacted_log_nothing_is_said_before_this_poll_has_seen_what_is_left() -> None:
    log, lag = a_log(-600, -300, -60), TimeLag()
    poll(lag, log, 1, START, compacted=True)
    assert seconds_of(lag, KEY, 1) == pytest.approx(300, abs=0.5)
    poll(lag, log, 1, START + POLL_SECONDS, compacted=True, rounds=0)
    assert seconds_of(lag, KEY, 1) is None


def test_reading_on_where_compaction_removed_everything_costs_one_question_a_poll() -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(1), START, START + 600, 5)
    asked = []
    for i in range(24):
        now = START + 1 + i * POLL_SECONDS
        if i == 20:
            log.remove(lambda offset: offset >= log.end_at(START + 280))
        committed = bisect_left(log.appended, now - 100)
        asked.append(poll(lag, log, committed, now, compacted=True))
        assert seconds_of(lag, KEY, committed) == pytest.approx(truth(log, committed, now), abs=0.5)
    assert asked[-3:] == [1, 1, 1]


def test_unread_records_of_the_last_read_ones_millisecond_do_not_pass_for_removed() -> None:
    log = a_log(-900, *[-500] * 50)
    for compacted in (False, True):
        lag = TimeLag()
        poll(lag, log, 20, START, compacted=compacted, rounds=MAX_FIRST_TIME_QUESTIONS)
        assert seconds_of(lag, KEY, 20) == pytest.approx(500, abs=0.5)


# --- two groups on each partition, one near the end and one a minute behind, as the benchmark has


def compacted_log(rng: random.Random) -> Iterator[tuple[float, FakeLog]]:
    """Yield poll times, with the log as it is then; it is cleaned up to some seconds before."""
    log, now, cleaned = FakeLog(), START, START
    keys: dict[int, int] = {}
    for i in range(1, 20):
        poll_at = START + POLL_SECONDS * i + rng.random()
        while (now := now + rng.expovariate(20)) < poll_at:
            keys[log.end] = rng.randrange(40)
            log.append(now)
            if now > cleaned + 9:
                cleaned = now
                dirty = log.end_at(now - rng.uniform(0, 8))
                newest = {keys[offset]: offset for offset in log.offsets if offset < dirty}
                left = set(newest.values())
                log.remove(partial(is_left, dirty=dirty, left=left))
        yield poll_at, log


def is_left(offset: int, *, dirty: int, left: set[int]) -> bool:
    return offset >= dirty or offset in left


def bursty_log(rng: random.Random) -> Iterator[tuple[float, FakeLog]]:
    log, burst_at = FakeLog(), START
    for tick in range(6000):
        now = START + tick / 20
        if now >= burst_at:
            burst_at = now + rng.uniform(10, 30)
            for i in range(1500):
                log.append(now + i * 2e-6)
        if rng.random() < 0.25:
            log.append(now + 0.01)
        if tick and not tick % 300:
            yield now + 0.02, log


def transactional_log(rng: random.Random) -> Iterator[tuple[float, FakeLog]]:
    log, now = FakeLog(), START
    marker_at = now + rng.uniform(0.5, 6)
    for i in range(1, 20):
        poll_at = START + POLL_SECONDS * i + rng.random()
        while (now := now + rng.expovariate(10)) < poll_at:
            ends = now >= marker_at
            log.append(now, hole=int(ends))
            if ends:
                marker_at = now + rng.uniform(0.5, 6)
        yield poll_at, log


@pytest.mark.parametrize("history", [compacted_log, bursty_log, transactional_log])
@pytest.mark.parametrize("first", [True, False], ids=["first poll", "running"])
def test_both_groups_of_a_partition_are_known(
    history: Callable[[random.Random], Iterator[tuple[float, FakeLog]]], *, first: bool
) -> None:
    errors: list[float] = []
    unknown = 0
    for seed in range(16):
        rng, lag = random.Random(seed), TimeLag()
        for number, (now, log) in enumerate(history(rng)):
            if first:
                lag = TimeLag()
            groups = [
                bisect_left(log.appended, now - rng.uniform(0, 13)),
                bisect_left(log.appended, now - 60 - rng.uniform(0, 5)),
            ]
            is_first = first or not number
            rounds = MAX_FIRST_TIME_QUESTIONS if is_first else MAX_TIME_QUESTIONS
            poll_all(lag, log, groups, now, compacted=history is compacted_log, rounds=rounds)
            for offset in groups:
                seconds = seconds_of(lag, KEY, offset)
                unknown += seconds is None
                if seconds is not None:
                    errors.append(abs(seconds - truth(log, offset, now)))
    assert unknown <= 0.02 * len(errors)
    assert quantile(errors, 0.5) <= 0.2
    assert quantile(errors, 0.99) <= 0.5
    assert max(errors) <= 1.0


def loaded_at_once(log: FakeLog, rng: random.Random, age: float) -> None:
    """Write a hundred records within some milliseconds."""
    for i in range(100):
        log.append(START - age + 0.00005 * i * rng.random())


def loaded_twice(log: FakeLog, rng: random.Random, age: float) -> None:
    loaded_at_once(log, rng, age)
    for _ in range(10):
        log.append(START - 5)


@pytest.mark.parametrize("load", [loaded_at_once, loaded_twice])
def test_what_was_loaded_at_once_is_found_in_a_few_questions(
    load: Callable[[FakeLog, random.Random, float], None],
) -> None:
    for seed in range(30):
        rng = random.Random(seed)
        log, lag, age = FakeLog(), TimeLag(), rng.uniform(30, 3600)
        load(log, rng, age)
        assert poll(lag, log, 90, START, rounds=MAX_FIRST_TIME_QUESTIONS) <= 6
        assert seconds_of(lag, KEY, 90) == pytest.approx(age, abs=0.5)


def test_a_producer_that_stopped_long_ago_is_found_by_the_rate_at_which_it_wrote() -> None:
    unknown = 0
    for seed in range(40):
        rng = random.Random(seed)
        log, lag = FakeLog(), TimeLag()
        stopped = START - rng.uniform(60, 3600)
        steady(log, rng, stopped - rng.uniform(60, 600), stopped, rng.choice([1, 10, 50]))
        committed = rng.randrange(len(log.times))
        poll(lag, log, committed, START, rounds=MAX_FIRST_TIME_QUESTIONS)
        seconds = seconds_of(lag, KEY, committed)
        unknown += seconds is None
        if seconds is not None:
            assert seconds == pytest.approx(START - log.append_time(committed), abs=1.0)
    assert unknown <= 8


def truth(log: FakeLog, committed: int, now: float) -> float:
    at = bisect_left(log.offsets, committed)
    return now - log.times[at] if at < len(log.times) else 0.0


def poll_all(
    lag: TimeLag,
    log: FakeLog,
    groups: list[int],
    now: float,
    *,
    compacted: bool,
    rounds: int = MAX_TIME_QUESTIONS,
    cleaned: bool = False,
) -> None:
    observe(
        lag,
        {KEY[0]: {KEY[1]: log.end}},
        [(KEY, offset) for offset in groups if offset < log.end],
        now=now - START,
        wall=now,
        uncompacted=() if compacted else UNCOMPACTED,
    )
    for number in range(rounds):
        asked = lag.questions()
        lag.answers(asked, {key: log.offset_for(ms, now) for key, ms in asked.items()})
        if cleaned and number == 1:
            clean(log, 0.7, 5)


# --- any log, compacted at any time: what is reported is as right as promised


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, float, float]]:
    """What happens to a partition: (event, two numbers of it)."""
    append = st.tuples(st.just("append"), st.integers(1, 120), st.sampled_from([0.002, 0.05, 0.9]))
    wait = st.tuples(st.just("wait"), st.floats(0.1, 90), st.just(0))
    clean = st.tuples(st.just("clean"), st.floats(0, 1), st.sampled_from([2, 7, 60, 1000]))
    ask = st.tuples(st.just("poll"), st.floats(0, 1), st.sampled_from([0, 0.3, 1]))
    return draw(st.lists(st.one_of(append, wait, clean, ask), min_size=4, max_size=40))


def clean(log: FakeLog, share: float, every: int) -> None:
    """Compact the oldest share of the log; the newest record stays, as in an active segment."""
    limit = log.offsets[int((len(log.offsets) - 1) * share)] if log.offsets else 0
    log.remove(lambda offset: offset >= limit or offset % every == 0)


@settings(max_examples=150, deadline=None)
@given(history=histories(), compacted=st.booleans(), during_polls=st.booleans())
def test_whatever_is_reported_is_within_the_promised_error(
    history: list[tuple[str, float, float]], *, compacted: bool, during_polls: bool
) -> None:
    log, lag, now, standing = a_log(0), TimeLag(), START + 1, 1
    for event, amount, kind in history:
        now += 0.002
        if event == "append":
            for _ in range(int(amount)):
                now += kind
                log.append(now)
        elif event == "wait":
            now += amount
        elif event == "clean" and compacted:
            clean(log, amount, int(kind))
        elif event == "poll":
            now += 0.002
            # who stands still, who reads on or goes back, and who is where the first stood before
            groups = [standing, int(log.end * amount), min(log.end, standing + 1)]
            standing = groups[1] if kind else standing
            before = [truth(log, offset, now) for offset in groups]
            cleaned = during_polls and compacted
            poll_all(lag, log, groups, now, compacted=compacted, cleaned=cleaned)
            after = [truth(log, offset, now) for offset in groups]
            for offset, newest, oldest in zip(groups, after, before, strict=True):
                seconds = seconds_of(lag, KEY, offset)
                if seconds is not None:
                    allowed = max(1.0, 0.001 * oldest) + 0.01
                    assert newest - allowed <= seconds <= oldest + allowed


# --- wanted offsets that are outside what is known of the log


@pytest.mark.parametrize("committed", [19, 20, 21, 5_000])
@pytest.mark.parametrize("compacted", [True, False])
def test_at_the_newest_end_and_past_it_nothing_is_searched(
    committed: int, *, compacted: bool
) -> None:
    lag = TimeLag()
    for now in (0.0, 15.0):
        observe(
            lag,
            {KEY[0]: {KEY[1]: 20}},
            [(KEY, committed)],
            now=now,
            wall=START + now,
            uncompacted=() if compacted else UNCOMPACTED,
        )
        for _ in range(MAX_FIRST_TIME_QUESTIONS):
            asked = lag.questions()
            assert not asked or committed < 20
            lag.answers(asked, dict.fromkeys(asked, (-1, -1)))
        if committed >= 20:
            assert seconds_of(lag, KEY, committed) == 0


@settings(deadline=None)
@given(
    polls=st.lists(
        st.tuples(
            st.integers(0, 40),  # the log end
            st.lists(st.integers(0, 60), max_size=4),  # wanted offsets
            st.lists(st.tuples(st.integers(-1, 60), st.floats(-1e5, 1e5)), min_size=6, max_size=6),
        ),
        min_size=1,
        max_size=8,
    ),
    compacted=st.booleans(),
    dated=st.booleans(),
)
def test_no_offset_no_log_end_and_no_reply_makes_it_raise_or_tell_of_the_future(
    polls: list[tuple[int, list[int], list[tuple[int, float]]]], *, compacted: bool, dated: bool
) -> None:
    lag = TimeLag()
    for number, (end, offsets, replies) in enumerate(polls):
        now = 15.0 * number
        observe(
            lag,
            {KEY[0]: {KEY[1]: end}},
            [(KEY, offset) for offset in offsets],
            now=now,
            wall=START + now,
            uncompacted=() if compacted else UNCOMPACTED,
            dated=UNCOMPACTED if dated else (),
            starts={KEY[0]: {KEY[1]: min(offsets, default=0)}},
        )
        for offset, since in replies:
            asked = lag.questions()
            if not asked:
                break
            time = -1 if offset < 0 else int((START + now + since) * 1000)
            lag.answers(asked, {KEY: (offset, time)})
        for offset in offsets:
            seconds = seconds_of(lag, KEY, offset)
            assert seconds is None or seconds >= 0
            assert offset < end or seconds == 0
    assert lag._guard.failures == {}


# --- timestamps that nobody's clock told


@pytest.mark.parametrize("stamp", [0.0, -0.001, 1_000.0, START + 86_400], ids=str)
def test_of_records_from_before_the_first_look_without_a_credible_time_the_wait_since_is_told(
    stamp: float,
) -> None:
    log = a_log(-500, -400)
    log.stamps = [stamp] * 2
    lag = TimeLag()
    seen = []
    for number in range(60):
        poll(lag, log, 0, START + number * POLL_SECONDS)
        seen.append(seconds_of(lag, KEY, 0))
    # not 20784 days, nor nothing at all: it has been there since the first look at least
    assert seen == [None, *(number * POLL_SECONDS for number in range(1, 60))]


def test_records_without_a_time_that_are_seen_to_come_are_dated_by_the_polls() -> None:
    log, lag = a_log(-500), TimeLag()
    poll(lag, log, 1, START)
    log.append(START + 5)
    log.stamps = [0.0, 0.0]
    poll(lag, log, 1, START + 15)
    poll(lag, log, 1, START + 30)
    assert seconds_of(lag, KEY, 1) == pytest.approx(25, abs=10)


# --- the timestamp that a record carries


def dated_poll(lag: TimeLag, log: FakeLog, committed: int, now: float, *, start: int = 0) -> None:
    end = log.end_at(now)
    observe(
        lag,
        {KEY[0]: {KEY[1]: end}},
        [(KEY, committed)],
        now=now - START,
        wall=now,
        uncompacted=UNCOMPACTED,
        dated=UNCOMPACTED,
        starts={KEY[0]: {KEY[1]: start}},
    )
    for _ in range(MAX_TIME_QUESTIONS):
        asked = lag.questions()
        if not asked:
            return
        lag.answers(asked, {key: log.offset_for(ms, now) for key, ms in asked.items()})


def test_a_mirrored_record_at_the_log_start_has_the_time_that_it_carries() -> None:
    log, lag = FakeLog(), TimeLag()
    dated_poll(lag, log, 0, START)
    for _ in range(50):
        log.append(START + 3)
    log.stamps = [START - 863_980.0] * 50
    for polls in range(1, 4):
        dated_poll(lag, log, 0, START + polls * POLL_SECONDS)
        assert lag.record_time(KEY, 0) == START - 863_980


def test_a_mirrored_record_further_on_has_no_time_that_is_known() -> None:
    log, lag = FakeLog(), TimeLag()
    dated_poll(lag, log, 0, START)
    for _ in range(50):
        log.append(START + 3)
    log.stamps = [START - 863_980.0] * 50
    for polls in range(1, 4):
        dated_poll(lag, log, 20, START + polls * POLL_SECONDS)
        assert lag.record_time(KEY, 20) is None


@pytest.mark.parametrize("committed", [0, 1, 37, 90])
def test_a_record_of_a_sane_clock_has_its_time_or_a_moment_before(committed: int) -> None:
    log, lag = FakeLog(), TimeLag()
    steady(log, random.Random(4), START - 300, START + 60, 1)
    log.stamps = [time - 0.3 for time in log.times]
    for polls in range(4):
        dated_poll(lag, log, committed, START + polls * POLL_SECONDS)
    told = lag.record_time(KEY, committed)
    assert told is not None
    assert log.stamps[committed] - 3 <= told <= log.stamps[committed]


def test_the_time_of_a_record_is_asked_for_once() -> None:
    log, lag = FakeLog(), TimeLag()
    dated_poll(lag, log, 0, START)
    for _ in range(50):
        log.append(START + 3)
    log.stamps = [START - 863_980.0] * 50
    dated_poll(lag, log, 20, START + POLL_SECONDS)
    for polls in range(2, 6):
        now = START + polls * POLL_SECONDS
        observe(
            lag,
            {KEY[0]: {KEY[1]: 50}}, [(KEY, 20)], now=now - START, wall=now,
            uncompacted=UNCOMPACTED, dated=UNCOMPACTED,
        )  # fmt: skip
        assert lag.questions() == {}


@pytest.mark.parametrize("set_by", [86_400.0, -86_400.0, -600.0])
def test_a_clock_that_is_set_changes_no_age_of_records_from_before_the_first_poll(
    set_by: float,
) -> None:
    """Only the first reply tells of them, by the clock as it was."""
    lag, wall = TimeLag(), 1_700_000_000.0
    written_at = wall - 1_800

    def poll(now: float, ahead: float) -> float | None:
        observe(lag, {"t": {0: 10}}, [(("t", 0), 0)], now=now, wall=wall + now + ahead,
                    uncompacted={"t"})  # fmt: skip
        for _ in range(12):
            asked = lag.questions()
            if not asked:
                break
            lag.answers(asked, {
                key: (0, int(written_at * 1000)) if at <= written_at * 1000 else (-1, -1)
                for key, at in asked.items()
            })  # fmt: skip
        return seconds_of(lag, ("t", 0), 0)

    assert poll(0.0, 0.0) == pytest.approx(1_800, abs=1)
    assert poll(15.0, 0.0) == pytest.approx(1_815, abs=1)
    assert poll(30.0, set_by) == pytest.approx(1_830, abs=1)
    assert poll(45.0, 0.0) == pytest.approx(1_845, abs=1)


def test_a_clock_that_is_set_right_is_followed_once_a_record_shows_it() -> None:
    """The monitor began a day behind: what is stamped while it watches tells so."""
    lag, wall = TimeLag(), 1_700_000_000.0
    written_at = wall + 20.0  # by the brokers' clock, between the second poll and the third

    def poll(now: float, ends: int, ahead: float) -> float | None:
        observe(lag, {"t": {0: ends}}, [(("t", 0), 5)], now=now, wall=wall + now + ahead,
                    uncompacted={"t"})  # fmt: skip
        for _ in range(12):
            asked = lag.questions()
            if not asked:
                break
            lag.answers(asked, {
                key: (5, int(written_at * 1000)) if at <= written_at * 1000 else (-1, -1)
                for key, at in asked.items()
            })  # fmt: skip
        return seconds_of(lag, ("t", 0), 5)

    poll(0.0, 5, -86_400.0)
    poll(15.0, 5, -86_400.0)
    assert poll(30.0, 10, 0.0) == pytest.approx(10, abs=8)
    assert poll(45.0, 10, 0.0) == pytest.approx(25, abs=1)
