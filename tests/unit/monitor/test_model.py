from __future__ import annotations

from monitor.model import Broker, Group, Member, Offsets, Partition


def test_an_offset_that_was_never_seen_is_none_not_zero() -> None:
    offsets = Offsets({"orders": {0: 7}}, seen_at=100.0)
    assert offsets.get("orders", 0) == 7
    assert offsets.get("orders", 1) is None
    assert offsets.get("payments", 0) is None


def test_a_stale_partition_keeps_the_time_at_which_it_was_seen() -> None:
    offsets = Offsets({"orders": {0: 7, 1: 8}}, seen_at=100.0, silent={"orders": {1: 40.0}})
    assert offsets.time_of("orders", 0) == 100.0
    assert offsets.time_of("orders", 1) == 40.0
    assert offsets.is_silent("orders", 1)
    assert not offsets.is_silent("orders", 0)
    assert not offsets.is_silent("payments", 0)


def test_a_partition_knows_its_preferred_leader_and_missing_replicas() -> None:
    healthy = Partition(leader=1, replicas=(1, 2), isr=(2, 1))
    assert healthy.leader_is_preferred
    assert not healthy.under_replicated
    assert Partition(leader=2, replicas=(1, 2), isr=(2,)).under_replicated
    assert not Partition(leader=2, replicas=(1, 2), isr=(2,)).leader_is_preferred
    assert not Partition(leader=None).leader_is_preferred


def test_a_group_lists_who_holds_what() -> None:
    member = Member("m-1", "client", "/10.0.0.1", {"a": (0, 2), "b": (1,)})
    assert list(Group("g", members=(member,)).assignments()) == [
        (member, "a", 0),
        (member, "a", 2),
        (member, "b", 1),
    ]
    assert member.partition_count == 3
    assert list(Group("unknown members").assignments()) == []
    without = Group("g", members=(member,), left_out=frozenset({"a"}))
    assert list(without.assignments()) == [(member, "b", 1)]
    assert without.topics == {"b"}


def test_an_ipv6_address_is_bracketed() -> None:
    assert Broker(1, "::1", 9092).address == "[::1]:9092"
    assert Broker(1, "kafka", 9092).address == "kafka:9092"
