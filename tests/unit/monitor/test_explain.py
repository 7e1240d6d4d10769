"""Why a group is behind: the table of truth against answer, through collector, analysis and API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.causes_table import INNOCENT, NO_FAULT, SCENES, Scene
from tests.support.lagging import GROUP, Shop


def _each_once(scenes: Sequence[Scene]) -> list[Any]:
    """Return the scenes, with the further variants of a cause among the long tests."""
    seen: set[object] = set()
    found = []
    for scene in scenes:
        key = (scene.truth, scene.also is not None)
        found.append(pytest.param(scene, marks=[pytest.mark.heavy] if key in seen else []))
        seen.add(key)
    return found


@pytest.mark.parametrize("scene", _each_once(SCENES), ids=lambda scene: scene.id)
def test_the_true_cause_is_named(scene: Scene) -> None:
    shop = scene.do()
    told = shop.explain()
    causes = [told["cause"], *(other["cause"] for other in told["also"])]
    assert causes[0] in (scene.truth, scene.also), told
    if scene.also is not None:
        assert {scene.truth, scene.also} <= set(causes), told
    assert told["next_steps"], told
    (row,) = (each for each in shop.watched.get("/groups")["groups"] if each["group"] == GROUP)
    assert (row["cause"], row["cause_word"]) == (told["cause"], told["word"])


@pytest.mark.parametrize(("name", "do"), INNOCENT, ids=[name for name, _ in INNOCENT])
def test_no_cause_is_named_of_who_is_well(name: str, do: Callable[[], Shop]) -> None:
    shop = do()
    told: Any = shop.explain()
    assert told["cause"] in NO_FAULT, (name, told)
