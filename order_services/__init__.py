"""An order system on Kafka and PostgreSQL that never loses an accepted order."""
