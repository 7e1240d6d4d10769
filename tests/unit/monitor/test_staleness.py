"""What is too old is taken out of a snapshot, and of all that was measured by it, whatever it is."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.analyst import Analyst
from monitor.model import (
    Broker,
    Group,
    LogSizes,
    Offsets,
    Partition,
    Refused,
    Silent,
    Snapshot,
    Topic,
)
from monitor.state import State

NOW = 1_000.0
MOMENTS = st.floats(900.0, NOW)
PARTITIONS = st.dictionaries(st.integers(0, 3), st.integers(0, 50), max_size=4)
ANSWERS = st.one_of(
    st.none(), st.just(Refused("denied")), st.builds(Silent, st.one_of(st.none(), MOMENTS))
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Two topics of four partitions, some of which were seen long ago; groups of all kinds."""
    names = ("a", "b")

    def offsets() -> Offsets:
        values = {name: found for name in names if (found := draw(PARTITIONS))}
        silent = {
            name: {p: draw(MOMENTS) for p in of if draw(st.booleans())}
            for name, of in values.items()
        }
        return Offsets(values, NOW, {name: of for name, of in silent.items() if of})

    groups = {}
    for name in ("g", "h"):
        answer = draw(ANSWERS)
        commits = {topic: found for topic in names if (found := draw(PARTITIONS))}
        group = Group(name, state="Stable", members=(), commits=commits)
        groups[name] = replace(group, answer=answer) if answer is not None else group
    return Snapshot(
        "c",
        NOW,
        draw(st.one_of(st.just(NOW), MOMENTS)),
        brokers={1: Broker(1, "one", 1), 2: Broker(2, "two", 2)},
        broker_errors=draw(st.sampled_from([{}, {2: "silent"}, {1: "silent", 2: "silent"}])),
        topics={name: Topic(name, dict.fromkeys(range(4), Partition(1))) for name in names},
        start_offsets=offsets(),
        end_offsets=offsets(),
        stable_offsets=offsets(),
        groups=groups,
        log_sizes={2: LogSizes({"a": {0: 1}}, draw(MOMENTS))},
    )


@given(snapshots(), st.floats(0, 100))
def test_nothing_that_is_left_is_too_old(seen: Snapshot, seconds: float) -> None:
    state = State("c", NOW, seen, Analyst().measure(seen), monotonic_at=NOW)
    shown = state.without_older_than(seconds)
    moment = NOW - seconds
    snapshot = shown.snapshot
    assert snapshot is not None
    assert shown.oldest_at is None or shown.oldest_at >= moment
    assert all(at >= moment for of in snapshot.end_offsets.silent.values() for at in of.values())
    for group in snapshot.groups.values():
        assert not group.is_silent or (group.silent_since or 0) >= moment
    assert shown.groups.keys() == snapshot.groups.keys()
    ends = snapshot.end_offsets.values
    for measures in shown.groups.values():
        for field in ("partitions", "past_end", "unread"):
            for topic, lags in getattr(measures.lag, field).items():
                assert lags.keys() <= ends.get(topic, {}).keys()
        for topic, times in measures.oldest_unread_at.items():
            assert times.keys() <= ends.get(topic, {}).keys()
        lag = measures.lag
        assert lag.topics == {topic: sum(of.values()) for topic, of in lag.partitions.items()}
        assert lag.total == sum(lag.topics.values())
    # once is enough, and what is not too old is as it was
    assert shown.without_older_than(seconds) == shown
    if seen.monotonic_at >= moment:
        for topic, of in seen.end_offsets.values.items():
            for partition, offset in of.items():
                if seen.end_offsets.time_of(topic, partition) >= moment:
                    assert ends[topic][partition] == offset
        for name, group in seen.groups.items():
            assert (name in snapshot.groups) == group.is_since(moment)


@given(snapshots())
def test_a_snapshot_in_which_nothing_is_old_is_itself(seen: Snapshot) -> None:
    fresh = replace(
        seen,
        monotonic_at=NOW,
        **{
            field.name: replace(getattr(seen, field.name), silent={})
            for field in fields(seen)
            if isinstance(getattr(seen, field.name), Offsets)
        },
        groups={n: g for n, g in seen.groups.items() if not g.is_silent},
        log_sizes={},
    )
    assert fresh.without_older_than(NOW) is fresh
