"""Kafka: the one consume loop and the relay from the outbox."""
