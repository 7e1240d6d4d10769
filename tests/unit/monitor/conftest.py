"""Import kafka-python once without its deprecation warnings, which pytest turns into errors."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # importlib.resources.read_text, its own
    import monitor.kafka.wire  # noqa: F401
