"""Kafka messages that the client library does not declare, as JSON in Apache's schema format."""
