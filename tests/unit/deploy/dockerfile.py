"""deploy/Dockerfile, read into its stages."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from tests.unit.deploy.compose import REPOSITORY

PATH: Final = REPOSITORY / "deploy" / "Dockerfile"
# what is set for Python and the shell, or as systemd would set it, and is no setting of our programs
SYSTEM_VARIABLES: Final = {
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
    "STATE_DIRECTORY",
}


@dataclass
class Stage:
    """A stage and its instructions, in order, as (name, rest of the line)."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return any(each == name for each, _ in self.instructions)

    def last(self, name: str) -> str:
        """Return what the last instruction of this name says, here or in the stage below."""
        for each, text in reversed(self.instructions):
            if each == name:
                return text
        return stages()[self.base].last(name)

    def words(self, name: str) -> list[str]:
        """Return the words of an instruction in its JSON form, which needs no shell."""
        found = json.loads(self.last(name))
        assert isinstance(found, list)
        return found


@cache
def stages() -> dict[str, Stage]:
    """Return the stages by name, the default one last."""
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for name, text in _instructions():
        if name == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", text)
            assert match, f"FROM {text}: every stage has a name"
            current = found[match[2]] = Stage(match[1])
        else:
            assert current is not None
            current.instructions.append((name, text))
    return found


def environment(stage: str) -> dict[str, str]:
    """Return the variables that a stage's image sets, with those of the stages below it."""
    found = stages()[stage]
    below = environment(found.base) if found.base in stages() else {}
    pairs = [
        word.split("=", 1)
        for name, text in found.instructions
        if name == "ENV"
        for word in shlex.split(text)
    ]
    return {**below, **dict(pairs)}


def _instructions() -> Iterator[tuple[str, str]]:
    lines = [line for line in PATH.read_text().splitlines() if not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, text = line.partition(" ")
            yield name, text.strip()
