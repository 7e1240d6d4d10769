"""docs/scaling.md and docs/failover.md name files, tests and commands: all of them are there."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest

from monitor.commands import main as monitor_cli
from order_services.cli import cli as services_cli
from tests.unit.deploy.compose import REPOSITORY, services

DOCS = REPOSITORY / "docs"
PAGES = ("scaling.md", "failover.md")
TEXT = {page: (DOCS / page).read_text() for page in PAGES}
TESTS = sorted({each for text in TEXT.values() for each in re.findall(r"`(tests/[^`]+)`", text)})
LINKS = sorted({each for text in TEXT.values() for each in re.findall(r"\]\(([^)#]+)\)", text)})
PROGRAMS = {"order-services": services_cli, "monitor": monitor_cli}


def rows(page: str) -> list[list[str]]:
    """Return the cells of every row of every table, without heads."""
    found = []
    lines = TEXT[page].splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") and not line.startswith("|--") and not after.startswith("|--"):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def commands() -> list[str]:
    """Return each command of ours that a page shows."""
    found = set()
    for text in TEXT.values():
        for shown in [
            *re.findall(r"`([^`\n]+)`", text),
            *re.findall(r"^(\w.*)$", text, re.MULTILINE),
        ]:
            line = shown.replace("\\|", "|").partition("  #")[0]
            match = re.search(r"(?:^|\) |=\d+ )((?:order-services|monitor) [a-z].*)$", line)
            if match and (shown in re.findall(r"`([^`\n]+)`", text) or "--" in line):
                found.add(match[1])
    return sorted(found)


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_tables_are_found() -> None:
    assert len(rows("scaling.md")) > 30
    assert len(rows("failover.md")) >= 9
    assert len(TESTS) > 20
    assert len(commands()) > 10


@pytest.mark.parametrize("named", TESTS)
def test_a_test_that_is_named_is_there(named: str) -> None:
    path, _, function = named.partition("::")
    assert (REPOSITORY / path).is_file()
    if function:
        assert function in functions(REPOSITORY / path)


@pytest.mark.parametrize("link", LINKS)
def test_a_file_that_is_linked_is_there(link: str) -> None:
    assert (DOCS / link).resolve().exists()


@pytest.mark.parametrize("line", commands())
def test_a_command_that_is_shown_is_understood(line: str) -> None:
    program, *arguments = shlex.split(line)
    command: click.Command = PROGRAMS[program]
    context = command.make_context(program, list(arguments), resilient_parsing=False)
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None, name
        command = found
        context = command.make_context(str(name), rest, parent=context)


def test_each_row_of_the_guide_has_what_holds_it() -> None:
    for cells in rows("scaling.md"):
        if len(cells) == 4:
            assert "`tests/" in cells[3], cells[0]
    for cells in rows("failover.md"):
        assert len(cells) == 5
        assert "`tests/" in cells[4], cells[0]


def test_services_of_the_docker_commands_are_those_of_the_files() -> None:
    known = services("docker-compose.scale.yml")
    for page, text in TEXT.items():
        for service in re.findall(r"--scale ([a-z-]+)=", text):
            assert service in known, page
        for file in re.findall(r"-f (docker-compose[a-z.-]*)", text):
            assert (REPOSITORY / file).is_file(), page
