"""Placeholders that leave PromQL alone.

grafana-dashboard-builder runs `str.format` over every string of a source: `{job!="a"}` fails in it
and `{{topic}}` loses a pair of braces. Only `{name}` of a known name is a placeholder here.
"""

# mypy: disable-error-code="import-untyped, misc"
# the library ships no types, so its classes are Any as base classes too

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from grafana_dashboards.components import base, projects
from grafana_dashboards.context import Context, ContextExpander

_PLACEHOLDER: Final = re.compile(r"(?<!\{)\{([A-Za-z_][\w-]*)\}(?!\})")


class PromqlContext(Context):
    """Expand the placeholders of known names, and nothing else."""

    def expand_placeholders(self, to_expand: Any) -> Any:
        """Return a copy of a string, list or mapping with the known placeholders replaced."""
        known = self._context or {}
        if isinstance(to_expand, str):
            return _PLACEHOLDER.sub(lambda match: str(known.get(match[1], match[0])), to_expand)
        if isinstance(to_expand, list):
            return [self.expand_placeholders(value) for value in to_expand]
        if isinstance(to_expand, dict):
            return {key: self.expand_placeholders(value) for key, value in to_expand.items()}
        return to_expand

    @staticmethod
    def create_context(data: Any, keys_to_expand: Iterable[str] | None = None) -> Iterator[Context]:
        """Yield a context for each combination of the listed values."""
        for values in ContextExpander(keys_to_expand).create_context(None, data):
            yield PromqlContext(PromqlContext(values).expand_placeholders(values))


def install() -> None:
    """Make grafana-dashboard-builder use these placeholders: it looks the class up in two modules."""
    base.Context = projects.Context = PromqlContext
