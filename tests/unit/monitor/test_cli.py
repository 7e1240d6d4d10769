from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result

from monitor.analysis.analyst import Analyst
from monitor.analysis.measures import GroupMeasures
from monitor.commands import main, report, watching
from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.model import CLASSIC, Group, Member, Offsets, Partition, Snapshot, Topic
from tests.unit.monitor.fake_brokers import FakeBrokers

TOPICS = {"t": Topic("t", {0: Partition(1), 1: Partition(1)})}


def snapshot() -> Snapshot:
    member = Member("consumer-payments-1-0a1b2c3d-4e5f", "client", "/127.0.0.1", {"t": (0, 1)})
    return Snapshot(
        "c",
        taken_at=1.0,
        monotonic_at=1.0,
        topics=TOPICS,
        end_offsets=Offsets({"t": {0: 10, 1: 20}}, 1.0),
        groups={
            "payments": Group(
                "payments", state="Stable", members=(member,), commits={"t": {0: 4}, "gone": {0: 9}}
            ),
            "other": Group("other", state="Empty", members=()),
        },
    )


def measured() -> dict[str, GroupMeasures]:
    return Analyst().measure(snapshot())


def test_the_table_has_the_columns_of_kafkas_own_tool_and_a_dash_for_the_unknown() -> None:
    table = report.as_table(report.reports(snapshot(), measured()))
    rows = [line.split() for line in table.splitlines()]
    assert list(report.COLUMNS) in rows
    member = ["consumer-payments-1-0a1b2c3d-4e5f", "/127.0.0.1", "client"]
    assert ["payments", "t", "0", "4", "10", "6", *member] in rows
    assert ["payments", "t", "1", "-", "20", "-", *member] in rows
    assert ["payments", "gone", "0", "9", "-", "-", "-", "-", "-"] in rows
    facts = (
        "Stable, 1 member, 1 without a commit, 1 on a topic that is gone or may not be described"
    )
    assert f"payments: total lag 6, 3 partitions ({facts})" in table
    assert "other: total lag -, 0 partitions (Empty, 0 members)" in table


def test_a_narrow_terminal_gets_lines_that_fit() -> None:
    table = report.as_table(report.reports(snapshot(), measured()), width=80)
    assert max(map(len, table.splitlines())) <= 80
    assert "…" in table or "consumer-payments-1-0a1b2c3d-4e5f" in table


def test_json_and_csv_hold_everything_uncut() -> None:
    found = report.reports(snapshot(), measured())
    answer = json.loads(report.as_json("c", snapshot(), measured()))
    payments = next(group for group in answer["groups"] if group["group"] == "payments")
    assert payments["total_lag"] == 6
    assert [row["lag"] for row in payments["partitions"]] == [None, 6, None]
    rows = list(csv.DictReader(io.StringIO(report.as_csv(found))))
    assert [row["lag"] for row in rows] == ["", "6", ""]
    assert rows[1]["consumer_id"] == "consumer-payments-1-0a1b2c3d-4e5f"


def test_seconds_are_a_tenth_column_on_request_and_always_in_csv() -> None:
    found = report.reports(snapshot(), measured())
    assert report.SECONDS_COLUMN not in report.as_table(found)
    rows = [line.split() for line in report.as_table(found, seconds=True).splitlines()]
    assert [*report.COLUMNS, report.SECONDS_COLUMN] in rows
    narrow = report.as_table(found, width=90, seconds=True)
    assert report.SECONDS_COLUMN in narrow
    assert report.as_csv(found).splitlines()[0].endswith(",client_id,lag_seconds")


def test_the_worst_group_is_first_with_what_to_do_in_eighty_columns() -> None:
    now = snapshot()
    abandoned = Group("abandoned" * 5, state="Empty", members=(), commits={"t": {0: 1}})
    alive = replace(abandoned, members=(Member("m", "client", "/host"),))
    analyst = Analyst()
    analyst.measure(replace(now, groups={**now.groups, abandoned.id: alive}))
    now = replace(now, groups={**now.groups, abandoned.id: abandoned}, monotonic_at=15.0)
    lines = report.worst_first(now, analyst.measure(now), 2).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["GROUP", "STATUS", "LAG", "BEHIND", "MEMBERS", "STATE"]
    assert lines[1].startswith("abandoned")
    assert "Nobody consumes: the group has no members" in lines[2]
    assert lines[-1] == "1 more group; see --limit."


def test_a_status_is_new_until_ten_polls_have_made_it_one() -> None:
    analyst = Analyst()
    polls = [replace(snapshot(), monotonic_at=15.0 * n) for n in range(10)]
    tables = [report.worst_first(poll, analyst.measure(poll), 9) for poll in polls]
    assert tables[0].splitlines()[1].split()[:2] == ["payments", "new"]
    assert tables[-1].splitlines()[1].split()[:2] == ["payments", "OK"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["lag", "--watch", "2", "--output", "json"], "--watch goes with --output table only"),
    (["lag", "--watch", "0"], "--watch"),
    (["groups", "--limit", "0"], "--limit"),
    (["groups", "--watch", "2", "--output", "csv"], "--watch goes with --output table only"),
    (["lag", "--group-regex", "("], "'(' is no regular expression"),
    (["lag", "--fail-above", "ten"], "'ten' is neither messages (1000) nor a time (90s, 5m, 2h)"),
    (["groups", "--status", "bad"], "--status"),
])  # fmt: skip
def test_bad_options_are_refused(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_pools_is_one_of_the_commands() -> None:
    assert "pools" in CliRunner().invoke(main, ["--help"]).output
    assert "replicas x pool max" in CliRunner().invoke(main, ["pools", "--help"]).output


class Watched(FakeBrokers):
    """The fake in the place of the wire that the commands open."""

    def __call__(self, _settings: object) -> Watched:
        return self


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Watched:
    fake = Watched(
        groups={
            1: [ListedGroup("a", CLASSIC, "Empty", "consumer")],
            2: [ListedGroup("b", CLASSIC, "Empty", "consumer")],
        },
        commits={"a": GroupCommits({"t": {0: 4}}), "b": GroupCommits({"t": {1: 15}})},
        appended_at=1_700_000_000.0,
    )
    monkeypatch.setattr(watching, "KafkaWire", fake)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_a_group_that_nobody_could_list_is_not_said_to_be_missing(brokers: Watched) -> None:
    brokers.down = {2}
    result = run("lag", "--group", "b")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Not read: broker two:9092: timed out",
        "Error: not known whether the cluster has a group 'b': broker two:9092 did not answer",
    ]
    brokers.down = set()
    assert (
        run("lag", "--group", "c").stderr
        == "Error: the cluster has no group 'c', or it may not be described\n"
    )


def test_no_groups_is_concluded_from_complete_answers_only(brokers: Watched) -> None:
    brokers.groups = {1: [], 2: []}
    for command in ("lag", "groups"):
        result = run(command)
        assert (result.exit_code, result.stderr) == (0, "The cluster has no consumer groups.\n")
    brokers.down = {2}
    for command in ("lag", "groups"):
        result = run(command)
        assert result.exit_code == 1
        assert "Not known whether the cluster has consumer groups: broker two" in result.stderr
        assert "has no consumer groups" not in result.stderr


def test_a_partition_that_is_refused_is_named_and_the_total_is_a_lower_bound(
    brokers: Watched,
) -> None:
    brokers.commits["a"] = GroupCommits({"t": {0: 4, 1: 4}})
    brokers.errors["t", 1] = "KAFKA_STORAGE_ERROR"
    result = run("lag", "--group", "a")
    assert result.exit_code == 1
    assert "Not read: topic t, partition 1: KAFKA_STORAGE_ERROR" in result.stderr
    assert "a: total lag >= 6, " in result.stdout


@pytest.mark.parametrize("command", ["lag", "groups"])
def test_all_commands_honour_the_same_filters(
    brokers: Watched, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert brokers.commits
    monkeypatch.setenv("MONITOR_GROUPS_DENY", "b")
    result = run(command)
    assert result.exit_code == 0
    assert "a" in result.stdout
    assert "b" not in [line.split()[0].rstrip(":") for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize("command", ["lag", "groups", "check"])
def test_all_commands_hide_empty_groups_and_say_so(
    brokers: Watched, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    brokers.groups = {1: [ListedGroup(group, CLASSIC, "Empty", "") for group in "ab"], 2: []}
    monkeypatch.setenv("MONITOR_HIDE_EMPTY_GROUPS", "true")
    hidden, named = run(command), run(command, "--group", "b", "--group", "a")
    told = hidden.stdout + hidden.stderr
    assert "2 groups without members are left out (MONITOR_HIDE_EMPTY_GROUPS)" in told
    assert "No consumer group is as asked for." in told
    assert "The cluster has no consumer groups" not in told
    assert {"a", "b"} <= set(re.split(r"[ :,=]", named.stdout.replace("\n", " ")))
    assert "left out" not in named.stdout + named.stderr


def test_a_name_that_the_settings_leave_out_is_refused_with_the_setting(
    brokers: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert brokers.commits
    monkeypatch.setenv("MONITOR_TOPICS_ALLOW", "orders.*")
    result = run("lag", "--topic", "t")
    assert result.exit_code == 2
    assert "topic 't' is left out by MONITOR_TOPICS_ALLOW or MONITOR_TOPICS_DENY" in result.stderr


def test_a_topic_that_is_left_out_is_not_said_to_be_gone(
    brokers: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers.described["b"] = DescribedGroup(
        "Stable", members=(Member("m", "c", "/h", {"t": (1,), "shared": (0, 1)}),)
    )
    brokers.groups = {1: [], 2: [ListedGroup("b", CLASSIC, "Stable", "consumer")]}
    assert "2 on topics that are gone" in run("lag", "--group", "b").stdout
    monkeypatch.setenv("MONITOR_TOPICS_DENY", "shared")
    told = run("lag", "--group", "b").stdout
    assert "gone" not in told
    assert "shared" not in told


@pytest.mark.parametrize("command", ["lag", "groups", "serve"])
def test_a_misspelt_setting_is_refused_with_what_is_meant(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("MONITOR_GRUOPS_DENY", "b")
    monkeypatch.setenv("MONITOR_SERVICE_HOST", "10.0.0.1")  # Kubernetes' link to a Service
    monkeypatch.setenv("MONITOR_PORT_9308_TCP_ADDR", "10.0.0.1")
    result = run(command)
    assert result.exit_code == 2
    assert "MONITOR_GRUOPS_DENY is no setting; is MONITOR_GROUPS_DENY meant?" in result.stderr
    assert "MONITOR_SERVICE_HOST" not in result.stderr


def test_a_group_that_does_not_read_a_topic_is_no_answer_about_it(brokers: Watched) -> None:
    brokers.commits["b"] = GroupCommits({})
    result = run("lag", "--topic", "t")
    assert "a: total lag 6" in result.stdout
    assert "b:" not in result.stdout


HOSTILE = "a\x1b[2J\r\nb: total lag 0"


@pytest.mark.parametrize("command", ["lag", "groups"])
def test_no_name_controls_the_terminal(brokers: Watched, command: str) -> None:
    brokers.groups = {1: [ListedGroup(name, CLASSIC, "Empty", "") for name in (HOSTILE, "")]}
    brokers.commits = {name: GroupCommits({"t": {0: 4}}) for name in (HOSTILE, "")}
    output = run(command).stdout
    assert "\x1b" not in output
    assert "\r" not in output
    assert not any(line.startswith("b:") for line in output.splitlines())
    assert "(empty id)" in output
    uncut = json.loads(run("lag", "--output", "json").stdout)
    assert {group["group"] for group in uncut["groups"]} == {HOSTILE, ""}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--group-regex", "[ab]"], "ab"),
        (["--group-regex", "b.*"], "b"),
        (["--state", "empty"], "abc"),
        (["--state", "Stable"], ""),
        (["--only-behind"], "ab"),
        (["--lag-over", "5"], "a"),
        (["--lag-over", "5s"], "ab"),
        (["--lag-over", "3000000h"], ""),
        (["--status", "new", "--topic-regex", "t.*"], "abc"),
        (["--status", "err"], ""),
    ],
)
def test_the_selection_is_the_same_for_each_command_and_output(
    brokers: Watched, options: list[str], shown: str
) -> None:
    brokers.groups[1].append(ListedGroup("c", CLASSIC, "Empty", "consumer"))
    brokers.commits["c"] = GroupCommits({"t": {0: 10}})
    for command in ("lag", "groups"):
        found = json.loads(run(command, *options, "--output", "json").stdout)
        assert sorted(group["group"] for group in found["groups"]) == list(shown)
        table = run(command, *options)
        assert table.exit_code == 0
        if not shown:
            assert table.stderr == "No consumer group is as asked for.\n"
    rows = csv.DictReader(io.StringIO(run("groups", *options, "--output", "csv").stdout))
    assert sorted(row["group"] for row in rows) == list(shown)


@pytest.mark.parametrize(("limit", "code"), [("5", 3), ("6", 0), ("1h", 3), ("3000000h", 0)])
@pytest.mark.parametrize("command", ["lag", "groups"])
def test_a_lag_above_the_limit_is_an_exit_code(
    brokers: Watched, command: str, limit: str, code: int
) -> None:
    assert brokers.commits
    assert run(command, "--fail-above", limit).exit_code == code


def test_a_watch_outlives_a_group_that_is_gone_for_a_moment(
    brokers: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = brokers.groups[1]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        brokers.groups[1] = listed if len(pauses) % 2 == 0 else []
        if len(pauses) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr("monitor.commands.watching.time.sleep", sleep)
    brokers.groups[1] = []
    result = run("lag", "--group", "a", "--watch", "2")
    assert "the cluster has no group 'a'" in result.stderr
    assert "a: total lag 6" in result.stdout
    assert len(pauses) == 7
    assert result.exit_code == 0


def test_ctrl_c_in_a_poll_ends_quietly(brokers: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(brokers, "ask", interrupted)
    result = run("lag")
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize(
    ("redirect", "words"),
    [(">/dev/full", "can't write: No space left on device"), (">&-", "standard output is closed")],
)
def test_output_that_cannot_be_written_is_one_line(redirect: str, words: str) -> None:
    program = f"exec {sys.executable} -m monitor --help {redirect}"
    found = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert words in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    program = f"{sys.executable} -m monitor --help | true"
    found = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=False)
    assert found.stderr == ""


@pytest.mark.parametrize("command", ["lag", "groups", "serve"])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: connection refused"),
        ("no-such-host.invalid:9092", "no-such-host.invalid:9092: "),
        ("nonsense", "'nonsense' is not HOST:PORT"),
    ],
)
def test_a_wrong_address_is_one_line_and_exit_code_two(
    command: str, address: str, words: str
) -> None:
    result = CliRunner().invoke(main, [command, "--bootstrap-servers", address])
    assert result.exit_code == 2
    assert words in result.output
    assert len(result.output.strip().splitlines()) == 1
