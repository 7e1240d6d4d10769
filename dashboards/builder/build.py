"""Turn source files into the text of dashboards."""

# mypy: disable-error-code="import-untyped, misc"
# grafana-dashboard-builder ships no types, so its classes are Any as base classes too

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from grafana_dashboards.exporter import DashboardExporter, ProjectProcessor
from grafana_dashboards.parser import DefinitionParser

# importing panels registers its components: the registry takes every subclass that exists
from dashboards.builder import dashboard, panels, placeholders

__all__ = ["GENERATED", "SOURCES", "build", "panels"]

_HERE: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = _HERE / "sources"
GENERATED: Final = _HERE / "generated"


class _Collector(DashboardExporter):
    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, str] = {}

    def process_dashboard(self, _project: str, name: str, data: Mapping[str, Any]) -> None:
        """Keep the dashboard as text whose lines compare well."""
        self.files[f"{name}.json"] = json.dumps(data, indent=2, sort_keys=True) + "\n"


def build(sources: Iterable[Path]) -> dict[str, str]:
    """Return file name -> JSON text of each dashboard; the same sources give the same text.

    Raises DefinitionError.
    """
    placeholders.install()
    dashboard.install()
    collector = _Collector()
    projects = DefinitionParser().load_projects([str(path) for path in sorted(sources)])
    ProjectProcessor([collector]).process_projects(projects, {})
    return collector.files
