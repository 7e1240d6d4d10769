"""Writes `docs/alerts.md` from the rules, their tests and the faults: `python -m tests.support.alert_table`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from tests.support.anger import FAULTS, Alert
from tests.support.rule_lint import Rule, load_rules

REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent

_INTRODUCTION: Final = """\
# Alerts

Made from `alerts/` and `tests/support/anger.py` by `python -m tests.support.alert_table`; a test holds
this file to them.

- **tests**: each alert is tested by promtool three times: when it must not fire yet, when it fires, with
  the text that is told, and when it has cleared; the minutes are those of its test. Where an alert has
  several rules (the burn rates of an objective), each has such a test.
- **in anger**: the fault of the running system (real Kafka, PostgreSQL, services, monitor, Prometheus and
  Alertmanager) that fires it, and after whose repair it clears. `make test` inflicts
  several at once, in rounds ([test_alerts_in_anger](../tests/e2e/test_alerts_in_anger.py)), `make bench
  BENCH=order_alerts` all, one by one, after minutes of health under load that alert nobody. The rules are
  these files, with their times shortened mechanically ([alert_pace](../tests/support/alert_pace.py));
  thresholds stay.
"""
_FAULTS: Final = """\
## Faults

*told* reaches the webhook, and so does its end. *not told* fires, or may, and is held back, since what is
told explains it. *may be told* depends on timing. Everything else must stay silent.
"""


def document() -> str:
    """Return the whole document."""
    rules = [rule for rule in load_rules(REPOSITORY / "alerts" / "rules") if rule.is_alert]
    return "\n".join([_INTRODUCTION, *_alerts(rules), "", _FAULTS, *_faults(), ""])


def _alerts(rules: Sequence[Rule]) -> Iterator[str]:
    by_name: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        by_name[rule.name].append(rule)
    tests = _tests()
    yield "| alert | severity | for | what it says | tests: not yet, firing, cleared | in anger |"
    yield "|---|---|---|---|---|---|"
    for name, same in by_name.items():
        cells = (
            f"[{name}](../alerts/runbooks/{name}.md)",
            ", ".join(dict.fromkeys(rule.labels["severity"] for rule in same)),
            ", ".join(str(rule.wait) for rule in same),
            same[0].annotations["summary"],
            "; ".join(tests[name]),
            "; ".join(_faults_of(name)),
        )
        yield f"| {' | '.join(cells)} |"


def _tests() -> dict[str, list[str]]:
    """Return the times of each alert's tests that go through all three phases."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((REPOSITORY / "alerts" / "tests").glob("*.yml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            times: dict[str, list[str]] = defaultdict(list)
            for case in test.get("alert_rule_test", []):
                times[case["alertname"]].append(case["eval_time"])
            for name, phases in times.items():
                if len(phases) == 3:
                    found[name].append(", ".join(phases))
    return found


def _faults_of(name: str) -> list[str]:
    return [fault.title for fault in FAULTS if any(one.name == name for one in fault.fired)]


def _faults() -> Iterator[str]:
    yield "| fault | in | told | not told | may be told |"
    yield "|---|---|---|---|---|"
    for fault in FAULTS:
        may = [alert for alert in (*fault.fires, *fault.may) if alert not in fault.silent]
        where = f"test, round {fault.round}" if fault.round else "bench"
        cells = (fault.title, where, *map(_names, (fault.told, fault.silent, may)))
        yield f"| {' | '.join(cells)} |"


def _names(alerts: Sequence[Alert]) -> str:
    return ", ".join(dict.fromkeys(alert.name for alert in alerts))


if __name__ == "__main__":
    sys.stdout.write(document())
