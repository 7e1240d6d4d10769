"""Each state of the table that a test's broker cannot be brought to, on every surface."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from monitor.kafka.questions import Ask
from tests.states import promtool
from tests.states.checker import violations
from tests.states.fake_states import MINUTES, STATES, FakeScene
from tests.states.model import Evidence, State
from tests.states.stage import command, page_of, readiness, run, selected, watching
from tests.unit.monitor.model_cluster import ModelCluster

Told = dict[str, Evidence]


class Today:
    """The model as the commands' wire: they take the machine's clock."""

    def __init__(self, cluster: ModelCluster) -> None:
        self._cluster = cluster

    def ask(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int] = ()
    ) -> None:
        self._cluster.ask(asks, timeout_s, not_awaited)
        for ask in asks:
            ask.answered_at = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)


def watched(state: State, patch: pytest.MonkeyPatch) -> Evidence:
    scene = FakeScene(state.group_id)
    state.setup(scene)
    watch = watching(scene.cluster, scene.clock, None, state.settings)
    run(scene.clock.go_on, scene.steps, [watch], MINUTES)
    html, ready = page_of(watch.poller), readiness(watch.poller)
    for name, module in list(sys.modules.items()):
        if name.startswith("monitor.") and hasattr(module, "KafkaWire"):
            patch.setattr(module, "KafkaWire", lambda *_, **__: Today(scene.cluster))
    lag, lag_json = command("lag"), command("lag", "--output", "json")
    return Evidence(watch.pages, html, ready, lag, lag_json, command("groups"), watch.causes)


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    found = {}
    for state in selected(request, STATES):
        with pytest.MonkeyPatch.context() as patch:
            found[state.id] = watched(state, patch)
    alerts = promtool.fired(
        [{"monitor:9308": evidence.pages} for evidence in found.values()],
        tmp_path_factory.mktemp("promtool"),
    )
    for evidence, fired in zip(found.values(), alerts, strict=True):
        evidence.fired = fired
    return found


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.id)
def test_every_surface_says_what_is_right(state: State, told: Told) -> None:
    wrong = violations(state, told[state.id])
    if wrong:
        pytest.fail(
            f"{state.id} ({state.entry}): {state.title}\n  " + "\n  ".join(wrong), pytrace=False
        )
