from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from monitor.analysis.measures import Analyst, GroupMeasures
from monitor.commands import main, report
from monitor.model import Group, Member, Offsets, Partition, Snapshot, Topic

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
    assert "payments: total lag 6, 3 partitions (Stable, 1 member, 1 without a commit, "
    "1 on a topic that is gone or may not be described)" in table
    assert "other: total lag -, 0 partitions (Empty, 0 members)" in table


def test_a_narrow_terminal_gets_lines_that_fit() -> None:
    table = report.as_table(report.reports(snapshot(), measured()), width=80)
    assert max(map(len, table.splitlines())) <= 80
    assert "…" in table or "consumer-payments-1-0a1b2c3d-4e5f" in table


def test_json_and_csv_hold_everything_uncut() -> None:
    found = report.reports(snapshot(), measured())
    answer = json.loads(report.as_json(snapshot(), found))
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
    now = replace(now, groups={**now.groups, abandoned.id: abandoned})
    lines = report.worst_first(now, Analyst().measure(now), 2).splitlines()
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
    assert tables[-1].splitlines()[1].split()[:2] == ["payments", "ERR"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["lag", "--watch", "2", "--output", "json"], "--watch goes with --output table only"),
    (["lag", "--watch", "0"], "--watch"),
    (["groups", "--limit", "0"], "--limit"),
])  # fmt: skip
def test_bad_options_are_refused(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_pools_is_one_of_the_commands() -> None:
    assert "pools" in CliRunner().invoke(main, ["--help"]).output
    assert "replicas x pool max" in CliRunner().invoke(main, ["pools", "--help"]).output


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
