"""Every query of every dashboard, asked on a real Prometheus that scraped the running system.

The system is real as well: broker, database, PgBouncer, services, monitor, on a bad day that has
cancellations, refusals, dead letters, retries, a crash, a rebalance and waits for connections.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dashboards import grafana
from dashboards.answers import View, problem
from dashboards.prometheus import LocalPrometheus
from order_services.local.plan import DEMO_FAULTS
from order_services.local.up import DEMO_CANCEL_SHARE
from scripts.dashboard_pictures import picture
from tests.crash.shop import FAST_RECOVERY
from tests.support.programs import program
from tests.support.waiting import wait_for
from tests.support.watched_system import watched

# a minute of a bad day comes before the first question; that the queries are sound is told without
pytestmark = pytest.mark.heavy

DASHBOARDS = grafana.load()
QUERIES = [query for name, one in DASHBOARDS.items() for query in grafana.queries(name, one)]
VARIABLES = [
    each for name, one in DASHBOARDS.items() for each in grafana.variable_queries(name, one)
]
ANNOTATIONS = {
    annotation["name"]: annotation["expr"]
    for one in DASHBOARDS.values()
    for annotation in one["annotations"]["list"]
    if "expr" in annotation
}
SCRAPE_INTERVAL_S = 2
# members are static: a restart makes no rebalance, but one that is away for longer than this does
SESSION_TIMEOUT_S = float(FAST_RECOVERY["SESSION_TIMEOUT_SECONDS"])
# What only a long day brings must have happened before anything is asked.
SHIPPED = "sum(order_accepted_to_shipped_seconds_count) > 0"
HAPPENED = (
    'sum(increase(kafka_messages_processed_total{status="dead_letter"}[1h])) > 0',
    "count(increase(kafka_batch_retries_total[1h])) > 0",  # scraped twice
    'sum(rate(order_transitions_total{to="cancelled"}[1h])) > 0',
    "sum(increase(kafka_consumergroup_rebalances_total[1h])) > 0",
    "max(max_over_time(kafka_consumergroup_lag_seconds_max[1h])) > 5",
    "max(max_over_time(pgbouncer_pools_client_maxwait_seconds[1h])) > 0",
    "count(kafka_consumergroup_status) > 0",
)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    program("prometheus", "prometheus")
    directory = tmp_path_factory.mktemp("watched")
    with (
        watched(
            directory,
            20,
            replicas={"payment": 2},
            settings=DEMO_FAULTS,
            cancel_share=DEMO_CANCEL_SHARE,
        ) as system,
        LocalPrometheus(
            directory / "prometheus", system.targets, scrape_interval_s=SCRAPE_INTERVAL_S
        ) as prometheus,
    ):
        start = time.time()
        client = prometheus.client
        # a group that has committed nothing yet has no lag
        wait_for("order that was shipped", lambda: client.query(SHIPPED, time.time()))
        with system.frozen("shipping"), system.frozen("payment", 2):
            time.sleep(SESSION_TIMEOUT_S + 4)
        system.replica("payment", 2).kill()
        system.start_again("payment", 2)
        system.deny_connections(4)
        system.end_connections_until_a_batch_is_tried_again(client)
        for expr in HAPPENED:
            wait_for(expr, lambda expr=expr: client.query(expr, time.time()))  # type: ignore[misc]
        # a graph's points lie on a grid: one of them must see what has just happened
        time.sleep(2 * SCRAPE_INTERVAL_S)
        end = time.time()
        yield View(client, start, end, SCRAPE_INTERVAL_S)


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: f"{q.dashboard}:{q.panel}:{q.ref_id}")
def test_a_panels_query_brings_finite_data_with_its_legends_labels(
    view: View, query: grafana.Query
) -> None:
    assert problem(view, query, view.values(DASHBOARDS[query.dashboard])) is None


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda v: f"{v.dashboard}:{v.variable}")
def test_a_variable_has_values_to_choose_from(view: View, variable: grafana.VariableQuery) -> None:
    selector = grafana.expand(variable.selector, view.values(DASHBOARDS[variable.dashboard]))
    assert view.client.label_values(variable.label, selector)


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_restarts_and_rebalances_are_marked(view: View, name: str) -> None:
    expr = grafana.expand(ANNOTATIONS[name], view.values(DASHBOARDS["consumer-groups"]))
    assert view.client.query_range(expr, view.start, view.end, SCRAPE_INTERVAL_S)


def test_every_dashboard_marks_both() -> None:
    for one in DASHBOARDS.values():
        assert {a["name"] for a in one["annotations"]["list"]} >= ANNOTATIONS.keys()


def test_a_choice_narrows_every_query_of_the_consumer_groups(view: View) -> None:
    dashboard: dict[str, Any] = DASHBOARDS["consumer-groups"]
    chosen = {"group": "payment-service-group", "topic": "orders"}
    values = {**view.values(dashboard), **chosen}
    for query in grafana.queries("consumer-groups", dashboard):
        for series in view.ask(query, values):
            assert series.labels.get("consumergroup", chosen["group"]) == chosen["group"]
            assert series.labels.get("topic", chosen["topic"]) == chosen["topic"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_drawn_with_every_panel_filled(
    view: View, name: str, tmp_path: Path
) -> None:
    figure, empty = picture(name, DASHBOARDS[name], view)
    assert empty == []
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [panel["title"] for panel in grafana.panels(DASHBOARDS[name])]
    figure.savefig(tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 10_000


def _broken(expr: str, legend: str = "") -> grafana.Query:
    return replace(QUERIES[0], expr=expr, legend=legend, instant=True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (_broken("kafka_consumergroup_lag_sum{"), "refused"),
        (_broken("kafka_consumergroup_no_such_metric"), "no data"),
        (_broken("vector(0) / vector(0)"), "no finite value"),
        (_broken("label_replace(vector(1) / 0, 'a', 'b', '', '') or vector(1)"), "an infinite"),
        (_broken("up", legend="{{topic}}"), "no label topic"),
    ],
)
def test_a_query_that_draws_nothing_or_misses_a_label_would_be_told(
    view: View, query: grafana.Query, expected: str
) -> None:
    assert (problem(view, query, {}) or "fine").startswith(expected)
