"""Run the whole system on one machine: broker, database, services, monitor, demo orders."""
