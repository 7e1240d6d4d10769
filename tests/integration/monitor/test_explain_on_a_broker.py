"""Why a group is behind, on real brokers: the table of truth against answer, all scenes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

import pytest

from tests.states.stage import selected_by_id
from tests.support.causes_table import INNOCENT, SCENES, Scene
from tests.support.cluster import Cluster
from tests.support.lagging_on_broker import SESSION_TIMEOUT_MS, Told, on_brokers

# all is in the first test's set-up: minutes, as the longest scene is of 100 polls
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Told]]:
    """Return what was told of each chosen scene: all are brought about on one cluster."""
    cluster = Cluster(tmp_path_factory.mktemp("causes"), SESSION_TIMEOUT_MS)
    numbers = count()
    try:
        chosen = selected_by_id(request, {scene.id: scene for scene in (*SCENES, *INNOCENT)})
        yield on_brokers(cluster, chosen, lambda stem: f"{stem}-{next(numbers)}")
    finally:
        cluster.stop()


@pytest.mark.parametrize("scene", [*SCENES, *INNOCENT], ids=lambda scene: scene.id)
def test_the_true_cause_is_named_and_no_other(scene: Scene, told: Mapping[str, Told]) -> None:
    answer = told[scene.id].answer
    assert scene.is_told_by(answer), answer
