from __future__ import annotations

import pytest
from click.testing import CliRunner

from monitor.commands import main, watching
from monitor.exposition.series import Level
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC
from monitor.poller import Poller
from tests.unit.monitor.fake_brokers import FakeBrokers


class Watched(FakeBrokers):
    """The fake in the place of the wire that the commands open."""

    def __call__(self, _settings: object) -> Watched:
        return self


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Watched:
    fake = Watched(
        groups={1: [ListedGroup(name, CLASSIC, "Empty", "consumer") for name in "ab"]},
        commits={"a": GroupCommits({"t": {0: 4, 1: 7}}), "b": GroupCommits({"t": {1: 15}})},
        appended_at=1_700_000_000.0,
    )
    monkeypatch.setattr(watching, "KafkaWire", fake)
    return fake


def lines(text: str, group: str = "") -> set[str]:
    """Return the samples of a group (of all unless named) that don't grow with time."""
    return {
        line
        for line in text.splitlines()
        if f'consumergroup="{group}' in line and "_seconds" not in line.split("{")[0]
    }


@pytest.mark.parametrize("command", ["lag", "groups"])
@pytest.mark.parametrize("level", ["partition", "group"])
def test_it_is_what_the_page_says_of_the_groups_that_are_meant(
    brokers: Watched, monkeypatch: pytest.MonkeyPatch, command: str, level: str
) -> None:
    monkeypatch.setenv("MONITOR_LEVEL", level)
    monkeypatch.setenv("MONITOR_CLUSTER", "east")
    poller = Poller(
        Collector(brokers, Intervals()), stale_after_s=45, cluster="east", level=Level(level)
    )
    poller.poll()
    page = poller.page().plain.decode()
    output = ["--output", "prometheus"]
    every = CliRunner().invoke(main, [command, *output])
    assert every.exit_code == 0
    assert lines(every.stdout) == lines(page) != set()
    one = CliRunner().invoke(main, [command, *output, "--group", "b"]).stdout
    assert lines(one) == lines(page, 'b"') != set()
    assert all(line.startswith("#") or 'consumergroup="b"' in line for line in one.splitlines())
    assert "# TYPE kafka_consumergroup_lag_sum gauge" in every.stdout


def test_only_the_topics_that_are_meant_are_in_it(brokers: Watched) -> None:
    brokers.commits["a"] = GroupCommits({"t": {0: 4}, "gone": {0: 9}})
    arguments = ["lag", "--output", "prometheus", "--topic", "t"]
    text = CliRunner().invoke(main, arguments).stdout
    assert 'topic="t"' in text
    assert "gone" not in text
