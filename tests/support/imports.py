"""What the modules of a program import, read from their text."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def imports_below(root: Path) -> dict[str, set[str]]:
    """Return, for each module of a program, the full name of whatever it imports.

    Also within functions and for types only; relative imports are refused.
    """
    imports = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        imports[name] = set(_imports(ast.parse(path.read_text())))
    return imports


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{each.name}" for each in node.names)


def circle_in(imports: Mapping[str, Collection[str]]) -> str:
    """Return modules that import each other in a circle, as `a -> b -> a`; empty without any."""
    graph = {}
    for name, imported in imports.items():
        # `from package import module` and `from module import thing`
        found = {each if each in imports else each.rpartition(".")[0] for each in imported}
        # a package is imported before what is in it, and ours have been before us
        found |= {package for each in found for package in _packages(each)} - {*_packages(name)}
        graph[name] = {each for each in found if each in imports and each != name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return ""


def _packages(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name
