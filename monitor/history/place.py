"""Where the history is kept where nobody says: a file of the monitor's port in a state directory.

Two monitors of one machine cannot listen on one port, and the next start of one finds its own file again.
Nothing here needs SQLAlchemy, which is not loaded where there is no place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

OFF: Final = "off"
FOLDER: Final = "kafka-lag-monitor"


class NoPlaceError(Exception):
    """There is no directory that can be written; the message says which, and why."""


def place_of(given: str | None, port: int, environment: Mapping[str, str]) -> str | Path | None:
    """Return the database that was `given`, else the file of this port; None for no history.

    Raises NoPlaceError where the file's directory cannot be made or written.
    """
    if given is not None:
        return None if given.strip() == OFF else given
    if not port:
        return None  # the next start has another one, and would not find it
    folder = state_directory(environment)
    file = folder / f"history-{port}.sqlite"
    try:
        # as the XDG specification asks for
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_of(file).touch()
    except OSError as error:
        raise NoPlaceError(f"{folder}: {error.strerror}") from None
    return file


def state_directory(environment: Mapping[str, str]) -> Path:
    """Return systemd's directory for the service, else ours in the user's; raises NoPlaceError."""
    # of several the first is the one that the unit names first
    of_service = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if of_service:
        return Path(of_service)
    of_user = Path(environment.get("XDG_STATE_HOME", ""))
    if not of_user.is_absolute():  # others are to be ignored, says the specification
        try:
            of_user = Path(environment.get("HOME") or Path.home()) / ".local" / "state"
        except RuntimeError:
            raise NoPlaceError("this user has no home directory") from None
    return of_user / FOLDER


def lock_of(file: Path) -> Path:
    """Return the file whose lock says that a monitor writes this database."""
    return file.with_name(f"{file.name}.lock")


def own_place(given: str | None, port: int) -> str | Path | None:
    """Return `place_of` in this process' environment."""
    return place_of(given, port, os.environ)
