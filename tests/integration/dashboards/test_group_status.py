"""What the panels of a group's status show while it is ERR, which has STOP, STALL or REWIND beside it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dashboards import grafana
from tests.support.programs import program

DASHBOARDS = grafana.load()
STATUSES = ("OK", "WARN", "ERR", "STOP", "STALL", "REWIND")


def _expr(where: tuple[str, str, str]) -> str:
    dashboard, panel, ref_id = where
    one = DASHBOARDS[dashboard]
    found = (q for q in grafana.queries(dashboard, one) if (q.panel, q.ref_id) == (panel, ref_id))
    return grafana.expand(next(found).expr, grafana.select_all(one, window_s=60, rate_s=60))


@pytest.mark.parametrize(
    ("where", "labels", "value"),
    [
        (("overview", "Status of the groups", "A"), '{consumergroup="g"}', 4),
        (("consumer-groups", "Status", "A"), '{consumergroup="g"}', 4),
        (("overview", "Groups not OK", "A"), "{}", 1),
        (("overview", "Worst groups", "D"), '{consumergroup="g", status="ERR"}', 1),
    ],
)
def test_a_group_that_stopped_is_shown_once_and_as_stopped(
    where: tuple[str, str, str], labels: str, value: int, tmp_path: Path
) -> None:
    series = [
        {
            "series": "kafka_consumergroup_status"
            f'{{job="j", instance="i", consumergroup="g", status="{status}"}}',
            "values": str(int(status in {"ERR", "STOP"})),
        }
        for status in STATUSES
    ]
    asked = {
        "expr": _expr(where),
        "eval_time": "0m",
        "exp_samples": [{"labels": labels, "value": value}],
    }
    rules = tmp_path / "test.yml"  # JSON is YAML
    rules.write_text(json.dumps({"tests": [{"input_series": series, "promql_expr_test": [asked]}]}))
    promtool = program("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "test", "rules", rules], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
