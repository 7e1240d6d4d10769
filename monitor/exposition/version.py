"""The monitor's version."""

from __future__ import annotations

from importlib import metadata
from typing import Final

VERSION: Final = metadata.version("kafka-lag-monitor")
