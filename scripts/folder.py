"""Prints a folder with a line for each Python file: its lines, and what its first docstring says it does.

`python -m scripts.folder monitor`; `--at COMMIT` prints it as it was then.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path


def files(folder: str, commit: str | None) -> Mapping[str, str]:
    """Return path -> text of the folder's Python files, of the working tree or of a commit."""
    if commit is None:
        return {str(path): path.read_text() for path in sorted(Path(folder).rglob("*.py"))}
    names = _git("ls-tree", "-r", "--name-only", commit, "--", f"{folder}/").splitlines()
    return {name: _git("show", f"{commit}:{name}") for name in names if name.endswith(".py")}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def lines(found: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each file that says anything, and one for all of them."""
    total = 0
    for path, text in found.items():
        docstring = ast.get_docstring(ast.parse(text)) or ""
        size = len(text.splitlines())
        total += size
        if docstring or size > 1:
            yield f"{size:6} {path:50} {docstring.partition(chr(10))[0]}"
    yield f"{total:6} in {len(found)} files"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--at", metavar="COMMIT", help="as it was in this commit")
    arguments = parser.parse_args()
    for line in lines(files(arguments.folder, arguments.at)):
        print(line)
