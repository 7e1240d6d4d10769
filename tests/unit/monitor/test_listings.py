"""Who speaks for a group, and when it may be said that there is no such group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup, ListGroups
from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.exchange import Exchange
from monitor.kafka.groups import STARTING_S
from monitor.kafka.listings import read_lists
from monitor.kafka.questions import Ask
from monitor.model import (
    ANSWERED,
    CLASSIC,
    CONSUMER,
    SHARE,
    Group,
    Member,
    Partition,
    Refused,
    Topic,
)
from tests.unit.monitor.fake_brokers import FakeBrokers

POLL_S = 15.0
TWO = (Member("m1", "c", "/h", {"t": (0,)}), Member("m2", "c", "/h", {"t": (1,)}))


class Watched:
    """Two brokers, of which 2 coordinates the group "b" and 1 the group "a", and a collector.

    With `groups_topic` the metadata has the partitions that say so.
    """

    def __init__(self, *, groups_topic: bool = True, **options: Any) -> None:
        self.brokers = FakeBrokers(
            groups={
                1: [ListedGroup("a", CLASSIC, "Empty", "consumer")],
                2: [ListedGroup("b", CLASSIC, "Stable", "consumer")],
            },
            commits={"a": GroupCommits({"t": {0: 4}}), "b": GroupCommits({"t": {1: 15}})},
            described={"b": DescribedGroup("Stable", members=TWO)},
        )
        if groups_topic:
            self.brokers.topics["__consumer_offsets"] = Topic(
                "__consumer_offsets", {0: Partition(2), 1: Partition(1)}, internal=True
            )
            self.brokers.ends |= {("__consumer_offsets", 0): 0, ("__consumer_offsets", 1): 0}
        self.collector = Collector(
            self.brokers,
            Intervals(**options),
            clock=lambda: self.brokers.now,
            monotonic=lambda: self.brokers.now,
        )
        self.complete = False

    def poll(self) -> dict[str, Group]:
        self.brokers.now += POLL_S
        self.brokers.asked.clear()
        snapshot = self.collector.poll()
        self.complete = snapshot.groups_complete
        return dict(snapshot.groups)

    def asked(self, api: str) -> int:
        return [name for round_ in self.brokers.asked for _, name in round_].count(api)


both = pytest.mark.parametrize("groups_topic", [True, False], ids=["hash known", "hash hidden"])

# -- two brokers list one group --------------------------------------------------------------------


class TwoLists(FakeBrokers):
    """Both list "b": 2, which coordinates it, with two members, and 1 as it was long ago."""

    order: tuple[int, ...] = (1, 2)
    old_commits: GroupCommits = GroupCommits(error="NOT_COORDINATOR", moved=True)

    def _metadata(self) -> ClusterMetadata:
        found = super()._metadata()
        return replace(found, brokers={number: found.brokers[number] for number in self.order})

    def _answer(self, broker: int, question: Any) -> Any:
        answer = super()._answer(broker, question)
        if broker == 1 and "b" in getattr(question, "groups", ()) and "b" in answer:
            if isinstance(answer["b"], GroupCommits):
                answer["b"] = self.old_commits
            elif isinstance(answer["b"], DescribedGroup):
                answer["b"] = DescribedGroup("Empty", members=())
        return answer


def two_lists(order: tuple[int, ...], *, groups_topic: bool) -> tuple[Watched, TwoLists]:
    watched = Watched(groups_topic=groups_topic)
    brokers = TwoLists(**vars(watched.brokers))
    brokers.order = order
    brokers.groups[1].append(ListedGroup("b", CLASSIC, "Empty", "consumer"))
    watched.brokers = brokers
    watched.collector = Collector(
        brokers, Intervals(), clock=lambda: brokers.now, monotonic=lambda: brokers.now
    )
    return watched, brokers


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
@pytest.mark.parametrize(
    "old",
    [
        GroupCommits(error="NOT_COORDINATOR", moved=True),
        GroupCommits({"t": {1: 4}}),
    ],
    ids=["old one refuses", "old one tells old commits"],
)
@both
def test_of_two_brokers_that_list_a_group_its_coordinator_is_believed_whatever_their_order(
    order: tuple[int, ...], old: GroupCommits, *, groups_topic: bool
) -> None:
    watched, brokers = two_lists(order, groups_topic=groups_topic)
    brokers.old_commits = old
    brokers.coordinators = {"b": 2} if not groups_topic else {}
    for _ in range(3):
        group = watched.poll()["b"]
        assert (group.state, group.members, group.coordinator) == ("Stable", TWO, 2)
        assert group.commits == {"t": {1: 15}}
        assert group.answer == ANSWERED


def test_the_lists_of_a_former_coordinator_are_not_believed_while_the_right_one_is_silent() -> None:
    watched, brokers = two_lists((1, 2), groups_topic=True)
    brokers.old_commits = GroupCommits({"t": {1: 4}})
    brokers.groups[1].pop()
    watched.poll()
    brokers.down = {2}
    brokers.groups[1].append(ListedGroup("b", CLASSIC, "Empty", "consumer"))
    for _ in range(3):
        group = watched.poll()["b"]
        assert group.is_silent
        assert (group.members, group.commits) == (TWO, {"t": {1: 15}})


def test_a_coordinator_that_took_over_is_believed_once_the_metadata_say_so() -> None:
    watched, brokers = two_lists((1, 2), groups_topic=True)
    brokers.groups[1].pop()
    watched.poll()
    brokers.down = {2}
    brokers.old_commits = GroupCommits({"t": {1: 17}})
    brokers.groups[1].append(ListedGroup("b", CLASSIC, "Empty", "consumer"))
    brokers.topics["__consumer_offsets"] = Topic(
        "__consumer_offsets", {0: Partition(1), 1: Partition(1)}, internal=True
    )
    watched.poll()
    group = watched.poll()["b"]
    assert group.answer == ANSWERED
    assert (group.coordinator, group.commits) == (1, {"t": {1: 17}})


def test_all_that_is_told_of_a_group_that_moved_is_from_its_new_coordinator() -> None:
    watched = Watched()
    watched.brokers.groups[1].append(ListedGroup("b", CLASSIC, "Empty", "consumer"))
    watched.brokers.groups[2] = []
    watched.brokers.coordinators = {"b": 2}
    group = watched.poll()["b"]
    assert (group.state, group.members, group.coordinator) == ("Stable", TWO, 2)
    assert group.commits == {"t": {1: 15}}


def test_a_group_that_only_a_former_coordinator_lists_is_gone() -> None:
    watched, brokers = two_lists((1, 2), groups_topic=True)
    brokers.old_commits = GroupCommits({"t": {1: 4}})
    watched.poll()
    listed = brokers.groups[1]
    brokers.delete_group("b")
    brokers.groups[1] = listed
    brokers.coordinators = {"b": 2}
    for _ in range(3):
        assert set(watched.poll()) == {"a"}


def test_a_former_coordinator_that_a_new_monitor_meets_alone_is_not_believed() -> None:
    watched, brokers = two_lists((1, 2), groups_topic=True)
    brokers.old_commits = GroupCommits({"t": {1: 4}})
    brokers.groups[2] = []
    brokers.coordinators = {"b": 2}
    group = watched.poll()["b"]  # the coordinator knows it, and does not list it yet
    assert (group.members, group.commits, group.coordinator) == (TWO, {"t": {1: 15}}, 2)


def test_brokers_that_list_what_they_coordinate_cost_no_question_about_it() -> None:
    watched = Watched()
    for _ in range(3):
        watched.poll()
        assert watched.asked("FindCoordinators") == 0
    assert watched.asked("DescribeClassicGroups") == 1


def test_another_hash_costs_one_question_once() -> None:
    watched = Watched()
    watched.brokers.groups = {1: watched.brokers.groups[2], 2: watched.brokers.groups[1]}
    watched.brokers.coordinators = {"b": 1, "a": 2}
    asked = []
    for _ in range(4):
        groups = watched.poll()
        assert (groups["b"].coordinator, groups["a"].coordinator) == (1, 2)
        asked.append(watched.asked("FindCoordinators"))
    assert asked == [1, 0, 0, 0]


# -- what is listed and the metadata disagree ------------------------------------------------------


def test_the_first_group_of_a_cluster_is_there_at_once_and_has_the_metadata_read_once() -> None:
    watched = Watched(groups_topic=False)
    first = watched.brokers.groups
    watched.brokers.groups = {}
    assert watched.poll() == {}
    # the topic of the groups came with the first of them, after the metadata were read
    watched.brokers.topics["__consumer_offsets"] = Topic(
        "__consumer_offsets", {0: Partition(2), 1: Partition(None)}, internal=True
    )
    watched.brokers.ends |= {("__consumer_offsets", 0): 0, ("__consumer_offsets", 1): 0}
    watched.brokers.groups = first
    for asked in (0, 1):
        groups = watched.poll()
        assert {name: group.answer for name, group in groups.items()} == {
            "a": ANSWERED,
            "b": ANSWERED,
        }
        assert watched.asked("Metadata") == asked
    # a partition of it has no leader yet: its groups are believed all the same
    assert not watched.complete
    watched.brokers.topics["__consumer_offsets"] = Topic(
        "__consumer_offsets", {0: Partition(2), 1: Partition(1)}, internal=True
    )
    assert set(watched.poll()) == {"a", "b"}
    watched.poll()
    assert watched.complete
    assert watched.asked("Metadata") == 0


def test_new_groups_where_the_metadata_do_not_say_who_has_them_cost_metadata_once_each() -> None:
    watched = Watched(groups_topic=False, metadata=600.0)
    watched.poll()
    watched.brokers.groups[1].append(ListedGroup("c", CLASSIC, "Empty", "consumer"))
    asked = []
    for _ in range(4):
        assert set(watched.poll()) == {"a", "b", "c"}
        asked.append(watched.asked("Metadata"))
    assert asked == [0, 1, 0, 0]


def test_a_listed_group_that_its_coordinator_denies_is_left_out_and_not_concluded_to_be_absent() -> (
    None
):
    watched = Watched()
    watched.brokers.groups[2] = []
    watched.brokers.commits.pop("b")
    watched.brokers.described.pop("b")
    assert set(watched.poll()) == {"a"}
    assert watched.complete
    watched.brokers.groups[1].append(ListedGroup("b", CLASSIC, "Stable", "consumer"))
    watched.brokers.coordinators = {"b": 2}
    assert set(watched.poll()) == {"a"}
    assert not watched.complete
    # it is there after all
    watched.brokers.commits["b"] = GroupCommits({"t": {1: 15}})
    assert watched.poll()["b"].coordinator == 2
    assert watched.complete


def test_a_group_of_an_unknown_type_that_another_broker_lists_stays() -> None:
    watched = Watched()
    watched.brokers.groups[1].append(ListedGroup("b", "novel", "Stable", ""))
    watched.brokers.groups[2] = []
    watched.brokers.coordinators = {"b": 2}
    for _ in range(3):
        assert watched.poll()["b"].type == "novel"
    watched.brokers.delete_group("b")
    assert set(watched.poll()) == {"a"}


# -- nobody lists a group --------------------------------------------------------------------------


@both
def test_a_deleted_group_goes_once_that_is_proven(*, groups_topic: bool) -> None:
    watched = Watched(groups_topic=groups_topic)
    watched.poll()
    watched.brokers.delete_group("b")
    assert set(watched.poll()) == {"a"}
    watched.poll()
    assert watched.asked("FindCoordinators") == 0
    assert watched.asked("DescribeClassicGroups") == 0


@pytest.mark.parametrize("kind", [CLASSIC, CONSUMER, SHARE])
@pytest.mark.parametrize(
    "gone", [DescribedGroup(error="GROUP_ID_NOT_FOUND"), DescribedGroup("Dead", members=())]
)
def test_each_way_to_say_that_there_is_no_such_group_is_understood(
    kind: str, gone: DescribedGroup
) -> None:
    watched = Watched()
    watched.brokers.groups[2] = [ListedGroup("b", kind, "Stable", "consumer")]
    assert watched.poll()["b"].type == kind
    watched.brokers.delete_group("b")
    watched.brokers.described["b"] = gone
    if kind == SHARE:
        watched.brokers.commits["b"] = GroupCommits(error="GROUP_ID_NOT_FOUND")
    assert set(watched.poll()) == {"a"}


@both
def test_a_group_of_a_silent_broker_stays_and_goes_if_it_was_deleted_meanwhile(
    *, groups_topic: bool
) -> None:
    watched = Watched(groups_topic=groups_topic, metadata=0.0)
    watched.poll()
    watched.brokers.fenced = watched.brokers.down = {2}
    watched.brokers.coordinators = {"b": 2}
    watched.brokers.delete_group("b")
    for _ in range(5):
        assert watched.poll()["b"].is_silent
        assert not watched.complete
    watched.brokers.fenced = watched.brokers.down = set()
    watched.poll()
    assert set(watched.poll()) == {"a"}


STARTING: list[tuple[str, GroupCommits, DescribedGroup]] = [
    (
        error,
        GroupCommits(error=error, moved=error == "NOT_COORDINATOR"),
        DescribedGroup(error=error),
    )
    for error in ("COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR")
]


@both
@pytest.mark.parametrize(("error", "commits", "described"), STARTING)
def test_a_broker_that_is_starting_and_lists_nothing_deletes_nothing(
    error: str, commits: GroupCommits, described: DescribedGroup, *, groups_topic: bool
) -> None:
    watched = Watched(groups_topic=groups_topic)
    before = watched.poll()["b"]
    watched.brokers.down = {2}
    watched.poll()
    watched.brokers.down = set()
    listed, watched.brokers.groups[2] = watched.brokers.groups[2], []
    known = watched.brokers.commits["b"], watched.brokers.described["b"]
    watched.brokers.commits["b"], watched.brokers.described["b"] = commits, described
    for _ in range(10):
        group = watched.poll()["b"]
        assert group.is_silent, error
        assert (group.commits, group.members) == (before.commits, before.members)
        assert not watched.complete
    watched.brokers.groups[2] = listed
    watched.brokers.commits["b"], watched.brokers.described["b"] = known
    assert watched.poll()["b"] == before


def test_it_is_not_concluded_that_there_is_no_group_just_after_a_broker_is_back() -> None:
    watched = Watched()
    watched.poll()
    assert watched.complete
    watched.brokers.down = {2}
    watched.poll()
    watched.brokers.down = set()
    complete = []
    for _ in range(4):
        watched.poll()
        complete.append(watched.complete)
    assert complete == [False] * int(STARTING_S / POLL_S) + [True] * 2


def test_a_group_that_is_not_listed_yet_but_known_by_name_is_read_as_ever() -> None:
    watched = Watched()
    before = watched.poll()["b"]
    watched.brokers.groups[2] = []
    assert watched.poll()["b"] == before


def test_groups_that_nobody_lists_while_they_move_are_not_lost() -> None:
    watched = Watched()
    watched.poll()
    moving = watched.brokers.groups[2].pop()
    watched.brokers.coordinators = {"b": 3}
    assert watched.poll()["b"].is_silent
    watched.brokers.coordinators = {}
    watched.brokers.groups[1].append(moving)
    assert not watched.poll()["b"].is_silent


def test_another_hash_than_kafkas_proves_nothing() -> None:
    watched = Watched(metadata=0.0)
    # each is at the other broker than its hash says
    watched.brokers.groups = {1: watched.brokers.groups[2], 2: watched.brokers.groups[1]}
    watched.brokers.coordinators = {"b": 1, "a": 2}
    watched.poll()
    watched.brokers.down = {1}
    for _ in range(4):
        groups = watched.poll()
        assert groups["b"].is_silent
        assert groups["a"].answer == ANSWERED
    watched.brokers.delete_group("b")
    watched.brokers.down = set()
    watched.poll()
    assert set(watched.poll()) == {"a"}


def test_a_group_that_was_deleted_while_the_broker_of_its_hash_is_away_goes() -> None:
    watched = Watched()
    watched.brokers.groups = {1: watched.brokers.groups[2] + watched.brokers.groups[1]}
    watched.brokers.coordinators = {"b": 1, "a": 1}
    assert set(watched.poll()) == {"a", "b"}
    watched.brokers.down = {2}
    watched.brokers.delete_group("b")
    watched.poll()
    assert set(watched.poll()) == {"a"}


def test_groups_whose_coordinator_is_lost_for_good_cost_no_metadata_at_every_poll() -> None:
    watched = Watched(metadata=600.0)
    watched.poll()
    watched.brokers.fenced = watched.brokers.down = {2}
    asked = []
    for _ in range(20):
        assert watched.poll()["b"].is_silent
        asked.append(watched.asked("Metadata"))
    assert sum(asked[6:]) <= 3


# -- services that list only groups that run -------------------------------------------------------


def never_described(_: Watched) -> None:
    """Let the service know nothing of a group that does not run."""


def described_oddly(watched: Watched) -> None:
    watched.brokers.described["b"] = DescribedGroup(error="error 42")


def described_dead(watched: Watched) -> None:
    watched.brokers.described["b"] = DescribedGroup("Dead", members=())


@pytest.mark.parametrize("describe", [never_described, described_dead])
def test_a_stopped_group_of_a_service_that_lists_only_running_ones_is_read_by_name(
    describe: Callable[[Watched], None],
) -> None:
    watched = Watched(groups_topic=False)
    watched.poll()
    watched.brokers.groups[2] = []
    del watched.brokers.described["b"]
    describe(watched)
    for offset in range(15, 19):
        watched.brokers.commits["b"] = GroupCommits({"t": {1: offset}})
        group = watched.poll()["b"]
        assert group.answer == ANSWERED
        assert (group.state, group.members) == ("Empty", ())
        assert group.commits == {"t": {1: offset}}
    del watched.brokers.commits["b"]
    assert set(watched.poll()) == {"a"}


def test_an_odd_description_of_a_stopped_group_is_told_and_its_commits_are_read() -> None:
    watched = Watched(groups_topic=False)
    watched.poll()
    watched.brokers.groups[2] = []
    described_oddly(watched)
    for offset in range(15, 19):
        watched.brokers.commits["b"] = GroupCommits({"t": {1: offset}})
        group = watched.poll()["b"]
        assert group.answer == Refused("error 42")
        assert group.commits == {"t": {1: offset}}
    del watched.brokers.commits["b"]
    assert set(watched.poll()) == {"a"}


def test_a_group_that_may_no_longer_be_seen_is_refused_and_seldom_asked_for() -> None:
    watched = Watched(metadata=60.0)
    watched.poll()
    watched.brokers.groups[2] = []
    watched.brokers.commits["b"] = GroupCommits(error="GROUP_AUTHORIZATION_FAILED")
    watched.brokers.described["b"] = DescribedGroup(error="GROUP_AUTHORIZATION_FAILED")
    described = 0
    for _ in range(8):
        group = watched.poll()["b"]
        assert group.answer == Refused("GROUP_AUTHORIZATION_FAILED")
        assert group.commits == {}
        described += watched.asked("DescribeClassicGroups")
    assert described <= 3


# -- any mixture -----------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d"]
BROKERS = [1, 2]


@given(
    lists=st.dictionaries(
        st.sampled_from(BROKERS),
        st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["Stable", "Empty"])),
    ),
    known=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([1, 2, 3])),
    leaders=st.lists(st.sampled_from([1, 2, 3, None]), max_size=3),
    down=st.sets(st.sampled_from(BROKERS)),
    coordinators=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([1, 2, 3])),
    refused=st.sets(st.sampled_from(NAMES)),
)
def test_whatever_is_listed_each_group_has_one_broker_that_can_be_asked_or_is_away(
    *,
    lists: dict[int, dict[str, str]],
    known: dict[str, int],
    leaders: list[int | None],
    down: set[int],
    coordinators: dict[str, int],
    refused: set[str],
) -> None:
    brokers = FakeBrokers(down=down, coordinators=coordinators)
    partitions = {index: Partition(leader) for index, leader in enumerate(leaders)}
    if partitions:
        brokers.topics["__consumer_offsets"] = Topic("__consumer_offsets", partitions)
    metadata = replace(brokers._metadata(), group_partitions=partitions)
    last = {name: Group(name, coordinator=broker) for name, broker in known.items()}
    refused &= last.keys() - {name for of in lists.values() for name in of}
    outcomes = []
    for order in (BROKERS, BROKERS[::-1]):
        exchange = Exchange(brokers, 1, frozenset())
        asks = [
            Ask(
                broker,
                ListGroups(),
                answer=None
                if broker in down
                else [
                    ListedGroup(name, CLASSIC, state, "consumer")
                    for name, state in lists.get(broker, {}).items()
                ],
            )
            for broker in order
        ]
        exchange.down = dict.fromkeys(down, "timed out")
        found = read_lists(asks, exchange, metadata, last, refused)
        assert found.groups.keys() == found.coordinators.keys()
        assert found.groups.keys().isdisjoint(found.away)
        assert last.keys() <= found.groups.keys() | found.away
        assert found.by_name <= found.groups.keys()
        assert set(found.coordinators.values()) <= metadata.brokers.keys() - down
        assert refused <= found.away
        outcomes.append((found.groups, found.coordinators, found.by_name, found.away))
    assert outcomes[0] == outcomes[1]
