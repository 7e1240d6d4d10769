"""What all services share: consume loop, outbox, inbox, dead letters, database, health, settings."""
