"""The dashboard itself: variables, links, annotations, and rows laid out on Grafana's grid."""

# mypy: disable-error-code="import-untyped, misc"
# grafana-dashboard-builder ships no types, so its classes are Any as base classes too

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from grafana_dashboards.common import get_component_type
from grafana_dashboards.components import dashboards, projects
from grafana_dashboards.components.annotations import Annotations, AnnotationsItemBase
from grafana_dashboards.components.links import Links, LinksItemBase
from grafana_dashboards.components.rows import Rows, RowsItemBase
from grafana_dashboards.components.templates import Templates, TemplatesItemBase

from dashboards.builder import sdk
from dashboards.builder.errors import DefinitionError
from dashboards.builder.options import apply
from dashboards.builder.palette import COLOURS

GRID_COLUMNS: Final = 24
SCHEMA_VERSION: Final = 42  # the newest of the classic model: Grafana 11 to 13 load it

_REQUIRED: Final = frozenset({"uid", "title", "description", "tags", "rows"})
_KEYS: Final = _REQUIRED | {"time", "refresh", "links", "templates", "annotations"}
_BUILT_IN_ANNOTATIONS: Final = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": COLOURS["sky"],
    "name": "Annotations & Alerts",
    "type": "dashboard",
}


def _variable(builder: Any) -> dict[str, Any]:
    # the SDK writes an interval variable's fields into every variable; Grafana's schema has none
    built = sdk.as_json(builder.build()).items()
    return {key: value for key, value in built if not key.startswith("auto")}


class DatasourceVariable(TemplatesItemBase):
    """The data source that everything else on the dashboard asks."""

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the variable."""
        variable = sdk.dashboard.DatasourceVariable("datasource").label("Data source")
        return _variable(apply(variable.type("prometheus"), data, "datasource-variable"))


class QueryVariable(TemplatesItemBase):
    """A variable of several values, filled by a query each time the time range changes."""

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the variable; `query` may use the variables above it."""
        options = dict(data)
        name, query = options.pop("name"), options.pop("query")
        variable = (
            sdk.dashboard.QueryVariable(name)
            .datasource(sdk.DATASOURCE)
            .refresh(sdk.dashboard_models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(sdk.dashboard_models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".+")
            .current(sdk.dashboard_models.VariableOption(text="All", value="$__all"))
            .query({"query": query, "refId": "StandardVariableQuery", "qryType": 1})
        )
        built = _variable(apply(variable, options, f"query-variable {name!r}"))
        return {**built, "definition": query}


class Link(LinksItemBase):
    """A link in the dashboard's header."""

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the link."""
        options = dict(data)
        title = options.pop("title")
        link = sdk.as_json(
            apply(sdk.dashboard.DashboardLink(title), options, f"link {title!r}").build()
        )
        # the SDK always asks for a place in the controls' menu, where nobody would see it
        del link["placement"]
        return link


class PrometheusAnnotation(AnnotationsItemBase):
    """Marks on every graph, from a query."""

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the annotation."""
        options = dict(data)
        name, colour = options.pop("name"), options.pop("colour")
        where = f"prometheus-annotation {name!r}"
        if colour not in COLOURS:
            raise DefinitionError(f"{where}: {colour!r} is not one of {', '.join(COLOURS)}")
        annotation = (
            sdk.dashboard.AnnotationQuery()
            .name(name)
            .datasource(sdk.DATASOURCE)
            .enable(True)
            .icon_color(COLOURS[colour])
        )
        built = sdk.as_json(apply(annotation, options, where).build())
        # the SDK asks for a place in the controls' menu here too
        built.pop("placement", None)
        return built


class Row(RowsItemBase):
    """Panels below one heading; a collapsed row asks nothing until it is opened."""

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the row and its panels, not laid out yet."""
        unknown = set(data) - {"title", "collapsed", "panels"}
        if unknown:
            raise DefinitionError(f"row {data.get('title')!r}: unknown keys {sorted(unknown)}")
        panels = self.registry.create_component("panels", data).gen_json()
        return {
            "title": data["title"],
            "collapsed": bool(data.get("collapsed", False)),
            "panels": panels,
        }


class Dashboard(dashboards.Dashboard):
    """A dashboard of schemaVersion 42."""

    def gen_json_from_data(self, data: Mapping[str, Any], _context: object) -> Any:
        """Return the dashboard as Grafana loads it."""
        unknown = set(data) - _KEYS
        if unknown:
            raise DefinitionError(f"dashboard {self.name!r}: unknown keys {sorted(unknown)}")
        missing = _REQUIRED - set(data)
        if missing:
            raise DefinitionError(f"dashboard {self.name!r}: missing keys {sorted(missing)}")
        time = data.get("time", {"from": "now-1h", "to": "now"})
        model = sdk.dashboard_models.Dashboard(
            uid=data["uid"],
            title=data["title"],
            description=data["description"],
            tags=sorted(data["tags"]),
            timezone="browser",
            editable=False,  # edits would be lost: the source is the YAML file
            graph_tooltip=sdk.dashboard_models.DashboardCursorSync.CROSSHAIR,
            time=sdk.dashboard_models.DashboardDashboardTime(from_val=time["from"], to=time["to"]),
            refresh=data.get("refresh", "30s"),
            schema_version=SCHEMA_VERSION,
        )
        return {
            **sdk.as_json(model),
            "templating": {"list": self._list(Templates, data)},
            "links": self._list(Links, data),
            "annotations": {"list": [_BUILT_IN_ANNOTATIONS, *self._list(Annotations, data)]},
            "panels": lay_out(self._list(Rows, data)),
        }

    def _list(self, component: Any, data: Mapping[str, Any]) -> list[Any]:
        if get_component_type(component) not in data:
            return []
        items: list[Any] = self.registry.create_component(component, data).gen_json()
        return items


def lay_out(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Place the rows' panels from left to right; ids follow the order of definition."""
    placed: list[dict[str, Any]] = []
    y = next_id = 0
    for row in rows:
        next_id += 1
        header = {
            "type": "row",
            "id": next_id,
            "title": row["title"],
            "collapsed": row["collapsed"],
            "gridPos": {"x": 0, "y": y, "w": GRID_COLUMNS, "h": 1},
            "panels": [],
        }
        placed.append(header)
        y += 1
        target = header["panels"] if row["collapsed"] else placed
        x = line_height = 0
        for panel in row["panels"]:
            next_id += 1
            width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
            if x + width > GRID_COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            position = {"x": x, "y": y, "w": width, "h": height}
            target.append({**panel, "id": next_id, "gridPos": position})
            x, line_height = x + width, max(line_height, height)
        y += line_height
    return placed


def install() -> None:
    """Make grafana-dashboard-builder look dashboards up under our class."""
    projects.Dashboard = Dashboard
