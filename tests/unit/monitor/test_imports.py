"""Which module may import which: what analyses does no I/O, and nothing goes in a circle."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

import monitor
from tests.support.imports import circle_in, imports_below

IMPORTS: Final = imports_below(Path(monitor.__file__).parent)

# What is reckoned from plain data: of our own it knows only itself, and of Python's nothing that
# opens a file, a socket or a program.
PURE: Final = ("monitor.analysis", "monitor.model", "monitor.words")
BESIDE: Final = frozenset({"monitor.guard"})
WITHOUT_IO: Final = frozenset({
    "__future__", "array", "bisect", "collections", "dataclasses", "enum", "functools", "itertools", "math",
    "operator", "shlex", "statistics", "threading", "types", "typing", "unicodedata",
})  # fmt: skip


def test_modules_are_in_no_circle_not_even_for_types() -> None:
    assert circle_in(IMPORTS) == ""


@pytest.mark.parametrize(
    "imports",
    [
        {"p.a": {"p.b"}, "p.b": {"p.a.Thing"}},
        {"p.a": {"p.b.f"}, "p.b": {"p.c"}, "p.c": {"p.a"}},
        {"p": {"p.a.Thing"}, "p.a": {"p.name"}},
    ],
    ids=["two", "three", "package"],
)
def test_a_circle_is_seen(imports: dict[str, set[str]]) -> None:
    assert circle_in(imports).count(" -> ") == len(imports)


def test_what_analyses_does_no_io() -> None:
    wrong = {
        f"{name} imports {imported}"
        for name, all_imported in IMPORTS.items()
        if name.startswith(PURE)
        for imported in all_imported
        if not imported.startswith((*PURE, *BESIDE)) and imported.split(".")[0] not in WITHOUT_IO
    }
    assert wrong == set()
