"""docs/alerts.md is what the rules, their tests and the faults say; faults name alerts that exist."""

from __future__ import annotations

from pathlib import Path

from tests.support.alert_table import document
from tests.support.anger import FAULTS, NOT_INFLICTED
from tests.support.rule_lint import load_rules


def test_the_document_is_the_one_that_the_rules_make(repository: Path) -> None:
    written = (repository / "docs" / "alerts.md").read_text()
    assert written == document(), "run: python -m tests.support.alert_table > docs/alerts.md"


def test_faults_name_alerts_that_exist_and_each_alert_has_a_fault(repository: Path) -> None:
    alerts = {rule.name for rule in load_rules(repository / "alerts/rules") if rule.is_alert}
    assert alerts - NOT_INFLICTED == {alert.name for fault in FAULTS for alert in fault.fired}
    assert alerts >= NOT_INFLICTED
    named = {alert.name for fault in FAULTS for alert in (*fault.fired, *fault.silent, *fault.may)}
    assert named <= alerts


def test_what_must_be_told_is_never_what_must_not() -> None:
    for fault in FAULTS:
        assert fault.told, fault.title
        assert not set(fault.told) & set(fault.silent), fault.title
