"""Grafana dashboards: YAML sources, what builds them, and what checks and draws the result."""
