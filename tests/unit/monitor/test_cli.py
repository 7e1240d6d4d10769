from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner

from monitor import report
from monitor.analysis.measures import Analyst, GroupMeasures
from monitor.cli import main
from monitor.model import Group, Member, Offsets, Snapshot


def snapshot() -> Snapshot:
    member = Member("consumer-payments-1-0a1b2c3d-4e5f", "client", "/127.0.0.1", {"t": (0, 1)})
    return Snapshot(
        "c",
        taken_at=1.0,
        monotonic_at=1.0,
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
    assert "payments: total lag 6, 3 partitions (Stable, 1 member, 1 without a commit)" in table
    assert "other: total lag -, 0 partitions (Empty, 0 members)" in table


def test_a_narrow_terminal_gets_lines_that_fit() -> None:
    table = report.as_table(report.reports(snapshot(), measured()), width=80)
    assert max(map(len, table.splitlines())) <= 80
    assert "…" in table or "consumer-payments-1-0a1b2c3d-4e5f" in table


def test_json_and_csv_hold_everything_uncut() -> None:
    found = report.reports(snapshot(), measured(), wants_topic=lambda topic: topic == "t")
    answer = json.loads(report.as_json(snapshot(), found))
    payments = next(group for group in answer["groups"] if group["group"] == "payments")
    assert payments["total_lag"] == 6
    assert [row["lag"] for row in payments["partitions"]] == [6, None]
    rows = list(csv.DictReader(io.StringIO(report.as_csv(found))))
    assert [row["lag"] for row in rows] == ["6", ""]
    assert rows[0]["consumer_id"] == "consumer-payments-1-0a1b2c3d-4e5f"


@pytest.mark.parametrize("command", ["lag", "serve"])
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
