"""What the standard variables of OpenTelemetry say about pushing, as far as its exporter does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from monitor.settings import SettingsError

EXPORTER: Final = "OTEL_METRICS_EXPORTER"
INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN: Final = "http/protobuf"
DEFAULT_INTERVAL_MS: Final = 60_000


def push_interval(environment: Mapping[str, str]) -> float | None:
    """Return the seconds between pushes, None where nothing is to be pushed.

    It is to be asked for: `OTEL_METRICS_EXPORTER=otlp`. A platform that sets an endpoint for all its
    programs must not have this one push. Raises SettingsError.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    exporters = {name.strip() for name in environment.get(EXPORTER, "").split(",")}
    if "otlp" not in exporters:
        return None
    for name in PROTOCOLS:
        if environment.get(name, SPOKEN) != SPOKEN:
            raise SettingsError(f"{name}: only {SPOKEN} is spoken")
    text = environment.get(INTERVAL, str(DEFAULT_INTERVAL_MS))
    if not text.isdecimal() or not 1_000 <= int(text) <= 86_400_000:
        raise SettingsError(f"{INTERVAL}: milliseconds, 1000 to 86400000, and not {text!r}")
    return int(text) / 1000
