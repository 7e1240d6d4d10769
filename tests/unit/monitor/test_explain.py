"""Why a group is behind: the table of truth against answer, through collector, analysis and API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from monitor.analysis.causes.finding import Cause
from monitor.analysis.rates import POLLS_TO_SETTLE
from tests.support.causes_table import INNOCENT, SCENES, Scene, fewer, moved_off, outage
from tests.support.lagging import GROUP, TOPIC, ModelShop, Script, on_the_model


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
    shop = on_the_model(scene.play)
    told = shop.explain()
    assert scene.is_told_by(told), told
    assert told["next_steps"], told
    (row,) = (each for each in shop.watched.get("/groups")["groups"] if each["group"] == GROUP)
    assert (row["cause"], row["cause_word"]) == (told["cause"], told["word"])


@pytest.mark.parametrize("scene", INNOCENT, ids=lambda scene: scene.variant)
def test_no_cause_is_named_of_who_is_well(scene: Scene) -> None:
    told = on_the_model(scene.play).explain()
    assert scene.is_told_by(told), told


@pytest.mark.parametrize(
    "cause", [Cause.MESSAGE_STANDS, Cause.MEMBER_WEDGED, Cause.ALL_STAND, Cause.OPEN_TRANSACTION]
)
def test_until_it_is_known_that_something_stands_nobody_is_called_slow(cause: Cause) -> None:
    scene = next(scene for scene in SCENES if scene.truth == cause)
    assert {*_told_at_each_look(scene.play)} <= {Cause.HEALTHY, Cause.CANNOT_TELL, cause}


@pytest.mark.parametrize(
    ("play", "causes"),
    [
        (outage(16, 12, pace=7), {Cause.NO_MEMBERS, Cause.CATCHING_UP}),
        (outage(40, 8, pace=7), {Cause.NO_MEMBERS, Cause.CATCHING_UP}),
        (moved_off(), {Cause.NOT_CONSUMED}),
        (
            fewer(1, 14, pace=5).then((16, lambda shop: shop.members(3))),
            {Cause.FEWER_MEMBERS_THAN_NEEDED, Cause.CATCHING_UP},
        ),
    ],
    ids=("all come back", "after long", "it reads another topic", "more come"),
)
def test_rates_of_before_others_read_blame_nobody(play: Script, causes: set[Cause]) -> None:
    told = _told_at_each_look(play)
    assert {*told} <= {Cause.HEALTHY, Cause.CANNOT_TELL, *causes}
    if Cause.NO_MEMBERS in told:  # nor is it well because nobody knows how fast they read
        assert Cause.HEALTHY not in told[told.index(Cause.NO_MEMBERS) :]


@pytest.mark.parametrize("play", [outage(16, 12, pace=7), outage(40, 12, pace=7)])
def test_who_works_off_an_outage_is_not_told_never_to_catch_up(play: Script) -> None:
    shop, told = ModelShop(**play.given), []
    for _ in play.play(shop):
        measures = shop.run(1).latest().groups[GROUP]
        if measures.lag.total and measures.facts.members:
            told.append(measures.rates[TOPIC].catch_up)
            assert "never_catches_up" not in {advice.cause for advice in measures.advice}
    unknown = [None] * POLLS_TO_SETTLE
    assert told[:POLLS_TO_SETTLE] == unknown
    assert all(isinstance(seconds, float) for seconds in told[POLLS_TO_SETTLE:]), told


def _told_at_each_look(play: Script) -> list[str]:
    shop = ModelShop(**play.given)
    return [shop.run(1).explain()["cause"] for _ in play.play(shop)]
