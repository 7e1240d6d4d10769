"""Shortens the times of alert rules, for tests that cannot wait for days.

Only times are changed:

- `for`, windows and offsets of rules, and Alertmanager's waits, are divided by `factor`;
- `keep_firing_for` is divided by `keep_factor` at most: it has to outlast polls, scrapes and members that
  rejoin, which are not as much faster;
- none gets shorter than `shortest_wait_seconds` or `shortest_window_seconds` (a window has to span
  several scrapes, polls of the monitor and commits of a healthy consumer), and none longer than it
  was;
- scrapes and evaluations happen every `scrape_interval_seconds`;
- numbers that expressions compare with stay: a lag of 60 seconds takes 60 seconds.

Expressions are changed in their syntax tree. Annotations keep the times of the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import promql_parser as promql


@dataclass(frozen=True, slots=True)
class Pace:
    """By how much times are shortened; see the module."""

    factor: float = 30.0
    scrape_interval_seconds: float = 1.0
    shortest_wait_seconds: float = 2.0
    keep_factor: float = 8.0
    shortest_window_seconds: float = 10.0

    def wait(self, text: str) -> str:
        """Shorten a `for`, or a wait of Alertmanager."""
        return self._shorten(promql.parse_duration(text), self.shortest_wait_seconds)

    def expression(self, text: str) -> str:
        """Shorten the windows and offsets of an expression."""
        return str(promql.transform(promql.parse(text), post_visit=self._shorten_node))

    def rules(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Shorten what a file of rules holds."""
        return {
            "groups": [
                {**group, "rules": [self._rule(rule) for rule in group["rules"]]}
                for group in content["groups"]
            ]
        }

    def _rule(self, rule: Mapping[str, Any]) -> dict[str, Any]:
        changed = {**rule, "expr": self.expression(str(rule["expr"]))}
        if "for" in rule:
            changed["for"] = self.wait(rule["for"])
        if "keep_firing_for" in rule:
            kept = promql.parse_duration(rule["keep_firing_for"])
            shortest = kept.total_seconds() / self.keep_factor
            changed["keep_firing_for"] = self._shorten(kept, shortest)
        return changed

    def _shorten_node(self, node: Any) -> Any:
        # children come first: a matrix selector's own selector has its offset shortened already
        if isinstance(node, promql.VectorSelector) and node.offset:
            node.offset = promql.parse_duration(self._window(node.offset))
            return promql.parse(str(node))
        if isinstance(node, promql.MatrixSelector):
            selector: Any = promql.parse(str(node.vector_selector))
            offset = selector.offset
            selector.offset = None
            text = f"{selector}[{self._window(node.range)}]"
            return promql.parse(text if not offset else f"{text} offset {_display(offset)}")
        if isinstance(node, promql.SubqueryExpr):
            raise NotImplementedError(f"a subquery is not shortened: {node}")
        return None

    def _window(self, window: timedelta) -> str:
        return self._shorten(window, self.shortest_window_seconds)

    def _shorten(self, duration: timedelta, shortest_seconds: float) -> str:
        seconds = max(duration.total_seconds() / self.factor, shortest_seconds)
        return _display(min(duration, timedelta(seconds=round(seconds, 3))))


def _display(duration: timedelta) -> str:
    return promql.display_duration(duration)
