"""Why a group is behind, on real brokers: the table of truth against answer, all scenes at once."""

from __future__ import annotations

import pytest

from tests.states.stage import selected_by_id
from tests.support.causes_table import INNOCENT, SCENES, Scene
from tests.support.played_apart import Answers, answers_of

# all is in the first test's set-up: minutes, as the longest scene is of 100 polls
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Return what is told of each chosen scene: all are brought about on one cluster."""
    chosen = selected_by_id(request, {scene.id: scene for scene in (*SCENES, *INNOCENT)})
    return answers_of(tmp_path_factory.mktemp("causes"), [scene.id for scene in chosen])


@pytest.mark.parametrize("scene", [*SCENES, *INNOCENT], ids=lambda scene: scene.id)
def test_the_true_cause_is_named_and_no_other(scene: Scene, answers: Answers) -> None:
    answer = answers[scene.id]
    assert scene.is_told_by(answer), answer
