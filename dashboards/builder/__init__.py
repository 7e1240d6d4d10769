"""Build dashboard JSON (schemaVersion 42) from grafana-dashboard-builder's YAML."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # on Python 3.11 it imports `imp`, which warns; imported here, it is silent everywhere else
    warnings.simplefilter("ignore", DeprecationWarning)
    import grafana_dashboards.common  # type: ignore[import-untyped]  # noqa: F401  # ships no types
