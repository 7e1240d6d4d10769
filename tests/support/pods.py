"""What a kubelet makes of a container's description: its variables and its arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

# $$(NAME) stands for $(NAME); a name that is not known stays as it is written
_REFERENCE: Final = re.compile(r"\$(\$?)\(([A-Za-z_][A-Za-z0-9_.-]*)\)")

# A ConfigMap's or Secret's values by kind and name; None where there is none.
Lookup = Callable[[str, str], Mapping[str, str] | None]


class MissingReferenceError(Exception):
    """A container wants a ConfigMap, a Secret or a key that is not there."""


def environment(
    container: Mapping[str, Any], lookup: Lookup, fields: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of a container, see https://kubernetes.io/docs/reference (EnvVar).

    `fields` are the pod's own by path, as `metadata.name`. Raises MissingReferenceError for what is
    neither there nor optional.
    """
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        kind = "ConfigMap" if "configMapRef" in source else "Secret"
        reference = source["configMapRef" if kind == "ConfigMap" else "secretRef"]
        values = lookup(kind, reference["name"])
        if values is None and not reference.get("optional", False):
            raise MissingReferenceError(f"{kind} {reference['name']}")
        variables.update(values or {})
    for entry in container.get("env", []):
        value = _value(entry, lookup, fields, variables)
        if value is not None:
            variables[entry["name"]] = value
    return variables


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in the place of $(NAME)."""

    def replace(found: re.Match[str]) -> str:
        if found[1]:
            return found[0][1:]
        return variables.get(found[2], found[0])

    return _REFERENCE.sub(replace, text)


def arguments(container: Mapping[str, Any], variables: Mapping[str, str]) -> list[str]:
    """Return the container's `args`."""
    return [expanded(str(word), variables) for word in container.get("args", [])]


def _value(
    entry: Mapping[str, Any],
    lookup: Lookup,
    fields: Mapping[str, str],
    variables: Mapping[str, str],
) -> str | None:
    if "valueFrom" not in entry:
        return expanded(entry.get("value", ""), variables)
    source = entry["valueFrom"]
    if "fieldRef" in source:
        return fields[source["fieldRef"]["fieldPath"]]
    kind = "ConfigMap" if "configMapKeyRef" in source else "Secret"
    reference = source["configMapKeyRef" if kind == "ConfigMap" else "secretKeyRef"]
    values = lookup(kind, reference["name"]) or {}
    if reference["key"] in values:
        return values[reference["key"]]
    if reference.get("optional", False):
        return None
    raise MissingReferenceError(f"{kind} {reference['name']}, key {reference['key']}")
