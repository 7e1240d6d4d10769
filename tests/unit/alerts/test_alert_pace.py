"""Shortened rules ask for the same, over a shorter time."""

from __future__ import annotations

from pathlib import Path

import promql_parser as promql
import pytest
import yaml

from tests.support.alert_pace import Pace

PACE = Pace(factor=60.0, shortest_wait_seconds=2.0, shortest_window_seconds=5.0)


@pytest.mark.parametrize(
    ("expression", "shortened"),
    [
        ("rate(a_total[10m])", "rate(a_total[10s])"),
        ("rate(a_total[1m])", "rate(a_total[5s])"),
        ("rate(a_total[2s])", "rate(a_total[2s])"),
        ("rate(a_total[30m] offset 1h) > 3", "rate(a_total[30s] offset 1m) > 3"),
        ("a unless a offset 15m", "a unless a offset 15s"),
        ('rate(a_total{b="[10m]"}[10m])', 'rate(a_total{b="[10m]"}[10s])'),
        ("sum by (b) (rate(a_total[90m])) > 60", "sum by (b) (rate(a_total[1m30s])) > 60"),
    ],
)
def test_windows_and_offsets_are_divided_down_to_the_shortest(
    expression: str, shortened: str
) -> None:
    assert PACE.expression(expression) == str(promql.parse(shortened))


def test_waits_are_divided_down_to_the_shortest() -> None:
    assert [PACE.wait(text) for text in ("10m", "1m", "1s")] == ["10s", "2s", "1s"]


def test_what_is_kept_firing_outlasts_some_polls() -> None:
    rule = {"alert": "A", "expr": "a > 0", "for": "5m", "keep_firing_for": "2m"}
    (changed,) = PACE.rules({"groups": [{"name": "g", "rules": [rule]}]})["groups"][0]["rules"]
    assert (changed["for"], changed["keep_firing_for"]) == ("5s", "15s")


def test_a_subquery_is_refused_rather_than_left_long() -> None:
    with pytest.raises(NotImplementedError, match="subquery"):
        PACE.expression("max_over_time((a > 0)[10m:1m])")


def test_nothing_but_times_changes_in_our_rules(repository: Path) -> None:
    unhurried = Pace(factor=1.0)
    for path in (repository / "alerts" / "rules").glob("*.yml"):
        content = yaml.safe_load(path.read_text())
        for group, same in zip(content["groups"], unhurried.rules(content)["groups"], strict=True):
            for rule, kept in zip(group["rules"], same["rules"], strict=True):
                assert kept == {**rule, "expr": str(promql.parse(str(rule["expr"])))}
