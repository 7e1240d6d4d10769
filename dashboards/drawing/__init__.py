"""Draw dashboards as Grafana would show them, where no Grafana runs: for the README."""
