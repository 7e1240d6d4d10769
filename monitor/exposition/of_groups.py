"""The page's text about some groups alone, for who writes it to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from monitor.exposition.blocks import Choice, blocks
from monitor.exposition.render import Renderer
from monitor.exposition.series import Block, ByPartition, Samples
from monitor.state import State

# What the families call a group and a topic.
_GROUP: Final = frozenset({"consumergroup", "group_id", "group", "consumer_group"})
_TOPIC: Final = frozenset({"topic", "topic_name"})


def text_of_groups(
    state: State,
    choice: Choice,
    *,
    cluster: str | None = None,
    wants_topic: Callable[[str], bool] | None = None,
) -> str:
    """Return what /metrics has about the state's groups; on all topics unless told which.

    `cluster` is the value of a label of that name, none without.
    """
    renderer = Renderer(cluster=cluster)
    return renderer.render(_of_groups(state, choice, wants_topic)).plain.decode()


def _of_groups(
    state: State, choice: Choice, wants_topic: Callable[[str], bool] | None
) -> Iterator[Block]:
    for block in blocks(state, choice):
        samples = _chosen(block.samples(), wants_topic)
        yield Block((), lambda samples=samples: samples, block.pieces_of, block.name)  # type: ignore[misc]


def _chosen(samples: Samples, wants_topic: Callable[[str], bool] | None) -> Samples:
    found = {m: series for m, series in samples.items() if not _GROUP.isdisjoint(m.labels)}
    if wants_topic is None:
        return found
    for metric, series in found.items():
        at = next((i for i, label in enumerate(metric.labels) if label in _TOPIC), None)
        if at is None:
            continue
        if isinstance(series, ByPartition):
            kept = {labels: of for labels, of in series.values.items() if wants_topic(labels[at])}
            found[metric] = ByPartition(kept)
        else:
            # advice about a whole group has no topic
            found[metric] = {
                labels: value
                for labels, value in series.items()
                if not labels[at] or wants_topic(labels[at])
            }
    return found
