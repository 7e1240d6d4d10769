from __future__ import annotations

from monitor.analysis.activity import MOVES_OF_A_CONSUMER
from monitor.exposition.catalogue import CHOICES
from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC, Member
from monitor.poller import Poller
from monitor.web.overview import overview
from tests.unit.monitor.fake_brokers import FakeBrokers

READER = DescribedGroup("Stable", members=(Member("m", "c", "/h", {"t": (0,)}),))


class Hiding:
    """A monitor that hides empty groups, and a group "g" on broker 1."""

    def __init__(self) -> None:
        self.brokers = FakeBrokers(commits={"g": GroupCommits({"t": {0: 1}})})

        def clock() -> float:
            return self.brokers.now

        collector = Collector(self.brokers, Intervals(), clock=clock, monotonic=clock)
        self.poller = Poller(
            collector,
            stale_after_s=45,
            families=CHOICES,
            hide_empty_groups=True,
            clock=clock,
            monotonic=clock,
        )

    def shown(self, state: str) -> bool:
        """Poll with the group in a state; say whether it is on the pages, in any family."""
        self.brokers.now += 15
        self.brokers.groups = {1: [ListedGroup("g", CLASSIC, state, "consumer")]}
        self.brokers.described = {"g": READER}
        self.poller.poll()
        page = self.poller.latest.page.plain.decode()
        told = {f'{label}="g"' in page for label in ("consumergroup", "group_id", "consumer_group")}
        told.add(bool(overview(self.poller.shown()).groups))
        (on_page,) = told
        assert self.poller.unready_reason() is None
        return on_page


def test_a_group_without_members_is_hidden_and_back_with_its_first_member() -> None:
    hiding = Hiding()
    assert [hiding.shown(s) for s in ("Empty", "Stable", "Empty")] == [False, True, False]


def test_a_group_without_members_whose_commits_move_is_shown() -> None:
    hiding = Hiding()
    assert not hiding.shown("Empty")
    shown = []
    for offset in range(2, 2 + MOVES_OF_A_CONSUMER):
        hiding.brokers.commits["g"] = GroupCommits({"t": {0: offset}})
        shown.append(hiding.shown("Empty"))
    # one commit that moves may be a reset of offsets
    assert shown == [False] * (MOVES_OF_A_CONSUMER - 1) + [True]


def test_the_history_of_a_hidden_group_goes_on() -> None:
    hiding = Hiding()
    for _ in range(3):
        assert hiding.shown("Stable")
        assert not hiding.shown("Empty")
    assert hiding.shown("Stable")
    measures = hiding.poller.latest.state.groups["g"]
    assert measures.rebalances == 6
