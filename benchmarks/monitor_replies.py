"""What is gained where Kafka's messages are encoded or read by hand, or not read again.

The replies are those of a cluster of 1,000 topics x 10 partitions and 2,000 groups with 20,000 commits
(benchmarks/stub_brokers.py). Each pair is measured in turns, on the same bytes; the least of all rounds
counts.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from typing import Final

from kafka.protocol.admin import ListGroupsRequest
from kafka.protocol.consumer import OffsetFetchResponse

from benchmarks.stub_brokers import StubCluster
from benchmarks.support import run, table
from monitor.kafka.apis import offset_fetch
from monitor.kafka.apis.list_groups import ListGroups
from monitor.kafka.apis.list_offsets import LATEST, ListOffsets
from monitor.kafka.apis.offset_fetch import FetchCommits
from monitor.kafka.encoded import Reply

TOPICS: Final = 1_000
PARTITIONS: Final = 10
OFFSET_FETCH: Final = 9
LIST_OFFSETS: Final = 11
LIST_GROUPS: Final = 5

Work = Callable[[], object]


def pairs(topics: int) -> dict[str, tuple[Work, Work]]:
    """Return what is done by kafka-python, and instead of it."""
    cluster = StubCluster(topics)
    asked = FetchCommits(cluster.groups)
    body = cluster.reply(0, 9, OFFSET_FETCH, offset_fetch.encode(cluster.groups, OFFSET_FETCH))
    again = FetchCommits(cluster.groups, asked.read([Reply(body, 0, OFFSET_FETCH, 0)]))
    offsets = ListOffsets(
        {name: dict.fromkeys(range(PARTITIONS), LATEST) for name in cluster.names}
    )
    request = ListGroupsRequest(states_filter=[], types_filter=[]).encode(version=LIST_GROUPS)
    lists = [cluster.reply(n, 16, LIST_GROUPS, bytes(request)) for n in range(3)]
    known = [ListGroups() for _ in lists]

    def by_library() -> object:
        reply = OffsetFetchResponse.decode(body, version=OFFSET_FETCH)
        return {g.group_id: offset_fetch.read_group(g.topics, g.error_code) for g in reply.groups}

    def read_lists(questions: list[ListGroups]) -> object:
        replies = [Reply(data, 0, LIST_GROUPS, 0) for data in lists]
        return [q.read([reply]) for q, reply in zip(questions, replies, strict=True)]

    read_lists(known)
    return {
        "OffsetFetch, the reply by hand": (
            by_library,
            lambda: asked.read([Reply(body, 0, OFFSET_FETCH, 0)]),
        ),
        "OffsetFetch, groups that say the same again": (
            by_library,
            lambda: again.read([Reply(body, 0, OFFSET_FETCH, 0)]),
        ),
        "ListOffsets, the request by hand": (
            lambda: offsets.message().encode(version=LIST_OFFSETS),
            lambda: offsets.encode(LIST_OFFSETS),
        ),
        "ListGroups, lists that say the same again": (
            lambda: read_lists([ListGroups() for _ in lists]),
            lambda: read_lists(known),
        ),
    }


def measure(arguments: argparse.Namespace) -> None:
    rounds = 9 if arguments.quick else 41
    rows = []
    gc.disable()
    for name, pair in pairs(TOPICS).items():
        least = [float("inf"), float("inf")]
        for _ in range(rounds):
            for index, work in enumerate(pair):
                before = time.process_time()
                work()
                least[index] = min(least[index], time.process_time() - before)
        rows.append([name, *(1_000 * seconds for seconds in least), least[0] / least[1]])
    table(
        f"CPU milliseconds, {TOPICS * PARTITIONS:,} partitions, {2 * TOPICS:,} groups",
        ["", "kafka-python", "instead", "times"],
        rows,
    )


if __name__ == "__main__":
    sys.exit(run("monitor_replies", __doc__ or "", measure))
