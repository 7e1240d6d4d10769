"""The page's scripts and styles: read once, compressed once, answered on the event loop."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "static"
PREFIX: Final = "/static/"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent; `etag` is of what is in it, so that a newer monitor's is loaded."""

    type: str
    plain: bytes
    gzipped: bytes
    etag: str


def read_static_files() -> Mapping[str, StaticFile]:
    """Return path -> file of all that is served; nothing else can be asked for."""
    return {
        PREFIX + file.relative_to(FOLDER).as_posix(): _read(file)
        for file in sorted(FOLDER.rglob("*"))
        if file.suffix in _TYPES
    }


def _read(file: Path) -> StaticFile:
    body = file.read_bytes()
    return StaticFile(
        _TYPES[file.suffix],
        body,
        gzip.compress(body, mtime=0),
        f'"{hashlib.sha256(body).hexdigest()[:20]}"',
    )
