"""Asks PostgreSQL, PgBouncer and the services' pools how many connections there are."""
