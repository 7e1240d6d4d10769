from __future__ import annotations

import pytest

from monitor.kafka.coordinators import leader_of, partition_of
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


def test_the_leader_of_its_partition_coordinates_a_group() -> None:
    partitions = {0: Partition(1), 1: Partition(2), 2: Partition(None)}
    assert leader_of("a", partitions) == 2  # 97 % 3 is 1
    assert leader_of("b", partitions) is None  # 98 is in 2, which nobody leads
    assert leader_of("a", {}) is None
