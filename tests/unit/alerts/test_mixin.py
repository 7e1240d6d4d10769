"""The mixin holds the rules and dashboards that are shipped, evaluated by Jsonnet itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import _jsonnet
import pytest
import yaml

ROOT = Path(__file__).parents[3]


def evaluate(field: str, *, order_services: bool) -> Any:
    config = json.dumps({"orderServices": order_services})
    program = f"((import 'mixin.libsonnet') + {{ _config+:: {config} }}).{field}"
    return json.loads(_jsonnet.evaluate_snippet("test", program, jpathdir=[str(ROOT)]))


def shipped(kind: str) -> dict[str, Any]:
    return {
        rule[kind]: rule
        for path in (ROOT / "alerts" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    }


@pytest.mark.parametrize(
    ("field", "kind"), [("prometheusAlerts", "alert"), ("prometheusRules", "record")]
)
def test_every_rule_is_in_it_as_it_is(field: str, kind: str) -> None:
    groups = evaluate(field, order_services=True)["groups"]
    assert {rule[kind]: rule for group in groups for rule in group["rules"]} == shipped(kind)


def test_the_order_system_is_left_out_unless_it_is_there() -> None:
    groups = evaluate("prometheusAlerts", order_services=False)["groups"]
    names = {rule["alert"] for group in groups for rule in group["rules"]}
    assert names == {name for name in shipped("alert") if not name.startswith("Order")}
    assert "KafkaConsumerStuck" in names
    assert "order-flow.json" not in evaluate("grafanaDashboards", order_services=False)


def test_every_dashboard_is_in_it_as_it_is() -> None:
    generated = {
        path.name: json.loads(path.read_text())
        for path in (ROOT / "dashboards" / "generated").glob("*.json")
    }
    assert evaluate("grafanaDashboards", order_services=True) == generated
