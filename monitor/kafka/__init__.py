"""Asks the brokers; the only place that knows the Kafka protocol."""
