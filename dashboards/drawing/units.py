"""Write numbers as Grafana does, for the units that our dashboards use."""

from __future__ import annotations

import math
from typing import Final

_SUFFIXES: Final = {"reqps": " req/s", "ops": " ops/s", "mps": " msg/s"}
_SECONDS: Final = (
    (1e-6, 1e-9, "ns"),
    (1e-3, 1e-6, "µs"),
    (1.0, 1e-3, "ms"),
    (60.0, 1.0, "s"),
    (3600.0, 60.0, "mins"),
    (86400.0, 3600.0, "hours"),
    (math.inf, 86400.0, "days"),
)
_THOUSANDS: Final = ("", " K", " Mil", " Bil")
_BYTES: Final = (" B", " KiB", " MiB", " GiB", " TiB")


def text(value: float, unit: str = "short", decimals: int | None = None) -> str:
    """Return a value with its unit, for example `1.5 K` or `250 ms`."""
    if math.isnan(value):
        return "No data"
    if math.isinf(value):
        return "∞"
    match unit:
        case "percentunit":
            written = f"{_number(value * 100, decimals)}%"
        case "s":
            written = _duration(value, decimals)
        case "bytes":
            written = _scaled(value, 1024, _BYTES, decimals)
        case "locale":
            written = f"{value:,.0f}"
        case _:
            written = _scaled(value, 1000, _THOUSANDS, decimals) + _SUFFIXES.get(unit, "")
    return written


def _duration(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0 s"
    _, scale, suffix = next(row for row in _SECONDS if abs(value) < row[0])
    return f"{_number(value / scale, decimals)} {suffix}"


def _scaled(value: float, base: int, suffixes: tuple[str, ...], decimals: int | None) -> str:
    power = 0
    while abs(value) >= base and power < len(suffixes) - 1:
        value, power = value / base, power + 1
    return f"{_number(value, decimals)}{suffixes[power]}"


def _number(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0:
        return "0"
    shown = max(0, 2 - math.floor(math.log10(abs(value))))  # three digits that matter
    written = f"{value:.{min(shown, 3)}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written
