"""Why a group is behind, on a real broker: truth against answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from order_services.local.kafka import EmbeddedKafka
from tests.support.lagging_on_broker import MORE_SCENES, SCENES, RealScene, explained


def check(kafka: EmbeddedKafka, scenes: dict[str, RealScene], unique: Callable[[str], str]) -> None:
    """Compare what is told of all with what is true."""
    found = explained(kafka, scenes, unique)
    told = {name: finding.cause for name, (finding, _) in found.items()}
    assert told == {name: scene.truth for name, scene in scenes.items()}, found


def test_five_causes_at_once_are_named_each_of_its_group(
    kafka: EmbeddedKafka, unique: Callable[[str], str]
) -> None:
    check(kafka, dict(SCENES), unique)


@pytest.mark.heavy
def test_the_others_are_named_as_well(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> None:
    check(kafka, dict(MORE_SCENES), unique)
