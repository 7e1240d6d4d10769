"""Writes what the manifests and the chart have from elsewhere in the repository: `make kubernetes`.

Alerts and recording rules, dashboards, and PostgreSQL's roles: kustomize and Helm read no file from outside
of their own folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

REPOSITORY: Final = Path(__file__).resolve().parent.parent
RULES: Final = REPOSITORY / "alerts" / "rules"
DASHBOARDS: Final = REPOSITORY / "dashboards" / "generated"
KUSTOMIZE: Final = Path("deploy/kubernetes")
CHART: Final = Path("deploy/helm/kafka-lag-monitor")

# What holds for any Kafka cluster, as in mixin.libsonnet; the rest is about the order system.
_RULES_OF_THE_MONITOR: Final = ("brokers", "consumer-groups", "databases", "monitoring")
_DASHBOARDS_OF_THE_MONITOR: Final = ("consumer-groups", "database-pools", "monitor")
_MADE: Final = "# Made from {} by `make kubernetes`: edit those.\n"


def files() -> dict[Path, str]:
    """Return the text of every file, by its path in the repository."""
    return {
        KUSTOMIZE / "components/monitoring/prometheus-rules.yaml": _prometheus_rule(),
        KUSTOMIZE / "overlays/development/10-roles.sql": (
            REPOSITORY / "deploy/postgres/10-roles.sql"
        ).read_text(),
        CHART / "files/rules.yaml": _MADE.format("alerts/rules")
        + _yaml({"groups": _without_orders(_groups(_RULES_OF_THE_MONITOR))}),
        **{
            CHART / f"files/dashboards/{name}.json": (DASHBOARDS / f"{name}.json").read_text()
            for name in _DASHBOARDS_OF_THE_MONITOR
        },
    }


def _prometheus_rule() -> str:
    names = sorted(path.stem for path in RULES.glob("*.yml"))
    return _MADE.format("alerts/rules") + _yaml(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {
                "name": "order-system",
                "labels": {"app.kubernetes.io/part-of": "order-system"},
            },
            "spec": {"groups": _groups(names)},
        }
    )


def _groups(names: tuple[str, ...] | list[str]) -> list[dict[str, Any]]:
    return [
        group
        for name in names
        for group in yaml.safe_load((RULES / f"{name}.yml").read_text())["groups"]
    ]


def _without_orders(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **group,
            "rules": [
                rule for rule in group["rules"] if not rule.get("alert", "").startswith("Order")
            ],
        }
        for group in groups
    ]


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)


def main() -> None:
    """Write them."""
    for path, text in files().items():
        target = REPOSITORY / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    main()
