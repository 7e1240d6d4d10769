"""Which of the shipped alerts fire over a course of pages: promtool runs the rules over them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.states.model import Fired, Samples, SeriesKey
from tests.support.programs import program

REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent
RULES: Final = ("consumer-groups", "brokers", "monitoring")
SERVICES: Final = ("gateway", "payment", "inventory", "shipping", "analytics")
# an alert that waits its `for` needs no more samples than these after the course ends
_FIRED: Final = 'count without (alertstate) (max_over_time(ALERTS{alertstate="firing"}[100h]))'
_SAMPLE: Final = re.compile(r'\{((?:[^"{}]|"(?:\\.|[^"\\])*")*)\} [0-9.E+-]+')
_LABEL: Final = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')


def fired(courses: Sequence[Mapping[str, Sequence[Samples]]], folder: Path) -> list[list[Fired]]:
    """Return the alerts that fired in each course.

    A course has each instance of the monitor with its pages, one a minute. All courses are one run
    of promtool, as each start costs.
    """
    names = set()
    for rules in RULES:
        names.update(
            re.findall(r"kafka_\w+", (REPOSITORY / f"alerts/rules/{rules}.yml").read_text())
        )
    tests = [_test(course, names) for course in courses]
    file = folder / "states.yml"
    file.write_text(
        yaml.dump(
            {
                "rule_files": [str(REPOSITORY / f"alerts/rules/{name}.yml") for name in RULES],
                "evaluation_interval": "1m",
                "tests": tests,
            },
            sort_keys=False,
            width=10_000,
        )
    )
    promtool = program("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    told = done.stderr + done.stdout
    # each test expects a series that never is, so that what there was is told
    answers = re.split(r"^ +got: ", told, flags=re.MULTILINE)[1:]
    assert len(answers) == len(courses), told[:4_000]
    return [
        [_alert(labels) for labels in _SAMPLE.findall(answer.split("expr:")[0])]
        for answer in answers
    ]


def _test(course: Mapping[str, Sequence[Samples]], names: set[str]) -> dict[str, Any]:
    minutes = max(map(len, course.values()))
    series = [
        {"series": f'up{{job="order-services",service="{one}"}}', "values": f"1x{minutes}"}
        for one in SERVICES
    ]
    for instance, pages in course.items():
        series.append(
            {"series": f'up{{job="kafka-monitor",instance="{instance}"}}', "values": f"1x{minutes}"}
        )
        seen: dict[SeriesKey, list[float | None]] = {}
        for minute, page in enumerate(pages):
            for key, value in page.items():
                if key[0] in names:
                    values = seen.setdefault(key, [None] * len(pages))
                    # promtool's clock begins at 0
                    values[minute] = (
                        value
                        if not key[0].endswith("_timestamp_seconds")
                        else value - _start(pages)
                    )
        series += [
            {"series": _text(key, instance), "values": _values(values)}
            for key, values in seen.items()
        ]
    return {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": _FIRED,
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": '{never="so"}', "value": 0}],
            }
        ],
    }


def _start(pages: Sequence[Samples]) -> float:
    return min(
        (
            value
            for (name, _), value in pages[0].items()
            if name == "kafka_monitor_last_poll_timestamp_seconds"
        ),
        default=0.0,
    )


def _text(key: SeriesKey, instance: str) -> str:
    labels = {"job": "kafka-monitor", "instance": instance, **dict(key[1])}
    escaped = {
        n: v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for n, v in labels.items()
    }
    return key[0] + "{" + ",".join(f'{n}="{v}"' for n, v in escaped.items()) + "}"


def _values(values: Sequence[float | None]) -> str:
    """Return promtool's notation; a series that leaves the page is marked stale, as by a scrape."""
    words: list[str] = []
    last: float | None = None
    for value in values:
        if value is not None:
            words.append(repr(float(value)))
        else:
            words.append("stale" if last is not None else "_")
        last = value
    runs: list[list[Any]] = []
    for word in words:
        if runs and runs[-1][0] == word and word != "stale":
            runs[-1][1] += 1
        else:
            runs.append([word, 0])
    return " ".join(f"{word}x{more}" if more else word for word, more in runs)


def _alert(text: str) -> Fired:
    labels = {
        name: value.replace(r"\n", "\n").replace(r"\"", '"').replace(r"\\", "\\")
        for name, value in _LABEL.findall(text)
    }
    return Fired(labels.pop("alertname"), labels)
