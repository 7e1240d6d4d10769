"""How numbers, series and rows are written in the pictures."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dashboards.drawing import charts, units
from dashboards.drawing.fields import fields
from dashboards.drawing.numbers import table
from dashboards.grafana import Query
from dashboards.prometheus import Series


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "expected"),
    [
        (0.9996, "percentunit", 2, "99.96%"),
        (0.0, "s", None, "0 s"),
        (0.2254, "s", 1, "225.4 ms"),
        (90.0, "s", None, "1.5 mins"),
        (7200.0, "s", None, "2 hours"),
        (1500.0, "short", None, "1.5 K"),
        (12.0, "reqps", None, "12 req/s"),
        (61e6, "bytes", None, "58.2 MiB"),
        (48219.0, "locale", None, "48,219"),
        (math.nan, "s", None, "No data"),
        (math.inf, "s", None, "∞"),
    ],
)
def test_numbers_are_written_with_their_unit(
    value: float, unit: str, decimals: int | None, expected: str
) -> None:
    assert units.text(value, unit, decimals) == expected


def _panel(**config: Any) -> dict[str, Any]:
    return {"fieldConfig": {"defaults": config, "overrides": []}, "transformations": []}


def _query(ref_id: str, legend: str = "") -> Query:
    return Query("d", "p", ref_id, "up", legend, instant=True)


def _series(value: float, **labels: str) -> Series:
    return Series(labels, [(0.0, float(value))])


def test_a_series_takes_the_last_colour_that_matches_its_name() -> None:
    panel = _panel()
    panel["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byRegexp", "options": f"/{pattern}/"},
            "properties": [{"id": "color", "value": {"fixedColor": colour}}],
        }
        for pattern, colour in (("^a/", "#000001"), ("^a/b", "#000002"), ("^b", "#000003"))
    ]
    (field,) = fields(panel, [(_query("A", "{{path}}"), [_series(1, path="a/b")])])
    assert (field.name, field.colour) == ("a/b", "#000002")


@pytest.mark.parametrize(
    ("value", "text", "colour"),
    [(0, "down", "#bad"), (0.5, "0.5", "#ok"), (7, "7", "#warn")],
)
def test_a_value_has_the_text_of_its_mapping_and_the_colour_of_its_level(
    value: float, text: str, colour: str
) -> None:
    panel = _panel(
        mappings=[{"options": {"0": {"text": "down", "color": "#bad"}}}],
        thresholds={"steps": [{"value": None, "color": "#ok"}, {"value": 5, "color": "#warn"}]},
    )
    (field,) = fields(panel, [(_query("A"), [_series(value)])])
    assert (field.text(value), field.level_colour(value)) == (text, colour)


def test_a_tables_rows_are_merged_renamed_and_sorted() -> None:
    panel = _panel()
    panel["transformations"] = [
        {"id": "merge"},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Value #C": True},
                "indexByName": {"group": 0, "state": 1, "Value #A": 2, "Value #B": 3},
                "renameByName": {"group": "Group", "Value #A": "Lag", "Value #B": "Members"},
            },
        },
        {"id": "sortBy", "options": {"sort": [{"field": "Lag", "desc": True}]}},
    ]
    answers = [
        (_query("A"), [_series(1, group="a"), _series(2, group="<b>")]),
        (_query("B"), [_series(3, group="<b>"), _series(4, group="a")]),
        (_query("C"), [_series(1, group="a", state="OK"), _series(1, group="<b>", state="ERR")]),
    ]
    assert table(panel, answers, lines=10) == (
        "<table><tr><th>Group</th><th>state</th><th>Lag</th><th>Members</th></tr>"
        "<tr><td>&lt;b&gt;</td><td>ERR</td><td>2</td><td>3</td></tr>"
        "<tr><td>a</td><td>OK</td><td>1</td><td>4</td></tr></table>"
    )


def test_a_table_without_rows_says_so() -> None:
    assert "none yet" in table(_panel(noValue="none yet"), [(_query("A"), [])], lines=10)


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        (7 * 86_400.0, ["0 s", "2 days", "4 days", "6 days", "8 days"]),
        (5_000.0, ["0 s", "30 mins", "1 hours", "1.5 hours"]),
        (0.9, ["0 s", "250 ms", "500 ms", "750 ms", "1 s"]),
    ],
)
def test_an_axis_of_time_has_ticks_that_are_round_in_its_unit(
    highest: float, expected: list[str]
) -> None:
    ticks = charts._ticks(0.0, highest, "s", whole=False)
    assert [units.text(tick, "s") for tick in ticks] == expected
