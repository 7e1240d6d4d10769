"""Watch the consumer groups of a Kafka cluster: how far behind, why, and what to do."""
