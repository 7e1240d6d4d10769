"""How numbers, series and rows are written in the pictures, and that every panel can be drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dashboards import grafana
from dashboards.answers import View
from dashboards.grafana import Query
from dashboards.prometheus import Client, Series
from scripts.dashboard_pictures import picture
from scripts.panels import Fields, cell, number, read_fields, rows_of

START, END, STEP = 1_000_000.0, 1_000_900.0, 15


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "expected"),
    [
        (0.9996, "percentunit", 2, "99.96%"),
        (0.0, "short", None, "0"),
        (1500.0, "short", None, "1.5 k"),
        (12.0, "reqps", None, "12 req/s"),
        (0.25, "s", None, "250 ms"),
        (48219.0, "locale", None, "48,219"),
        (math.nan, "s", None, "No data"),
        (math.inf, "s", None, "∞"),
    ],
)
def test_numbers_are_written_with_their_unit(
    value: float, unit: str, decimals: int | None, expected: str
) -> None:
    assert number(value, {"unit": unit, "decimals": decimals}) == expected


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
    (field,) = read_fields(panel, _query("A", "{{path}}"), [_series(1, path="a/b")])
    assert (field.name, field.config["color"]["fixedColor"]) == ("a/b", "#000002")


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
    (field,) = read_fields(panel, _query("A"), [_series(value)])
    assert (field.text(value), field.level(value)) == (text, colour)


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
        (_query("A"), [_series(1, group="a"), _series(2, group="b")]),
        (_query("B"), [_series(3, group="b"), _series(4, group="a")]),
        (_query("C"), [_series(1, group="a", state="OK"), _series(1, group="b", state="ERR")]),
    ]
    fields: Fields = [
        field for query, series in answers for field in read_fields(panel, query, series)
    ]
    assert rows_of(panel, fields) == [
        {"Group": "b", "state": "ERR", "Lag": 2.0, "Members": 3.0},
        {"Group": "a", "state": "OK", "Lag": 1.0, "Members": 4.0},
    ]
    assert cell(panel, "Group", "$x$") == r"\$x\$"
    assert cell(panel, "Lag", None) == ""


class _Answering(Client):
    """Answers every query with two series that have each label that it may be asked for."""

    def __init__(self, value: float) -> None:
        super().__init__("http://nobody")
        self._value = value

    def _answer(self, times: list[float]) -> list[Series]:
        return [
            Series(
                {"consumergroup": name, "topic": name, "service": name, "le": bound},
                [(time, self._value) for time in times],
            )
            for name, bound in (("a_group$", "0.1"), ("b", "+Inf"))
        ]

    def query(self, expr: str, at: float) -> list[Series]:
        del expr
        return self._answer([at])

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        del expr
        return self._answer([start + n * step for n in range(int((end - start) / step))])


def test_every_panel_of_every_dashboard_is_drawn(tmp_path: Path) -> None:
    view = View(_Answering(1.0), START, END, STEP)
    for name, dashboard in grafana.load().items():
        figure, empty = picture(name, dashboard, view)
        assert empty == []
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles == [panel["title"] for panel in grafana.panels(dashboard)]
        if name == "order-flow":  # it has every kind of chart; to write them all takes long
            figure.savefig(tmp_path / "drawn.png", dpi=40)
            assert (tmp_path / "drawn.png").stat().st_size > 5_000


def test_panels_without_a_value_are_told() -> None:
    view = View(_Answering(math.nan), START, END, STEP)
    for name, dashboard in grafana.load().items():
        _, empty = picture(name, dashboard, view)
        assert empty == [panel["title"] for panel in grafana.panels(dashboard)]
