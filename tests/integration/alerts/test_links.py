"""The links of alerts: they lead to the group that is meant whatever it is called, and can be clicked."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

import pytest

from tests.support import rule_tests
from tests.support.rule_lint import load_rules
from tests.support.rule_tests import Series

IDS = ("a#b", "a&b=c", "a%b", "a+b", "a b", "team:svc", "ä", "a/b?c", "{{ 1 }}", 'say "a"', "")
STUCK = "KafkaConsumerStuck"
ADDRESSES = {"dashboards": "https://grafana.example", "runbooks": "https://git.example/blob/main"}


def stuck(group: str, dashboard: str, runbook: str, **labels: str) -> dict[str, Any]:
    """Return a test in which a group is stuck, and what is to be told."""
    shown = {"consumergroup": group} if group else {}
    of_topic = f" of topic {labels['topic']}" if "topic" in labels else ""
    series = Series(
        "kafka_consumergroup_stuck_partitions",
        {"consumergroup": group.replace("\\", "\\\\").replace('"', '\\"'), **labels},
        [1.0] * 20,
    )
    return {
        "interval": "1m",
        "input_series": [series.entry()],
        "alert_rule_test": [
            {
                "eval_time": "15m",
                "alertname": STUCK,
                "exp_alerts": [
                    {
                        "exp_labels": {
                            **shown,
                            **labels,
                            "severity": "critical",
                            "component": "consumer-group",
                        },
                        "exp_annotations": {
                            "summary": "A consumer group has unread messages but commits nothing.",
                            "description": f"1 partition{of_topic} with messages that group "
                            f"{group or '(empty id)'} has not read: its committed offset has not "
                            "moved there for 10 minutes, or for longer where the group commits "
                            "seldom.",
                            "dashboard_url": dashboard,
                            "runbook_url": runbook,
                        },
                    }
                ],
            }
        ],
    }


def test_any_id_is_encoded_and_what_has_no_name_is_not_named(tmp_path: Path) -> None:
    tests = []
    for group in IDS:
        link = f"/d/consumer-groups?var-group={quote_plus(group)}"
        # what a browser makes of it is the very id
        assert parse_qs(urlsplit(link).query, keep_blank_values=True) == {"var-group": [group]}
        runbook = f"alerts/runbooks/{STUCK}.md"
        # at MONITOR_LEVEL=group there is no topic, and a cluster need not have a name
        tests.append(stuck(group, link, runbook))
        tests.append(stuck(group, f"{link}&var-topic=t", runbook, topic="t"))
        named = f"{link}&var-topic=t&var-cluster=eu%231"
        tests.append(stuck(group, named, runbook, topic="t", cluster="eu#1"))
    assert rule_tests.failures(tests, tmp_path) == ""


def test_links_are_whole_where_external_labels_say_what_they_begin_with(tmp_path: Path) -> None:
    link = "https://grafana.example/d/consumer-groups?var-group=g"
    runbook = f"https://git.example/blob/main/alerts/runbooks/{STUCK}.md"
    test = stuck("g", link, runbook)
    assert rule_tests.failures([test], tmp_path, external_labels=ADDRESSES) == ""
    assert "var-group=g" in rule_tests.failures([test], tmp_path)


@pytest.mark.parametrize("name", ["dashboards", "runbooks"])
def test_every_alert_takes_both_addresses(repository: Path, name: str) -> None:
    for rule in load_rules(repository / "alerts" / "rules"):
        if rule.is_alert:
            url = rule.annotations[f"{name.removesuffix('s')}_url"]
            assert url.startswith(("{{ with ", "{{ ")), rule.name
            assert f"$externalLabels.{name}" in url, rule.name
