"""Each state of the table that a real broker can be brought to, on every surface."""

from __future__ import annotations

from collections import defaultdict

import pytest

from order_services.local.kafka import EmbeddedKafka
from tests.states import promtool
from tests.states.broker_states import STATES
from tests.states.checker import violations
from tests.states.model import Evidence, State
from tests.states.stage import on_real_broker, selected

Told = dict[str, Evidence]

# a minute on an idle machine; all is in the first test's set-up
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def told(
    request: pytest.FixtureRequest, kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Told:
    """Return what was said of each chosen state: all are set up on one broker, and watched at once."""
    found = on_real_broker(kafka, selected(request, STATES))
    monitors: defaultdict[int, list[Evidence]] = defaultdict(list)
    for evidence in found.values():
        monitors[id(evidence.pages)].append(evidence)
    alerts = promtool.fired(
        [{"monitor:9308": group[0].pages} for group in monitors.values()],
        tmp_path_factory.mktemp("promtool"),
    )
    for group, fired in zip(monitors.values(), alerts, strict=True):
        for evidence in group:
            evidence.fired = fired
    return found


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.id)
def test_every_surface_says_what_is_right(state: State, told: Told) -> None:
    wrong = violations(state, told[state.id])
    if wrong:
        pytest.fail(
            f"{state.id} ({state.entry}): {state.title}\n  " + "\n  ".join(wrong), pytrace=False
        )


def test_no_alert_is_about_the_cluster_as_a_whole(told: Told) -> None:
    """Groups that nobody uses are told once for all of them; nothing else is wrong here."""
    about_no_group = {
        one.name
        for evidence in told.values()
        for one in evidence.fired
        if "consumergroup" not in one.labels
    }
    assert about_no_group <= {"KafkaConsumerGroupsNeverActive", "KafkaOpenTransaction"}
