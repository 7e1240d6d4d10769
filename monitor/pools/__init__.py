"""Database connections: PostgreSQL, PgBouncer and the pools of services, watched and judged."""
