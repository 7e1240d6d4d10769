"""`monitor check` in the manner of monitoring plugins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import click
import pytest

from monitor.commands import watching
from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.model import CLASSIC, Member, Partition, Topic
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
        (["-c", "1.0e999"], 3, "'1.0e999' is no range"),
        (["-c", "nan"], 3, "'nan' is no range"),
        (["-c", "~:nan"], 3, "'~:nan' is no range"),
        (["-w", "-5:.5", "-c", "@~:0.25"], 2, "CRITICAL"),
        (
            ["-t", "nan"],
            3,
            "UNKNOWN - Invalid value for '-t' / '--timeout': 'nan' is no finite number",
        ),
        (
            ["-t", "inf"],
            3,
            "UNKNOWN - Invalid value for '-t' / '--timeout': 'inf' is no finite number",
        ),
        (["-t", "0"], 3, "UNKNOWN - Invalid value for '-t' / '--timeout': 0.0 is not in the range"),
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


def members(**assignments: tuple[int, ...]) -> DescribedGroup:
    """Return a group of one member that holds partitions of topics, or none."""
    return DescribedGroup("Stable", members=(Member("m", "client", "/host", assignments),))


@pytest.mark.parametrize(
    ("described", "deny", "why"),
    [
        (members(), "", "its members hold no partition and it has committed no offset"),
        (members(t=(0,)), "", "it holds 1 partition and has committed no offset of them: it keeps"),
        (
            members(shared=(0, 1)),
            "shared",
            "it reads only topics that are left out by MONITOR_TOPICS",
        ),
        (DescribedGroup("Empty", members=()), "", "it has no members and no committed offset."),
        (
            DescribedGroup("Empty", members=()),
            "shared",
            "it has no members and no committed offset, but for topics that are left out by MONITOR_",
        ),
    ],
)
def test_a_group_that_has_nothing_to_judge_makes_nothing_unknown_unless_it_is_asked_for(
    brokers: Watched,
    monkeypatch: pytest.MonkeyPatch,
    described: DescribedGroup,
    deny: str,
    why: str,
) -> None:
    brokers.groups[1].append(ListedGroup("odd\x1b", CLASSIC, described.state or "", "consumer"))
    brokers.described["odd\x1b"] = described
    brokers.commits["odd\x1b"] = GroupCommits({"shared": {0: 1}} if deny else {})
    if deny:
        monkeypatch.setenv("MONITOR_TOPICS_DENY", deny)
    limits = ["-w", "1000", "-c", "2000"]
    assert run("check", "--unit", "messages", *limits).exit_code == 0
    result = run("check", *limits)
    assert result.exit_code == 0
    assert "KAFKA LAG OK - 2 groups, " in result.stdout
    assert "; 1 more can't be judged |" in result.stdout
    assert f"\nNot judged: odd\\x1b: {why}" in result.stdout
    assert "odd" not in result.stdout.splitlines()[0]
    # what is wrong with others stays wrong
    result = run("check", "-w", "1", "-c", "2")
    assert result.exit_code == 2
    assert "; 1 of 2 groups; 1 more can't be judged |" in result.stdout
    # whoever asks for it gets no good news
    for more in ([], ["--group", "a"]):
        result = run("check", *limits, "--group", "odd\x1b", *more)
        assert result.exit_code == 3
        assert "KAFKA LAG UNKNOWN - odd\\x1b unknown; 1 of " in result.stdout
        assert f"\nNot judged: odd\\x1b: {why}" in result.stdout
    # nor is it well where nothing is known at all
    result = run("check", *limits, "--group-regex", "odd.*")
    assert result.exit_code == 3
    assert result.stdout.startswith("KAFKA LAG UNKNOWN - 1 group, of which none can be judged\nNot")


def test_a_group_that_reads_what_it_has_not_committed_is_judged_by_what_it_has(
    brokers: Watched,
) -> None:
    brokers.topics["u"] = Topic("u", {0: Partition(1, (1,), (1,))})
    brokers.ends["u", 0] = 5
    brokers.groups[1].append(ListedGroup("c", CLASSIC, "Stable", "consumer"))
    brokers.described["c"] = members(t=(0,), u=(0,))
    brokers.commits["c"] = GroupCommits({"t": {0: 10}})
    result = run("check", "-w", "1000")
    assert (result.exit_code, result.stdout.count("c=0.0s")) == (0, 2)


@pytest.mark.parametrize("commits", [{"gone": {0: 3}}, {"t": {1: 20}}])
def test_what_a_group_has_and_could_not_be_read_is_unknown(
    brokers: Watched, commits: dict[str, dict[int, int]]
) -> None:
    brokers.groups[1].append(ListedGroup("c", CLASSIC, "Empty", "consumer"))
    brokers.commits["c"] = GroupCommits(commits)
    brokers.errors["t", 1] = "LEADER_NOT_AVAILABLE"
    result = run("check", "-w", "1000")
    assert result.exit_code == 3
    assert "Not judged" not in result.stdout


def test_of_many_that_cannot_be_judged_some_are_named(brokers: Watched) -> None:
    for number in range(50):
        brokers.groups[1].append(ListedGroup(f"odd{number}", CLASSIC, "Empty", "consumer"))
        brokers.commits[f"odd{number}"] = GroupCommits({})
    result = run("check", "-w", "1000")
    assert result.exit_code == 0
    assert "; 50 more can't be judged |" in result.stdout
    assert result.stdout.count("Not judged: odd") == 5
    assert "Not judged: 45 groups more." in result.stdout


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


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ZeroDivisionError(), "UNKNOWN - the monitor failed: ZeroDivisionError at "),
        (MemoryError(), "UNKNOWN - the monitor failed: MemoryError at "),
        (PermissionError(), "UNKNOWN - the monitor failed: PermissionError at "),
        (KeyboardInterrupt(), "UNKNOWN - interrupted"),
        (click.Abort(), "UNKNOWN - interrupted"),
    ],
)
@pytest.mark.parametrize("where", ["selection_of", "choose", "_measure", "_performance"])
def test_whatever_is_no_judgement_is_unknown(
    brokers: Watched,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    fault: BaseException,
    words: str,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise fault

    assert brokers.commits
    monkeypatch.setattr(f"monitor.commands.check.{where}", fails)
    result = run("check")
    assert result.stdout.startswith(f"KAFKA LAG {words}")
    assert result.exit_code == 3


def test_the_help_is_no_judgement() -> None:
    result = run("check", "--help")
    assert "monitoring plugin" in result.output
    assert result.exit_code == 3


@pytest.mark.parametrize("arguments", ["--help", "--bootstrap-servers 127.0.0.1:1", "--no-such"])
@pytest.mark.parametrize(
    ("redirect", "words"),
    [(">/dev/full", "can't write: No space left on device"), (">&-", "standard output is closed")],
)
def test_what_cannot_be_told_is_unknown(arguments: str, redirect: str, words: str) -> None:
    program = f"exec {sys.executable} -m monitor check {arguments} {redirect}"
    found = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 3
    assert words in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_what_nobody_reads_is_unknown() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [sys.executable, "-m", "monitor", "check", "--bootstrap-servers", "127.0.0.1:1"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (found.returncode, found.stderr) == (3, b"")


def test_a_fault_before_the_command_is_there_is_unknown() -> None:
    program = """if True:
        import sys
        import monitor.commands
        sys.modules["monitor.commands.check"] = None  # as of an installation that is not whole
        sys.argv = ["monitor", *sys.argv[1:]]
        monitor.commands.run()
    """
    for command, code in (("check", 3), ("lag", 0), ("none", 2)):
        found = subprocess.run(
            [sys.executable, "-c", program, command, "--help"], capture_output=True, check=False
        )
        assert found.returncode == code, found.stderr


def test_a_time_out_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen(FakeBrokers):
        def __call__(self, _settings: object) -> Frozen:
            return self

        def ask(self, *_: object, **__: object) -> None:
            time.sleep(60)

    monkeypatch.setattr(watching, "KafkaWire", Frozen())
    result = run("check", "--timeout", "1")
    assert (result.exit_code, result.stdout) == (3, "KAFKA LAG UNKNOWN - no answer within 1 s\n")
