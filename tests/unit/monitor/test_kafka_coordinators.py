from __future__ import annotations

import pytest

from monitor.kafka.coordinators import is_answered, partition_of
from monitor.model import Partition


@pytest.mark.parametrize(
    ("group", "java_hash"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99_162_322),
        ("payment-workers", 1_776_405_486),
        ("analytics", -1_693_017_210),
        ("\u00e9\U0001f600", 1_996_812),  # two chars of a pair count as two, as in Java
        ("polygenelubricants", -(1 << 31)),  # the one whose absolute value is no Java int
    ],
)
def test_a_group_is_in_the_partition_that_its_java_hash_says(group: str, java_hash: int) -> None:
    expected = 0 if java_hash == -(1 << 31) else abs(java_hash)
    assert partition_of(group, 2_000_000_000) == expected % 2_000_000_000
    assert partition_of(group, 50) == expected % 50


def test_only_the_leader_of_a_groups_partition_can_say_that_it_is_gone() -> None:
    partitions = {0: Partition(1), 1: Partition(2), 2: Partition(None)}  # "a" is 97: in 1
    assert is_answered("a", 1, partitions, {2})
    assert not is_answered("a", 1, partitions, {1})
    assert not is_answered("b", 1, partitions, {1, 2})  # "b" is 98: in 2, which nobody leads


def test_where_partitions_are_hidden_the_last_coordinator_counts() -> None:
    assert is_answered("a", 1, {}, {1})
    assert not is_answered("a", 1, {}, {2})
