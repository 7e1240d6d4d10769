from __future__ import annotations

from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import DescribedGroup, GroupCommits, ListedGroup
from monitor.model import CLASSIC, Member
from monitor.poller import Poller
from tests.unit.monitor.fake_brokers import FakeBrokers

READER = DescribedGroup("Stable", members=(Member("m", "c", "/h", {"t": (0,)}),))


class Hiding:
    """A monitor that hides empty groups, and a group "g" on broker 1."""

    def __init__(self) -> None:
        self.brokers = FakeBrokers(commits={"g": GroupCommits({"t": {0: 1}})})
        collector = Collector(
            self.brokers,
            Intervals(),
            clock=lambda: self.brokers.now,
            monotonic=lambda: self.brokers.now,
        )
        self.poller = Poller(collector, stale_after_s=45, hide_empty_groups=True)

    def shown(self, state: str) -> bool:
        """Poll with the group in a state; say whether it is on the page."""
        self.brokers.now += 15
        self.brokers.groups = {1: [ListedGroup("g", CLASSIC, state, "consumer")]}
        self.brokers.described = {"g": READER}
        snapshot = self.poller.poll().snapshot
        assert snapshot is not None
        on_page = 'consumergroup="g"' in self.poller.latest.page.plain.decode()
        assert on_page == ("g" in snapshot.groups)
        return on_page


def test_a_group_without_members_is_hidden_and_back_with_its_first_member() -> None:
    hiding = Hiding()
    assert [hiding.shown(s) for s in ("Empty", "Stable", "Empty")] == [False, True, False]


def test_a_group_without_members_whose_commits_move_is_shown() -> None:
    hiding = Hiding()
    shown = []
    for offset in (1, 2, 3, 4):
        hiding.brokers.commits["g"] = GroupCommits({"t": {0: offset}})
        shown.append(hiding.shown("Empty"))
    assert shown == [False, False, True, True]  # one step may be an operator's


def test_the_history_of_a_hidden_group_goes_on() -> None:
    hiding = Hiding()
    for _ in range(3):
        assert hiding.shown("Stable")
        assert not hiding.shown("Empty")
    assert hiding.shown("Stable")
    measures = hiding.poller.latest.state.groups["g"]
    assert measures.rebalances == 6
