"""Runs promtool's unit tests of rules, written by tests instead of by hand.

A test is the mapping that promtool's file has: `input_series`, `alert_rule_test`, `promql_expr_test`. What
stands here changes such tests as the world changes: another monitor, another cluster, fewer labels. So one
hand-written course of events proves a rule in all of them.
"""

from __future__ import annotations

import itertools
import operator
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from monitor.exposition.catalogue import ALL_METRICS
from monitor.exposition.series import Level, at_level
from tests.support.programs import program

RULES: Final = Path(__file__).resolve().parent.parent.parent / "alerts" / "rules"
ABOUT_KAFKA: Final = ("consumer-groups", "brokers", "monitoring")
STALE: Final = "stale"

Value: TypeAlias = float | str | None
"""A sample, `STALE`, or None where there is none."""
Test: TypeAlias = Mapping[str, Any]

_JOIN: Final[Mapping[str, Callable[[float, float], float]]] = {
    "sum": operator.add,
    "max": max,
    "min": min,
}
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TERM: Final = re.compile(
    r"(?P<start>-?[\d.]+(?:e[+-]?\d+)?)(?:(?P<step>[+-][\d.]+(?:e[+-]?\d+)?))?(?:x(?P<times>\d+))?"
)


@dataclass(frozen=True, slots=True)
class Series:
    """A series of a test: a name, labels, and a value for each interval."""

    name: str
    labels: Mapping[str, str]
    values: Sequence[Value]

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Series:
        """Read one entry of `input_series`."""
        name, _, rest = entry["series"].partition("{")
        return cls(name, dict(_LABEL.findall(rest)), tuple(_expanded(str(entry["values"]))))

    def entry(self) -> dict[str, str]:
        """Return the entry of `input_series`."""
        labels = ", ".join(f'{name}="{value}"' for name, value in self.labels.items())
        return {"series": f"{self.name}{{{labels}}}", "values": " ".join(_terms(self.values))}

    def labelled(self, **labels: str) -> Series:
        """Return the same with other labels."""
        return Series(self.name, {**self.labels, **labels}, self.values)

    def at_rest(self) -> Series:
        """Return the same without any event: the first value, all the time."""
        first = self.values[0]
        steps = _steps(self.values)
        # what grows at the start goes on growing: the time of the last poll does so in health
        if isinstance(first, float) and len(set(steps[:3])) == 1 and steps[0]:
            moving = [first + steps[0] * index for index in range(len(self.values))]
            return Series(self.name, self.labels, moving)
        return Series(self.name, self.labels, [first] * len(self.values))

    @property
    def varies(self) -> bool:
        """Whether anything happens to it."""
        return list(self.values) != list(self.at_rest().values)


def _steps(values: Sequence[Value]) -> list[float]:
    pairs = itertools.pairwise(values)
    return [b - a if isinstance(a, float) and isinstance(b, float) else 0.0 for a, b in pairs]


def _expanded(text: str) -> Iterator[Value]:
    for term in text.split():
        if term == STALE:
            yield STALE
        elif term.startswith("_"):
            yield from [None] * int(term[2:] or 1)
        else:
            match = _TERM.fullmatch(term)
            assert match, term
            start, step = float(match["start"]), float(match["step"] or 0)
            times = int(match["times"] or 0)
            yield from (start + step * index for index in range(times + 1))


def _terms(values: Sequence[Value]) -> Iterator[str]:
    """Write values as few terms: what stays or grows evenly is one."""
    index = 0
    while index < len(values):
        first, length = values[index], 1
        if not isinstance(first, float):
            yield "_" if first is None else STALE
            index += 1
            continue
        step = 0.0
        if index + 1 < len(values) and isinstance(values[index + 1], float):
            step = values[index + 1] - first  # type: ignore[operator]  # both are numbers
            while index + length < len(values):
                following = values[index + length]
                if not isinstance(following, float) or following != first + step * length:
                    break
                length += 1
        if length == 1:
            yield f"{first:.15g}"
        else:
            yield f"{first:.15g}{step:+.15g}x{length - 1}"
        index += length


def load(path: Path) -> list[dict[str, Any]]:
    """Return the tests of a file."""
    # text only: YAML takes a series of zeros, 0x30, for a number of its own
    loaded = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    found: list[dict[str, Any]] = loaded["tests"]
    return found


def series_of(test: Test) -> list[Series]:
    """Return a test's series."""
    return [Series.parse(entry) for entry in test["input_series"]]


def with_series(test: Test, series: Iterable[Series]) -> dict[str, Any]:
    """Return the test with other series."""
    return {**test, "input_series": [one.entry() for one in series]}


def rolled_up(series: Iterable[Series], level: Level) -> list[Series]:
    """Return what the monitor shows of these at a level."""
    joined: defaultdict[tuple[str, tuple[tuple[str, str], ...]], list[Series]] = defaultdict(list)
    metrics = {metric.name: metric for metric in ALL_METRICS}
    for one in series:
        metric = metrics.get(one.name)
        if metric is None or "consumergroup" not in metric.labels:
            joined[one.name, tuple(sorted(one.labels.items()))].append(one)
            continue
        shown = at_level(metric, level)
        if shown is None:
            continue
        gone = set(metric.labels) - set(shown.labels)
        labels = {name: value for name, value in one.labels.items() if name not in gone}
        joined[one.name, tuple(sorted(labels.items()))].append(one)
    found = []
    for (name, key), parts in joined.items():
        join = _JOIN[getattr(metrics.get(name), "rollup", None) or "sum"]
        values = [
            reduce(partial(_joined, join), column) for column in zip(*_even(parts), strict=True)
        ]
        found.append(Series(name, dict(key), values))
    return found


def _even(parts: Sequence[Series]) -> list[list[Value]]:
    longest = max(len(one.values) for one in parts)
    return [[*one.values, *[None] * (longest - len(one.values))] for one in parts]


def _joined(join: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if isinstance(left, float) and isinstance(right, float):
        return join(left, right)
    if isinstance(left, float):
        return left
    return right if right is not None else left


def failures(
    tests: Iterable[Test],
    directory: Path,
    *,
    evaluation_interval: str = "1m",
    rules: Path = RULES,
    external_labels: Mapping[str, str] | None = None,
) -> str:
    """Run tests on the rules about Kafka; return what promtool says of those that fail, if any does."""
    outside = {"external_labels": dict(external_labels)} if external_labels else {}
    content = {
        "rule_files": [str(rules / f"{name}.yml") for name in ABOUT_KAFKA],
        "evaluation_interval": evaluation_interval,
        "tests": [{**test, **outside} for test in tests],
    }
    assert content["tests"], "there is nothing to test"
    path = directory / "generated.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, width=1_000_000))
    promtool = program("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def firing(alert: str, eval_time: str, expected: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """Return an entry of `promql_expr_test`: exactly these alerts of a name fire, by their labels."""
    return {
        "expr": f'ALERTS{{alertname="{alert}", alertstate="firing"}}',
        "eval_time": eval_time,
        "exp_samples": [
            {
                "labels": _selector({"alertname": alert, "alertstate": "firing", **labels}),
                "value": 1,
            }
            for labels in expected
        ],
    }


def _selector(labels: Mapping[str, str]) -> str:
    return f"ALERTS{{{', '.join(f'{name}={_quoted(value)}' for name, value in labels.items())}}}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
