"""Build the dashboards: `python -m dashboards` writes them, `--check` says whether they are current."""

from __future__ import annotations

import argparse
import sys

from dashboards.builder.build import GENERATED, SOURCES, build
from dashboards.builder.errors import DefinitionError


def main() -> int:
    """Return 0, 1 when `--check` found a difference, 2 when a source is wrong."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    try:
        built = build(SOURCES.glob("*.yaml"))
    except DefinitionError as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command's output
        return 2
    committed = {path.name: path.read_text() for path in GENERATED.glob("*.json")}
    differing = sorted(
        name for name in built.keys() | committed.keys() if built.get(name) != committed.get(name)
    )
    if not check:
        for name in differing:
            path = GENERATED / name
            path.write_text(built[name]) if name in built else path.unlink()
    for name in differing:
        print(f"{name}: {'differs from its source' if check else 'rebuilt'}")  # noqa: T201  # as above
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
