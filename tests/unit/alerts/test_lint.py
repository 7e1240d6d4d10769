"""What the lint of rules finds, one fault at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.rule_lint import Rule, Surroundings, lint, load_rules

RUNBOOKS = "{{ with $externalLabels.runbooks }}{{ . }}/{{ end }}"
DASHBOARDS = "{{ $externalLabels.dashboards }}"
GROUPS = f"{DASHBOARDS}/d/consumer-groups"
ENCODED_TOPIC = "{{ $labels.topic | urlquery }}"

GOOD = Rule(
    file="x.yml",
    name="KafkaExample",
    expression="sum by (consumergroup) (kafka_consumergroup_lag_sum) > 1000",
    is_alert=True,
    wait="5m",
    labels={"severity": "warning", "component": "consumer-group"},
    annotations={
        "summary": "A group is behind.",
        "description": 'Group {{ or $labels.consumergroup "(empty id)" }} is {{ $value }} behind.',
        "runbook_url": f"{RUNBOOKS}alerts/runbooks/KafkaExample.md",
        "dashboard_url": f"{GROUPS}?var-group={{{{ $labels.consumergroup | urlquery }}}}",
    },
)


@pytest.fixture(scope="module")
def surroundings(repository: Path) -> Surroundings:
    return Surroundings.of(repository)


def findings(surroundings: Surroundings, *rules: Rule) -> str:
    return "\n".join(lint(rules, surroundings))


def test_our_own_rules_have_no_fault(repository: Path, surroundings: Surroundings) -> None:
    rules = load_rules(repository / "alerts" / "rules")
    assert len(rules) > 50
    assert findings(surroundings, *rules) == ""


def test_a_good_rule_passes(surroundings: Surroundings) -> None:
    assert findings(surroundings, GOOD) == ""


@pytest.mark.parametrize(
    ("expression", "finding"),
    [
        ("sum(kafka_consumergroup_lag_sum)", "it fires for ever"),
        ("kafka_consumergroup_lag_sum > bool 1000", "it fires for ever"),
        ("sum(kafka_consumergroup_lag) or up == 0", "it fires for ever"),
        ("kafka_consumergroup_lag >= 0", "always true"),
        ("kafka_consumergroup_lag > -1", "always true"),
        ("rate(http_requests_total[5m]) >= 0", "always true"),
        ("count(up) > 0", "always true"),
        ("count(up) >= 1", "always true"),
        ("absent(up) == 1", "always true"),
        ("up <= 1", "always true"),
        ("up >= bool 0", "always true"),
        ("kafka_consumergroup_lag < 0", "never true"),
        ("up > 1", "never true"),
        ("count(up) == 0", "never true"),
        ("1 > 2", "not PromQL"),
        ("rate(http_requests_total[29s]) > 1", "under 2 scrape intervals"),
        ("max_over_time(kafka_consumergroup_lag[20s]) > 1", "under 2 scrape intervals"),
        ("max_over_time((up == 0)[20s:5s]) > 0", "under 2 scrape intervals"),
        ("kafka_consumergroup_lagg > 1", "no program of ours declares kafka_consumergroup_lagg"),
        ("http_request_seconds > 1", "no program of ours declares http_request_seconds"),
        ('kafka_consumergroup_lag{group="a"} > 1', "has no label group"),
        ("sum by (group) (kafka_consumergroup_lag) > 1", "has no label group"),
        ("sum without (group) (kafka_consumergroup_lag) > 1", "has no label group"),
        ("up == 0 and on (topic) kafka_consumergroup_lag_sum > 1", "has no label topic"),
        ("up == 0 and ignoring (topic) kafka_consumergroup_lag_sum > 1", "has no label topic"),
        (
            "kafka_consumergroup_lag * on (topic) group_left (host) kafka_topic_partitions > 1",
            "has no label host",
        ),
        ('up{job="kafka-exporter"} == 0', "there is no job kafka-exporter"),
        ('up{job="kafka-monitor", service="payment"} == 0', "has no label service"),
        (
            'rate(order_accepted_to_shipped_seconds_bucket{le="4.0"}[5m]) > 1',
            'no bucket le="4.0"',
        ),
        ("rate(kafka_consumergroup_lag[5m]) > 1", "which is a gauge"),
        ("increase(kafka_consumergroup_lag_sum[5m]) > 1", "which is a gauge"),
        ("deriv(http_requests_total[5m]) > 1", "which is a counter"),
        (
            "histogram_quantile(0.9, sum by (job) (rate(http_request_seconds_bucket[5m]))) > 1",
            "has no label le",
        ),
        ("kafka_consumergroup_lag / kafka_consumergroup_members > 1", "never match"),
        ("up == 0 and kafka_consumergroup_lag_sum > 1", "never match"),
        ("sum by (consumergroup (kafka_consumergroup_lag) > 1", "not PromQL"),
    ],
)
def test_a_faulty_expression_is_found(
    surroundings: Surroundings, expression: str, finding: str
) -> None:
    found = findings(surroundings, replace(GOOD, expression=expression))
    assert finding in found


@pytest.mark.parametrize(
    "expression",
    [
        'absent(up{job="kafka-monitor"})',
        "(up == 0) or (kafka_consumergroup_lag_sum > 5)",
        "1 > kafka_consumergroup_members",
        "kafka_consumergroup_members unless on (consumergroup) kafka_consumergroup_lag_sum",
        "-kafka_consumergroup_lag < -5",
        "deriv(kafka_consumergroup_lag[5m]) < 0",
    ],
)
def test_an_expression_that_can_fire_and_clear_passes(
    surroundings: Surroundings, expression: str
) -> None:
    notes = {
        **GOOD.annotations,
        "description": "{{ $value }}",
        "dashboard_url": f"{DASHBOARDS}/d/kafka-overview",
    }
    assert findings(surroundings, replace(GOOD, expression=expression, annotations=notes)) == ""


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        ("summary", "{{ $labels.consumergroup }} is behind", "summary without templates"),
        ("summary", "", "summary without templates"),
        ("description", "A group is behind.", "description with the values"),
        (
            "description",
            "{{ $labels.consumergroup }} is {{ $value }} behind",
            "names consumergroup, which may be empty",
        ),
        ("description", "{{ $labels.topic }} is behind", "uses label topic"),
        (
            "description",
            "{{ $value }} of {{ $labels.cluster }}",
            "names cluster, which may be empty",
        ),
        ("runbook_url", f"{RUNBOOKS}alerts/runbooks/Other.md", "runbook_url must be"),
        ("runbook_url", "alerts/runbooks/KafkaExample.md", "runbook_url must be"),
        ("dashboard_url", f"{DASHBOARDS}/d/nowhere", "dashboard_url must be"),
        ("dashboard_url", "/d/consumer-groups", "dashboard_url must be"),
        ("dashboard_url", f"{GROUPS}?var-group={{{{ $labels.consumergroup }}}}", "not encoded"),
        (
            "dashboard_url",
            f"{GROUPS}{{{{ with $labels.consumergroup }}}}?var-group={{{{ . }}}}{{{{ end }}}}",
            "not encoded",
        ),
        (
            "dashboard_url",
            f"{DASHBOARDS}/d/order-flow?var-topic={ENCODED_TOPIC}",
            "uses label topic",
        ),
        ("dashboard_url", f"{DASHBOARDS}/d/order-flow?var-shop=1", "no variable shop"),
    ],
)
def test_a_faulty_annotation_is_found(
    surroundings: Surroundings, name: str, text: str, finding: str
) -> None:
    rule = replace(GOOD, annotations={**GOOD.annotations, name: text})
    assert finding in findings(surroundings, rule)


def test_labels_that_only_one_side_of_an_or_has_are_not_kept(surroundings: Surroundings) -> None:
    rule = replace(GOOD, expression="up == 0 or on () kafka_consumergroup_lag_sum > 1")
    assert "uses label consumergroup" in findings(surroundings, rule)


def test_a_missing_for_is_found(surroundings: Surroundings) -> None:
    assert "has no `for`" in findings(surroundings, replace(GOOD, wait=None))


def test_an_unknown_severity_and_a_missing_component_are_found(surroundings: Surroundings) -> None:
    found = findings(surroundings, replace(GOOD, labels={"severity": "page"}))
    assert "severity must be one of" in found
    assert "component" in found


def test_duplicates_are_found(surroundings: Surroundings) -> None:
    notes = {**GOOD.annotations, "runbook_url": f"{RUNBOOKS}alerts/runbooks/KafkaOther.md"}
    same_expression = replace(GOOD, name="KafkaOther", annotations=notes)
    found = findings(surroundings, GOOD, GOOD, same_expression)
    assert "KafkaExample: declared twice" in found
    assert "KafkaOther: has the same expression as KafkaExample" in found


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("kafka_lag:sum", "level:metric:operations"),
        ("topic:kafka_lag:sum", "is not its labels"),
        ("consumergroup_topic:kafka_lag:sum", "is not its labels"),
    ],
)
def test_a_recording_rule_is_named_for_its_level(
    surroundings: Surroundings, name: str, finding: str
) -> None:
    expression = "sum by (consumergroup) (kafka_consumergroup_lag_sum)"
    rule = Rule(file="x.yml", name=name, expression=expression, is_alert=False)
    assert finding in findings(surroundings, rule)


def test_alerts_may_use_what_is_recorded_but_not_take_its_rate(surroundings: Surroundings) -> None:
    name = "consumergroup:kafka_lag:sum"
    recorded = Rule(
        file="x.yml",
        name=name,
        expression="sum by (consumergroup) (kafka_consumergroup_lag_sum)",
        is_alert=False,
    )
    assert findings(surroundings, recorded, replace(GOOD, expression=f"{name} > 5")) == ""
    found = findings(surroundings, recorded, replace(GOOD, expression=f"rate({name}[5m]) > 5"))
    assert "which is a gauge" in found
