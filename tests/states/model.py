"""What a row of the table is: a state of a cluster, and what is right to say of it.

`series` names a group's metrics without their prefix `kafka_consumergroup_`, with the labels that
tell them apart: `lag{topic=a}`. Where several series match, seconds are their largest and all else
is their sum. `always` holds from the second minute on, `series` at the end of the course.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

GROUP_PREFIX: Final = "kafka_consumergroup_"


@dataclass(frozen=True)
class Between:
    """A value from `least` to `most`."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class AbsentOr:
    """Not told, or this."""

    value: float | Between

    def __str__(self) -> str:
        return f"absent or {_word(self.value)}"


class Absent:
    """Not told."""

    def __str__(self) -> str:
        return "absent"


ABSENT: Final = Absent()
Number: TypeAlias = float | Between | AbsentOr | Absent
SeriesKey: TypeAlias = tuple[str, frozenset[tuple[str, str]]]


class Samples(dict[SeriesKey, float]):
    """A page of metrics: (name, labels) -> value."""

    def __init__(self, values: Mapping[SeriesKey, float]) -> None:
        super().__init__(values)
        self._groups: defaultdict[tuple[str | None, str], list[tuple[dict[str, str], float]]]
        self._groups = defaultdict(list)
        for (name, pairs), value in values.items():
            labels = dict(pairs)
            self._groups[labels.get("consumergroup"), name].append((labels, value))

    def of(self, group: str | None, name: str) -> list[tuple[dict[str, str], float]]:
        """Return the samples of a metric that are about a group (None: about none)."""
        return self._groups.get((group, name), [])

    def names_of(self, group: str | None) -> set[str]:
        """Return the metrics that there are about a group."""
        return {name for known, name in self._groups if known == group}


def matches(right: Number, seen: float | None) -> bool:
    """Say whether a value, None where there is none, is the right one."""
    match right:
        case Absent():
            return seen is None
        case AbsentOr(value):
            return seen is None or matches(value, seen)
        case Between(least, most):
            return seen is not None and least <= seen <= most
    return seen is not None and abs(seen - right) < 1e-6


@dataclass(frozen=True)
class Right:
    """What every surface must say.

    `lag` is the total at the first look, on `/metrics` and of the commands; `commands_lag` theirs
    where it is another (on a fake they speak at the end, and it is not looked at unless given).
    `status` are Burrow's
    words that may be told at any time, `status_at_end` the one that must be told then. `advice` are
    the causes that must be there at the end, `may_advise` those that may be; any other warning or
    critical one is wrong at any time. `over` are causes that must be told no more at the end. `alerts` must fire within the course, `may_fire` may; any
    other alert about the group is wrong. `cluster` holds series that are not a group's, by their
    whole names. Texts of `lag_says` are in the group's part of `monitor lag`, those of `page_says`
    in the status page; `_never` ones are not. `causes` of a lag may be named by `explain` at any time; any
    other that is somebody's fault is wrong.
    """

    lag: Number = 0
    commands_lag: Number | None = None
    series: Mapping[str, Number] = field(default_factory=dict)
    always: Mapping[str, Number] = field(default_factory=dict)
    cluster: Mapping[str, Number] = field(default_factory=dict)
    status: tuple[str, ...] = ("OK",)
    status_at_end: str | None = None
    advice: tuple[str, ...] = ()
    may_advise: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    may_fire: tuple[str, ...] = ()
    lag_says: tuple[str, ...] = ()
    lag_never: tuple[str, ...] = ()
    page_says: tuple[str, ...] = ()
    page_never: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    exit_code: int = 0
    ready: bool = True
    ready_says: str = ""

    def words(self) -> str:
        """Say all of it in one line, for the document."""
        told = [f"lag {_word(self.lag)}"]
        told += [f"{name} {_word(value)}" for name, value in self.series.items()]
        told += [f"always {name} {_word(value)}" for name, value in self.always.items()]
        told += [f"{name} {_word(value)}" for name, value in self.cluster.items()]
        told.append(f"status {self.status_at_end or ' or '.join(self.status) or 'none'}")
        told.append(f"advice: {', '.join(self.advice) or 'no warning'}")
        told += [f"{cause} is told no more" for cause in self.over]
        told.append(f"alerts: {', '.join(self.alerts) or 'none'}")
        if self.exit_code:
            told.append(f"exit code {self.exit_code}")
        told += [f"`monitor lag` says “{text}”" for text in self.lag_says]
        told += [f"`monitor lag` never says “{text}”" for text in self.lag_never]
        told += [f"the page says “{text}”" for text in self.page_says]
        if not self.ready:
            told.append(f"/ready 503{f', “{self.ready_says}”' if self.ready_says else ''}")
        return "; ".join(told)


@dataclass(frozen=True)
class State:
    """One row: `id` is also the name of its group and first topic, `entry` where it was found.

    `where` says what it is set up on: "broker" (a real one), "fake" (behind the seam of the wire,
    where a broker cannot be brought to the state) or "proxy". `settings` are the monitor's.
    `minutes` is how long its course is. `answer_before` is what the monitor said before the suite.
    """

    id: str
    entry: str
    title: str
    setup: Callable[[Any], None]
    right: Right
    where: str = "broker"
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None

    @property
    def group_id(self) -> str:
        """Return the group that the row is about."""
        return self.id if self.group is None else self.group


@dataclass(frozen=True)
class Elsewhere:
    """A state that another test of the repository sets up: a row of the table all the same."""

    id: str
    entry: str
    title: str
    right: str
    test: str


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    exit_code: int
    out: str
    err: str = ""

    @property
    def text(self) -> str:
        """Return all that a person saw."""
        return self.out + self.err


@dataclass(frozen=True)
class Fired:
    """An alert that fired within the course."""

    name: str
    labels: Mapping[str, str]


@dataclass
class Evidence:
    """What all surfaces said: a page of metrics and why groups are behind each minute, the rest at the end.

    The commands speak at the first look.
    """

    pages: list[Samples]
    html: str
    ready: tuple[bool, str]
    lag: Answer
    lag_json: Answer
    groups: Answer
    causes: list[dict[str, str]]
    fired: list[Fired] = field(default_factory=list)


def value_of(page: Samples, name: str, group: str | None = None) -> float | None:
    """Return what a page says of `name{label=value,...}`, None where it says nothing."""
    metric, _, rest = name.partition("{")
    pairs = [pair.partition("=") for pair in filter(None, rest.rstrip("}").split(","))]
    wanted = {(label, value) for label, _, value in pairs}
    found = [value for labels, value in page.of(group, metric) if wanted <= labels.items()]
    if not found:
        return None
    return max(found) if "seconds" in metric else sum(found)


_LINE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?$", re.DOTALL)
_LABEL: Final = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')
_UNESCAPED: Final = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
_keys: dict[str, SeriesKey] = {}


def parse(page: bytes) -> Samples:
    """Read Prometheus' text format; prometheus_client's parser takes a minute for all pages."""
    found: dict[SeriesKey, float] = {}
    for line in page.decode().split("\n"):
        if not line or line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        key = _keys.get(series)
        if key is None:
            match = _LINE.match(series)
            assert match, f"not a sample: {line!r}"
            labels = {
                name: re.sub(r'\\[\\"n]', lambda m: _UNESCAPED[m[0]], text)
                for name, text in _LABEL.findall(match[2] or "")
            }
            key = _keys[series] = (match[1], frozenset(labels.items()))
        assert key not in found, f"twice on the page: {series}"
        found[key] = float(value)
    return Samples(found)


def _word(value: Number) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
