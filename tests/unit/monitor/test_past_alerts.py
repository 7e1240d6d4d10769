"""What the page marks as alerts of the past: the conditions of the shipped rules, as history tells them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.analysis.activity import Activity
from monitor.history.summary import Summary
from monitor.web.past_alerts import (
    FOR_SECONDS,
    LAG_TIME_CRITICAL_SECONDS,
    LAG_TIME_HIGH_SECONDS,
    LEAST_PATIENCE_SECONDS,
    RULES,
    past_alerts,
)

NOW = 10_000.0
READS = Activity(by_members=True, patience=60.0)


def row(at: float, **known: Any) -> Summary:
    return Summary("g", at, **{"members": 3, **known})


def told(
    *rows: Summary, activity: Activity | None = READS
) -> list[tuple[str, float, float | None]]:
    found = past_alerts(rows, NOW, activity)
    return [(each.name.removeprefix("KafkaConsumer"), each.since, each.until) for each in found]


def test_a_group_that_is_well_had_no_alert() -> None:
    assert told(row(1_000, behind=0.0), row(5_000, behind=12.0)) == []
    assert told() == []


def test_what_stands_grows_older_though_nothing_is_written_of_it() -> None:
    """One row: an unread record since 2000. A minute later it is old, and 5 minutes after told."""
    assert told(row(1_000, behind=0.0), row(2_010, behind=10.0, behind_since=2_000)) == [
        ("LagTimeHigh", 2_360, None),
        ("LagTimeCritical", 2_900, None),
    ]


def test_an_alert_ends_with_its_condition_and_what_is_shorter_than_the_rule_waits_is_none() -> None:
    behind: dict[str, Any] = {"behind": 90.0, "behind_since": None}
    assert told(
        row(1_000, behind=0.0),
        row(2_000, **behind),
        row(2_200, behind=200.0, behind_since=2_000),
        row(2_800, behind=0.0),
        row(4_000, **behind),
        row(4_200, behind=0.0),
    ) == [("LagTimeHigh", 2_300, 2_800)]


def test_an_alert_ends_where_nobody_looked() -> None:
    standing = row(2_010, behind=10.0, behind_since=2_000)
    assert told(standing, Summary("g", 2_500), row(9_000, behind=0.0)) == [
        ("LagTimeHigh", 2_360, 2_500)
    ]


def test_a_group_that_lost_its_members_while_records_wait() -> None:
    assert told(
        row(1_000, behind=0.0, members=0),
        row(2_000, behind=5.0, members=0),
        row(2_100, behind_since=2_080, members=0),
        row(2_500, behind=0.0),
    ) == [("GroupWithoutMembers", 2_300, 2_500), ("LagTimeHigh", 2_440, 2_500)]


@pytest.mark.parametrize(
    ("activity", "names"),
    [
        (None, []),
        (Activity(), []),
        # a stream processor without membership is told when it is critical
        (Activity(by_commits=True, patience=60.0), ["LagTimeCritical"]),
        # who commits once in half an hour is not late after a minute
        (Activity(by_members=True, patience=3_600.0), ["LagTimeHigh", "LagTimeCritical"]),
    ],
)
def test_who_is_paged_about_is_the_same_as_in_the_rules(
    activity: Activity | None, names: list[str]
) -> None:
    found = told(row(1_000, behind_since=1_000), activity=activity)
    assert {name for name, *_ in found} == set(names)
    if activity is not None and activity.patience > LEAST_PATIENCE_SECONDS and found:
        assert all(since == 1_000 + activity.patience + FOR_SECONDS for _, since, _ in found)


def test_names_severities_and_limits_are_those_of_the_shipped_rules(repository: Path) -> None:
    groups = yaml.safe_load((repository / "alerts/rules/consumer-groups.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    shipped = {rule["alert"]: rule for rule in rules if "alert" in rule}
    for rule in RULES:
        assert shipped[rule.name]["labels"]["severity"] == rule.severity
        assert shipped[rule.name]["for"] == f"{FOR_SECONDS / 60:.0f}m"
    limit = re.compile(r"kafka_consumergroup_lag_seconds_max\) > (\d+)")
    for name, seconds in (
        ("KafkaConsumerLagTimeHigh", LAG_TIME_HIGH_SECONDS),
        ("KafkaConsumerLagTimeCritical", LAG_TIME_CRITICAL_SECONDS),
    ):
        assert limit.findall(shipped[name]["expr"]) == [f"{seconds:.0f}"]
    (patience,) = (rule["expr"] for rule in rules if "within_patience" in str(rule.get("record")))
    assert f"> {LEAST_PATIENCE_SECONDS:.0f}" in patience


def test_the_document_says_of_each_rule_about_groups_whether_it_is_marked(repository: Path) -> None:
    groups = yaml.safe_load((repository / "alerts/rules/consumer-groups.yml").read_text())["groups"]
    shipped = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    told = (repository / "docs/causes.md").read_text().partition("| rule | marked |")[2]
    rows = [line.split("|")[1:3] for line in told.partition("## ")[0].splitlines() if "`" in line]
    marked = {
        name: text.strip() == "yes" for names, text in rows for name in names.split("`")[1::2]
    }
    assert marked == {name: name in {rule.name for rule in RULES} for name in shipped}
