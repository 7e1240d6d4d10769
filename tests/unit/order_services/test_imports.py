"""Which folder may import which: data flows one way, and services know nothing of each other."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

import order_services
from tests.support.imports import circle_in, imports_below

ROOT: Final = Path(order_services.__file__).parent

_FLOORS: Final = ("domain", "process", "storage", "messaging", "web", "service")
_OF_A_SERVICE: Final = frozenset(_FLOORS)
# What each may import beside itself. A folder that is not here may not be there either.
MAY_IMPORT: Final[Mapping[str, frozenset[str]]] = {
    "domain": frozenset(),
    "process": frozenset({"domain"}),
    "storage": frozenset({"domain", "process"}),
    "web": frozenset({"domain", "process"}),
    "messaging": frozenset({"domain", "process", "storage"}),
    "operations": frozenset({"domain", "process", "storage", "messaging"}),
    "service": frozenset({"domain", "process", "storage", "messaging", "web"}),
    # it begins replays of history
    "gateway": _OF_A_SERVICE | {"operations"},
    "payment": _OF_A_SERVICE,
    "inventory": _OF_A_SERVICE,
    "shipping": _OF_A_SERVICE,
    "analytics": _OF_A_SERVICE,
    "local": frozenset({"domain", "process", "storage", "operations"}),
    "cli": frozenset({"domain", "process", "storage", "operations", "local"}),
    "__main__": frozenset({"cli"}),
    "entry": frozenset({"cli"}),
}
# The domain decides; it asks neither Kafka, nor PostgreSQL, nor a web server.
IO_LIBRARIES: Final = frozenset(
    {"confluent_kafka", "sqlalchemy", "psycopg2", "starlette", "uvicorn", "prometheus_client"}
)


IMPORTS: Final = imports_below(ROOT)


def _folder(name: str) -> str:
    return name.split(".")[1]


def test_every_folder_has_its_place() -> None:
    assert {_folder(name) for name in IMPORTS if "." in name} == MAY_IMPORT.keys()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_those_below_it(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder}
    wrong = [
        f"{name} imports {imported}"
        for name, all_imported in IMPORTS.items()
        if "." in name and _folder(name) == folder
        for imported in all_imported
        if imported.split(".")[0] == "monitor"
        or (imported.startswith("order_services.") and _folder(imported) not in allowed)
    ]
    assert wrong == []


def test_the_floors_are_in_no_circle() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()


def test_modules_are_in_no_circle_either() -> None:
    assert circle_in(IMPORTS) == ""


def test_the_domain_does_no_io() -> None:
    wrong = {
        name: libraries
        for name, imported in IMPORTS.items()
        if name.startswith("order_services.domain")
        and (libraries := {each.split(".")[0] for each in imported} & IO_LIBRARIES)
    }
    assert wrong == {}
