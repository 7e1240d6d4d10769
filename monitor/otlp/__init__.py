"""Pushes figures to an OpenTelemetry collector: an extra, `pip install 'kafka-lag-monitor[otlp]'`."""
