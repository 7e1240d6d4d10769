"""Finds the faults of alert and recording rules, in the syntax tree of their PromQL.

A rule that cannot fire looks the same as a healthy system: each finding is a way in which a rule
would be silent, or fire for ever, without anybody noticing.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import promql_parser as promql
import yaml

from tests.support.declared_metrics import Series, declared_metrics

SEVERITIES: Final = ("critical", "warning", "info")
SCRAPES_IN_A_WINDOW: Final = 2

_COMPARISONS: Final = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
_SET_OPERATORS: Final = ("and", "or", "unless")
_OF_COUNTERS: Final = ("rate", "irate", "increase")
_OF_GAUGES: Final = ("delta", "idelta", "deriv", "predict_linear")
_NEVER_NEGATIVE: Final = (*_OF_COUNTERS, "changes", "resets", "count_over_time", "abs", "time")
_KEEPS_BOUNDS: Final = ("max_over_time", "min_over_time", "avg_over_time", "last_over_time")
_INFINITY: Final = float("inf")
_LABEL_IN_TEMPLATE: Final = re.compile(r"\$labels\.(\w+)")
_RUNBOOKS: Final = "{{ with $externalLabels.runbooks }}{{ . }}/{{ end }}"
_DASHBOARDS: Final = "{{ $externalLabels.dashboards }}"
_ENCODED: Final = re.compile(r"\{\{ \$labels\.\w+ \| urlquery \}\}|\{\{ \. \| urlquery \}\}")
_CONDITION: Final = re.compile(r"\{\{ (?:with \$labels\.\w+|end) \}\}")
_OPTIONAL: Final = re.compile(
    r"\{\{-? (?:with|if) \$labels\.(\w+) \}\}(.*?)\{\{-? end \}\}"
    r'|\{\{ or \$labels\.\w+ "[^"]+" \}\}',
    re.DOTALL,
)
# A sum over all topics at MONITOR_LEVEL=group names none, a cluster need not have a name, and a group's id
# may be the empty one.
_MAY_BE_EMPTY: Final = frozenset({"topic", "cluster", "consumergroup"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert or recording rule, as its file has it."""

    file: str
    name: str
    expression: str
    is_alert: bool
    wait: str | None = None
    keep: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of an expression's result; `labels` is None for a scalar.

    Each value is between `low` and `high`. `filters` says whether samples can be left out: an alert
    whose expression leaves out none fires for ever.
    """

    labels: frozenset[str] | None = None
    low: float = -_INFINITY
    high: float = _INFINITY
    filters: bool = False


def load_rules(directory: Path) -> list[Rule]:
    """Return the rules of all files in a directory, in the order of evaluation."""
    return [
        Rule(
            file=path.name,
            name=raw.get("alert") or raw["record"],
            expression=str(raw["expr"]),
            is_alert="alert" in raw,
            wait=raw.get("for"),
            keep=raw.get("keep_firing_for"),
            labels=raw.get("labels", {}),
            annotations=raw.get("annotations", {}),
        )
        for path in sorted(directory.glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for raw in group["rules"]
    ]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What rules stand on: series by name, the scrape interval, dashboards' variables by uid."""

    series: Mapping[str, Series]
    scrape_interval: timedelta
    dashboards: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, repository: Path) -> Surroundings:
        """Read them from the code, prometheus.yml and the generated dashboards."""
        prometheus = repository / "prometheus"
        config = yaml.safe_load((prometheus / "prometheus.yml").read_text())
        dashboards = [
            json.loads(path.read_text())
            for path in sorted((repository / "dashboards" / "generated").glob("*.json"))
        ]
        return cls(
            declared_metrics(prometheus),
            promql.parse_duration(config["global"]["scrape_interval"]),
            {
                one["uid"]: frozenset(variable["name"] for variable in one["templating"]["list"])
                for one in dashboards
            },
        )


def lint(rules: Iterable[Rule], surroundings: Surroundings) -> list[str]:
    """Return what is wrong with the rules, one line each."""
    rules = list(rules)
    known = dict(surroundings.series)
    findings = list(_duplicates(rules))
    # recording rules first: alerts of any file use them
    for rule in sorted(rules, key=lambda rule: rule.is_alert):
        if not rule.is_alert:
            # what is recorded may be remembered: a rule reads what it wrote before
            level = frozenset(rule.name.partition(":")[0].split("_"))
            known.setdefault(rule.name, Series("gauge", level))
        reader = _Reader(known, surroundings.scrape_interval)
        try:
            shape = reader.read(promql.parse(rule.expression))
        except ValueError as error:
            findings.append(f"{rule.name}: not PromQL: {error}")
            continue
        found = reader.findings
        if rule.is_alert:
            found += _faults_of_alert(rule, shape, surroundings.dashboards)
        else:
            found += _faults_of_recording(rule, shape)
            known[rule.name] = Series("gauge", shape.labels or frozenset(), shape.low, shape.high)
        findings += [f"{rule.name}: {text}" for text in found]
    return findings


def _duplicates(rules: list[Rule]) -> Iterator[str]:
    names = Counter((rule.name, tuple(sorted(rule.labels.items()))) for rule in rules)
    yield from (f"{name}: declared twice" for (name, _), count in names.items() if count > 1)
    seen: dict[str, str] = {}
    for rule in rules:
        text = " ".join(rule.expression.split())
        if text in seen:
            yield f"{rule.name}: has the same expression as {seen[text]}"
        seen[text] = rule.name


def _faults_of_alert(
    rule: Rule, shape: Shape, dashboards: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    yield from _faults_of_texts(rule, shape)
    yield from _faults_of_link(rule.annotations.get("dashboard_url", ""), dashboards)
    if rule.wait is None:
        yield "has no `for`: one bad scrape would page"
    if not shape.filters:
        yield "has no comparison that can leave samples out: it fires for ever"
    if rule.labels.get("severity") not in SEVERITIES:
        yield f"severity must be one of {', '.join(SEVERITIES)}"
    if not rule.labels.get("component"):
        yield "has no component label: Alertmanager groups and inhibits by it"


def _faults_of_texts(rule: Rule, shape: Shape) -> Iterator[str]:
    notes = rule.annotations
    if not notes.get("summary") or "{{" in notes["summary"]:
        yield "needs a summary without templates: messages are grouped under it"
    if "{{" not in notes.get("description", ""):
        yield "needs a description with the values that matter"
    if notes.get("runbook_url") != f"{_RUNBOOKS}alerts/runbooks/{rule.name}.md":
        yield f"runbook_url must be {_RUNBOOKS}alerts/runbooks/{rule.name}.md"
    for where, text in [*notes.items(), *rule.labels.items()]:
        for label in _LABEL_IN_TEMPLATE.findall(text):
            if label not in (shape.labels or ()):
                yield f"{where} uses label {label}, which the expression does not keep"
    if rule.labels.get("component") == "consumer-group":
        for label in _LABEL_IN_TEMPLATE.findall(_OPTIONAL.sub("", notes.get("description", ""))):
            if label in _MAY_BE_EMPTY:
                yield f"description names {label}, which may be empty, without `with` or `or`"


def _faults_of_link(link: str, dashboards: Mapping[str, frozenset[str]]) -> Iterator[str]:
    # a group's id may have any character, also those that end a value of a URL
    left = _ENCODED.sub("", _CONDITION.sub("", link.removeprefix(_DASHBOARDS)))
    if "{{" in left:
        yield "dashboard_url has a label that is not encoded by urlquery"
    optional = _OPTIONAL.sub(lambda found: found[2] or "", link)
    url = urlsplit(_ENCODED.sub("x", optional.removeprefix(_DASHBOARDS)))
    variables = dashboards.get(url.path.removeprefix("/d/"))
    if variables is None or not link.startswith(_DASHBOARDS):
        yield f"dashboard_url must be {_DASHBOARDS}/d/ and one of {', '.join(dashboards)}"
        return
    given = [name.removeprefix("var-") for name, _ in parse_qsl(url.query)]
    yield from (f"its dashboard has no variable {name}" for name in given if name not in variables)


def _faults_of_recording(rule: Rule, shape: Shape) -> Iterator[str]:
    parts = rule.name.split(":")
    if len(parts) != 3 or not all(parts):
        yield "is not named level:metric:operations"
        return
    orders = itertools.permutations(sorted(shape.labels or ()))
    if parts[0] not in {"_".join(order) for order in orders}:
        yield f"level {parts[0]} is not its labels {sorted(shape.labels or ())}"


class _Reader:
    """Infers shapes from the leaves up, and notes what is wrong on the way."""

    def __init__(self, known: Mapping[str, Series], scrape_interval: timedelta) -> None:
        self._known = known
        self._shortest_window = SCRAPES_IN_A_WINDOW * scrape_interval
        self.findings: list[str] = []

    def read(self, expr: Any) -> Shape:  # noqa: PLR0911  # one return per kind of node
        match expr:
            case promql.ParenExpr():
                return self.read(expr.expr)
            case promql.NumberLiteral():
                return Shape(None, expr.val, expr.val)
            case promql.VectorSelector():
                return self._selector(expr)
            case promql.MatrixSelector():
                self._window(expr.range)
                return self._selector(expr.vector_selector)
            case promql.SubqueryExpr():
                self._window(expr.range)
                return self.read(expr.expr)
            case promql.UnaryExpr():
                inner = self.read(expr.expr)
                return Shape(inner.labels, -inner.high, -inner.low, inner.filters)
            case promql.AggregateExpr():
                return self._aggregation(expr)
            case promql.Call():
                return self._call(expr)
            case promql.BinaryExpr():
                return self._binary(expr)
        return Shape()

    def _window(self, window: timedelta | None) -> None:
        if window is not None and window < self._shortest_window:
            self.findings.append(
                f"window of {window.total_seconds():g} s is under "
                f"{SCRAPES_IN_A_WINDOW} scrape intervals: it would often see too few samples"
            )

    def _selector(self, expr: Any) -> Shape:
        series = self._known.get(expr.name)
        if series is None:
            self.findings.append(f"no program of ours declares {expr.name}")
            return Shape(frozenset())
        labels = series.labels
        equal = {m.name: m.value for m in expr.matchers.matchers if m.op == promql.MatchOp.Equal}
        if series.jobs is not None and "job" in equal:
            if equal["job"] not in series.jobs:
                self.findings.append(f"there is no job {equal['job']}")
            labels = series.jobs.get(equal["job"], labels)
        self._must_exist((m.name for m in expr.matchers.matchers), labels, expr.name)
        if "le" in equal and equal["le"] not in series.bounds:
            self.findings.append(f'{expr.name} has no bucket le="{equal["le"]}"')
        return Shape(labels, series.low, series.high)

    def _must_exist(self, names: Iterable[str], labels: frozenset[str], where: str) -> None:
        self.findings += [f"{where} has no label {name}" for name in names if name not in labels]

    def _aggregation(self, expr: Any) -> Shape:
        inner = self.read(expr.expr)
        labels = inner.labels or frozenset()
        kept: frozenset[str] = frozenset()
        if expr.modifier is not None:
            named = frozenset(expr.modifier.labels)
            self._must_exist(sorted(named), labels, f"what {expr.op} aggregates")
            by = expr.modifier.type == promql.AggModifierType.By
            kept = labels & named if by else labels - named
        match str(expr.op):
            case "group":
                low = high = 1.0
            case "count":
                low, high = 1.0, _INFINITY
            case "sum":
                low = 0.0 if inner.low >= 0 else -_INFINITY
                high = _INFINITY
            case "min" | "max" | "avg":
                low, high = inner.low, inner.high
            case "topk" | "bottomk":
                return inner
            case _:
                low, high = -_INFINITY, _INFINITY
        return Shape(kept, low, high, inner.filters)

    def _call(self, expr: Any) -> Shape:
        name = expr.func.name
        self._check_kind(name, expr.args)
        arguments = [self.read(arg) for arg in expr.args]
        vectors = [shape for shape in arguments if shape.labels is not None]
        low = 0.0 if name in _NEVER_NEGATIVE else -_INFINITY
        if name in {"absent", "absent_over_time"}:
            return Shape(_labels_of_absence(expr.args[0]), 1.0, 1.0, filters=True)
        if not vectors:
            return Shape(None, low)
        inner = vectors[-1]
        labels = inner.labels or frozenset()
        if name == "histogram_quantile":
            self._must_exist(["le"], labels, "what histogram_quantile reads")
            return Shape(labels - {"le"}, 0.0, _INFINITY, inner.filters)
        if name in _KEEPS_BOUNDS:
            return inner
        return Shape(labels, low, _INFINITY, inner.filters)

    def _check_kind(self, function: str, args: list[Any]) -> None:
        wanted = {**dict.fromkeys(_OF_COUNTERS, "counter"), **dict.fromkeys(_OF_GAUGES, "gauge")}
        for arg in args:
            if function not in wanted or not isinstance(arg, promql.MatrixSelector):
                continue
            name = arg.vector_selector.name
            series = self._known.get(name) if name else None
            if series is not None and series.kind != wanted[function]:
                self.findings.append(f"{function}() of {name}, which is a {series.kind}")

    def _binary(self, expr: Any) -> Shape:
        left, right = self.read(expr.lhs), self.read(expr.rhs)
        op = str(expr.op)
        labels = self._matched_labels(expr, left, right)
        if op in _SET_OPERATORS:
            return _of_sets(op, labels, left, right)
        if op in _COMPARISONS:
            self._check_comparison(expr, op, left, right)
            if expr.modifier is not None and expr.modifier.return_bool:
                return Shape(labels, 0.0, 1.0, left.filters or right.filters)
            # the vector's values go on, whichever side it is on
            value = right if left.labels is None else left
            return Shape(labels, value.low, value.high, filters=True)
        low, high = _arithmetic(op, left, right)
        return Shape(labels, low, high, left.filters or right.filters)

    def _matched_labels(self, expr: Any, left: Shape, right: Shape) -> frozenset[str] | None:
        if left.labels is None or right.labels is None:
            return right.labels if left.labels is None else left.labels
        op, modifier = str(expr.op), expr.modifier
        if modifier is None or modifier.matching is None:
            if op != "or" and left.labels != right.labels:
                odd = sorted(left.labels ^ right.labels)
                self.findings.append(f"the sides of `{op}` never match: only one has {odd}")
            return left.labels & right.labels if op == "or" else left.labels
        named = frozenset(modifier.matching.labels)
        for side, labels in (("left", left.labels), ("right", right.labels)):
            self._must_exist(sorted(named), labels, f"the {side} side of `{op}`")
        on = modifier.matching.type == promql.LabelModifierType.Include
        if op in _SET_OPERATORS:
            return left.labels & right.labels if op == "or" else left.labels
        copied = frozenset(modifier.group_labels or ())
        match modifier.card:
            case promql.VectorMatchCardinality.ManyToOne:
                self._must_exist(sorted(copied), right.labels, "the right side of group_left")
                return left.labels | copied
            case promql.VectorMatchCardinality.OneToMany:
                self._must_exist(sorted(copied), left.labels, "the left side of group_right")
                return right.labels | copied
        return left.labels & named if on else left.labels - named

    def _check_comparison(self, expr: Any, op: str, left: Shape, right: Shape) -> None:
        outcomes = _possible_outcomes(op, left, right)
        if outcomes == {True}:
            self.findings.append(f"`{expr}` is always true")
        elif outcomes == {False}:
            self.findings.append(f"`{expr}` is never true")


def _labels_of_absence(expr: Any) -> frozenset[str]:
    # absent() makes its labels up from what the selector demands to be equal
    if not isinstance(expr, promql.VectorSelector):
        return frozenset()
    return frozenset(m.name for m in expr.matchers.matchers if m.op == promql.MatchOp.Equal)


def _of_sets(op: str, labels: frozenset[str] | None, left: Shape, right: Shape) -> Shape:
    if op == "or":
        low, high = min(left.low, right.low), max(left.high, right.high)
        return Shape(labels, low, high, left.filters and right.filters)
    filters = left.filters or right.filters or op == "unless"
    return Shape(labels, left.low, left.high, filters)


def _arithmetic(op: str, left: Shape, right: Shape) -> tuple[float, float]:
    if left.low == left.high and right.low == right.high and op in {"+", "-", "*"}:
        exact = {"+": operator.add, "-": operator.sub, "*": operator.mul}[op](left.low, right.low)
        return exact, exact
    if op in {"+", "*", "/"} and left.low >= 0 and right.low >= 0:
        return 0.0, _INFINITY
    return -_INFINITY, _INFINITY


def _possible_outcomes(op: str, left: Shape, right: Shape) -> set[bool]:
    """Compare the ends of both ranges; an inner point stands for what may lie between."""
    compare = _COMPARISONS[op]
    return {compare(a, b) for a in _points(left, right) for b in _points(right, left)}


def _points(shape: Shape, other: Shape) -> set[float]:
    ends = {shape.low, shape.high, other.low, other.high}
    finite = {end for end in ends if math.isfinite(end)} or {0.0}
    near = {end + step for end in finite for step in (-1.0, -0.5, 0.0, 0.5, 1.0)}
    return {point for point in near if shape.low <= point <= shape.high}
