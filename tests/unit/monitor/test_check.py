"""`monitor check` in the manner of monitoring plugins."""

from __future__ import annotations

import re
import time

import pytest

from monitor.commands import watching
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.model import CLASSIC
from tests.unit.monitor.fake_brokers import FakeBrokers
from tests.unit.monitor.test_cli import Watched, run

AGE_S = 180


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Watched:
    fake = Watched(
        groups={1: [ListedGroup(name, CLASSIC, "Empty", "consumer") for name in ("a", "b'=c")]},
        commits={"a": GroupCommits({"t": {0: 4}}), "b'=c": GroupCommits({"t": {0: 10}})},
        appended_at=time.time() - AGE_S,
        now=time.monotonic(),
    )
    monkeypatch.setattr(watching, "KafkaWire", fake)
    return fake


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 1, "KAFKA LAG WARNING - a 3 min behind (6 messages); 1 of 2 groups |"),
        (["-w", "300"], 0, "KAFKA LAG OK - 2 groups, the furthest is a, 3 min behind (6 messages)"),
        (["-c", "100"], 2, "KAFKA LAG CRITICAL - a 3 min behind"),
        (["--unit", "messages", "-w", "5", "-c", "10"], 1, "WARNING - a"),
        (["--unit", "messages", "-w", "@0:5", "-c", "10"], 1, "WARNING - b'=c 0 s behind"),
        (["--group", "a", "-w", "~:300"], 0, "1 group,"),
        (["--group", "nobody"], 3, "UNKNOWN - the cluster has no group 'nobody'"),
        (["--group-regex", "x.*"], 3, "UNKNOWN - No consumer group"),
        (["-w", "20:10"], 3, "UNKNOWN - Invalid value"),
        (["-w", "soon"], 3, "'soon' is no range: 10, 10:, ~:10, 10:20 and @10:20 are"),
        (["--no-such-option"], 3, "UNKNOWN - No such option"),
    ],
)
def test_the_worst_group_decides(
    brokers: Watched, arguments: list[str], code: int, words: str
) -> None:
    assert brokers.commits
    result = run("check", *arguments)
    assert words in result.stdout.splitlines()[0]
    assert result.exit_code == code
    assert result.stderr == ""


def test_performance_data_has_each_group_with_its_ranges(brokers: Watched) -> None:
    assert brokers.commits
    first = run("check", "-w", "10:300", "-c", "600").stdout.splitlines()[0]
    data = first.partition(" | ")[2]
    assert re.fullmatch(
        r"a=(179|18\d)\.\ds;10:300;600;0 b__c=0.0s;10:300;600;0", data.replace("'", "")
    )


def test_what_could_not_be_read_is_unknown_and_said(brokers: Watched) -> None:
    brokers.down = {2}
    result = run("check", "-w", "300")
    assert result.exit_code == 3
    assert result.stdout.startswith("KAFKA LAG UNKNOWN - ")
    assert "Not read: broker two:9092: timed out" in result.stdout
    # what is known to be wrong goes first
    assert run("check", "-c", "100").exit_code == 2


def test_a_cluster_that_is_away_is_unknown() -> None:
    result = run("check", "--bootstrap-servers", "127.0.0.1:1")
    assert result.exit_code == 3
    assert result.stdout.startswith("KAFKA LAG UNKNOWN - can't reach Kafka at 127.0.0.1:1")


def test_a_time_out_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen(FakeBrokers):
        def __call__(self, _settings: object) -> Frozen:
            return self

        def ask(self, *_: object, **__: object) -> None:
            time.sleep(60)

    monkeypatch.setattr(watching, "KafkaWire", Frozen())
    result = run("check", "--timeout", "1")
    assert (result.exit_code, result.stdout) == (3, "KAFKA LAG UNKNOWN - no answer within 1 s\n")
