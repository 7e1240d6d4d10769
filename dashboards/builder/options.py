"""Apply the keys of a YAML mapping to a builder of grafana-foundation-sdk, strictly.

An unknown key, a value of the wrong type or one that the enumeration lacks is an error that names
the place: grafana-dashboard-builder would drop it without a word, and the panel would look wrong.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from dashboards.builder.errors import DefinitionError

Setter: TypeAlias = Callable[[Any, Any, str], None]
"""Sets one option: (builder, value, where)."""

_NOT_OPTIONS: Final = frozenset({"build"})


def apply(
    builder: Any,
    options: Mapping[str, Any],
    where: str,
    setters: Mapping[str, Setter] | None = None,
) -> Any:
    """Set every option on the builder and return it; `setters` go before the builder's methods.

    Raises DefinitionError.
    """
    setters = setters or {}
    for key, value in options.items():
        place = f"{where}: {key}"
        if key in setters:
            setters[key](builder, value, place)
        else:
            _call(builder, key, value, place)
    return builder


def _call(builder: Any, key: str, value: Any, where: str) -> None:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
    method = None if name in _NOT_OPTIONS or name.startswith("_") else getattr(builder, name, None)
    if not callable(method):
        raise DefinitionError(f"{where}: unknown key")
    parameters = list(inspect.signature(method).parameters)
    if not parameters:  # a flag such as `instant()`
        if value is not True:
            raise DefinitionError(f"{where}: write `{key}: true` or leave it out")
        method()
    elif len(parameters) == 1:
        method(convert(value, typing.get_type_hints(method)[parameters[0]], where))
    else:
        raise DefinitionError(f"{where}: cannot be set from YAML")


def convert(value: Any, wanted: Any, where: str) -> Any:
    """Return the value as the type that the SDK wants; raise DefinitionError when it cannot be."""
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        try:
            return wanted(value)
        except ValueError:
            allowed = ", ".join(str(member.value) for member in wanted)
            raise DefinitionError(f"{where}: {value!r} is not one of {allowed}") from None
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        str: isinstance(value, str),
        int: numeric,
        float: numeric,
    }
    if not fits.get(wanted, True):
        raise DefinitionError(f"{where}: expected {wanted.__name__}, got {value!r}")
    return value
