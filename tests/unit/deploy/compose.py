"""Compose files as `docker compose` understands them, read without it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

REPOSITORY: Final = Path(__file__).resolve().parents[3]
FILES: Final = ("docker-compose.yml", "docker-compose.scale.yml")
SECURE: Final = "docker-compose.secure.yml"
TWO_POOLERS: Final = "docker-compose.pgbouncer.yml"
# those that go on top of one of FILES
OVERRIDES: Final = (SECURE, TWO_POOLERS)
# what `!reset` leaves: the key is dropped after the merge
_RESET: Final = object()
_VARIABLE: Final = re.compile(r"\$\{(?P<name>[A-Z_]+):-(?P<default>[^}]*)\}")
# https://github.com/compose-spec/compose-spec/blob/main/13-merge.md, "Unique resources"
_APPENDED: Final = ("ports", "volumes", "tmpfs", "security_opt")


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!reset", lambda _loader, _node: _RESET)


def raw(name: str) -> dict[str, Any]:
    """Return the file as it is written, anchors resolved and `!reset` keys left out."""
    return {key: _without_reset(value) for key, value in _read(name).items()}


@cache
def services(name: str) -> dict[str, dict[str, Any]]:
    """Return every service of the file as it will run: extended, reset, with default variables.

    Callers share what they get: it is for reading only.
    """
    extended = {service: _extended(name, service) for service in _read(name)["services"]}
    return {service: interpolate(_without_reset(value)) for service, value in extended.items()}


def overlaid(*names: str) -> dict[str, dict[str, Any]]:
    """Return the services of several files, as `docker compose -f A -f B` puts B on top of A."""
    result: dict[str, Any] = {}
    for name in names:
        for service in _read(name)["services"]:
            own = _extended(name, service)
            result[service] = _merged(result[service], own) if service in result else own
    return {service: interpolate(_without_reset(value)) for service, value in result.items()}


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a resolved service sets."""
    return dict(service.get("environment", {}))


def words(command: str | list[str]) -> list[str]:
    """Return a command as a list of words; ours are always written as one."""
    assert isinstance(command, list), f"write {command!r} as a list: no shell splits it"
    return command


def mounts(service: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield source, target and whether it is read-only, of each volume of a service."""
    for volume in service.get("volumes", []):
        source, target, *options = str(volume).split(":")
        yield source, target, "ro" in options


def published(service: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Yield address, port of this machine and port of the container."""
    for port in service.get("ports", []):
        address, host, container = str(port).split(":")
        yield address, int(host), int(container)


def interpolate(value: Any, variables: Mapping[str, str] | None = None) -> Any:
    """Put each variable's value, or its default, in its place."""
    known = variables or {}
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: known.get(found["name"], found["default"]), value)
    if isinstance(value, list):
        return [interpolate(each, known) for each in value]
    if isinstance(value, dict):
        return {key: interpolate(each, known) for key, each in value.items()}
    return value


def seconds(duration: str) -> float:
    """Read `1m30s`."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    assert re.fullmatch(r"(\d+[smh])+", duration), duration
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([smh])", duration))


def container_files(service: Mapping[str, Any], under: str, target: Path) -> Path:
    """Rebuild below `target`, as links, what a service has mounted below the path `under`."""
    for source, mounted, _ in mounts(service):
        if source.startswith("./") and mounted.startswith(f"{under}/"):
            link = target / os.path.relpath(mounted, under)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(REPOSITORY / source)
    return target


@cache
def _read(name: str) -> dict[str, Any]:
    content = yaml.load((REPOSITORY / name).read_text(), _Loader)
    assert isinstance(content, dict)
    return content


def _extended(name: str, service: str) -> dict[str, Any]:
    own = dict(_read(name)["services"][service])
    base = own.pop("extends", None)
    return own if base is None else _merged(_extended(base["file"], base["service"]), own)


def _merged(base: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in own.items():
        before = result.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            result[key] = _merged(before, value)
        elif key in _APPENDED and isinstance(value, list) and isinstance(before, list):
            result[key] = [*before, *value]
        else:
            result[key] = value
    return result


def _without_reset(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_reset(each) for key, each in value.items() if each is not _RESET}
    return value
