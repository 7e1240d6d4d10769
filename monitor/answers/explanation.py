"""Why a group is behind, as the API tells it."""

from __future__ import annotations

from typing import Any

from monitor.analysis.causes.finding import Cause, Finding
from monitor.answers.groups import unix
from monitor.answers.models import Count, Model
from monitor.model import Snapshot


class FigureAnswer(Model):
    """A number that speaks for the cause."""

    what: str
    value: float
    unit: str
    """`messages`, `messages/s`, `s`, `members` and so on."""


class CheckedAnswer(Model):
    """Another cause that was looked for, and is not there."""

    what: str
    finding: str


class UncheckedAnswer(Model):
    """What could not be looked at."""

    what: str
    would_tell: str
    """What would tell it."""


class AlternativeAnswer(Model):
    """Another cause that the data cannot tell from the one named."""

    cause: Cause
    word: str
    sentence: str
    would_decide: str
    """What would decide between them."""


class StepAnswer(Model):
    """Something to do."""

    action: str
    command: str | None
    """The exact command, null where none is needed; what changes offsets comes with `--dry-run`."""


class CauseAnswer(Model):
    """A cause and what speaks for it."""

    cause: Cause
    word: str
    """The same in a word or two, for a row of a table."""
    sentence: str
    topic: str | None
    """Where, null where it is of the whole group."""
    partitions: list[Count]
    """Which of the topic's, empty where it is of all."""
    since: float | None
    """When it began, in Unix seconds; null where that is not known."""
    over_at: float | None
    """When the lag is gone at the rates of now, in Unix seconds; null where it never is, or nobody knows."""
    figures: list[FigureAnswer]
    next_steps: list[StepAnswer]
    """The most reversible first."""


class Explanation(CauseAnswer):
    """The one cause of a group's lag; `healthy` where it is not behind, `cannot_tell` where none is proven."""

    cluster: str
    group: str
    seen_at: float
    """When the figures were seen, in Unix seconds."""
    checked: list[CheckedAnswer]
    """Causes that were looked for and are not there."""
    not_checked: list[UncheckedAnswer]
    alternatives: list[AlternativeAnswer]
    """Causes that the data can't tell from this one."""
    also: list[CauseAnswer]
    """Other causes that hold at the same time, the most urgent first."""


def explanation(cluster: str, snapshot: Snapshot, group: str, found: Finding) -> Explanation:
    """Return what is told of why a group is behind."""
    return Explanation(
        cluster=cluster,
        group=group,
        seen_at=unix(snapshot, snapshot.monotonic_at),
        **_cause(snapshot, found),
        checked=[CheckedAnswer(what=c.what, finding=c.finding) for c in found.checked],
        not_checked=[
            UncheckedAnswer(what=u.what, would_tell=u.would_tell) for u in found.unchecked
        ],
        alternatives=[
            AlternativeAnswer(
                cause=other.cause,
                word=other.word,
                sentence=other.sentence,
                would_decide=other.would_decide,
            )
            for other in found.alternatives
        ],
        also=[CauseAnswer(**_cause(snapshot, other)) for other in found.also],
    )


def _cause(snapshot: Snapshot, found: Finding) -> dict[str, Any]:
    return {
        "cause": found.cause,
        "word": found.word,
        "sentence": found.sentence,
        "topic": found.topic,
        "partitions": list(found.partitions),
        "since": None if found.since is None else unix(snapshot, found.since),
        "over_at": None if found.over_at is None else unix(snapshot, found.over_at),
        "figures": [
            FigureAnswer(what=f.what, value=round(f.value, 3), unit=f.unit) for f in found.figures
        ],
        "next_steps": [StepAnswer(action=s.action, command=s.command) for s in found.steps],
    }
