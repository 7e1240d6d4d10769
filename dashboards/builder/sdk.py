"""The one place that imports grafana-foundation-sdk."""

from __future__ import annotations

import json
import warnings
from typing import Any, Final

with warnings.catch_warnings():
    # at import it recommends the next dashboard API, which Grafana 11 cannot load
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        bargauge,
        common,
        dashboard,
        heatmap,
        prometheus,
        stat,
        statetimeline,
        table,
        timeseries,
    )
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as dashboard_models

__all__ = [
    "DATASOURCE",
    "as_json",
    "bargauge",
    "common",
    "common_models",
    "dashboard",
    "dashboard_models",
    "heatmap",
    "prometheus",
    "stat",
    "statetimeline",
    "table",
    "timeseries",
]

DATASOURCE: Final = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def as_json(model: object) -> Any:
    """Return a model of the SDK as plain data."""
    return json.loads(JSONEncoder().encode(model))
