"""Asks a PostgreSQL server about its client connections.

A role with pg_monitor is enough. An ordinary role sees how many connections there are, whose they
are and the limits; not their states, transactions and locks.
"""

from __future__ import annotations

import time
from itertools import groupby
from typing import Final

from monitor.pools.model import Activity, Blocked, Blocker, Postgres
from monitor.pools.session import Row, Session

MAX_BLOCKED_SESSIONS: Final = 100
"""pg_blocking_pids holds every lock-table lock: asking it for all in a jam would lengthen the jam."""

_LIMITS: Final = """
SELECT current_setting('server_version') AS version,
       current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int AS superuser_reserved,
       coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved, -- since 16
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all
"""

_DATABASES: Final = """
SELECT datname, CASE WHEN datconnlimit >= 0 THEN datconnlimit END AS connection_limit
FROM pg_database WHERE datallowconn
"""

# backend_type is NULL where we may not look: what has a database is a client there, or a worker.
_ACTIVITY: Final = """
SELECT datname, coalesce(application_name, '') AS application, state,
       array_agg(pid ORDER BY pid) AS pids,
       extract(epoch FROM max(clock_timestamp() - xact_start))::float8 AS longest_transaction,
       extract(epoch FROM max(clock_timestamp() - state_change))::float8 AS longest_state,
       count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting_for_lock
FROM pg_stat_activity
WHERE datname IS NOT NULL AND (backend_type = 'client backend' OR backend_type IS NULL)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""

# through JSON, because servers before 14 have no waitstart
_BLOCKED: Final = f"""
WITH waits AS (
  SELECT pid, min((to_jsonb(l) ->> 'waitstart')::timestamptz) AS since
  FROM pg_locks l WHERE NOT granted GROUP BY pid
), waiting AS (
  SELECT a.pid, a.datname, coalesce(a.application_name, '') AS application,
         coalesce(extract(epoch FROM clock_timestamp() - w.since), 0)::float8 AS seconds
  FROM pg_stat_activity a JOIN waits w USING (pid)
  WHERE a.wait_event_type = 'Lock' AND a.datname IS NOT NULL
  ORDER BY w.since NULLS LAST LIMIT {MAX_BLOCKED_SESSIONS}
)
SELECT waiting.*, blocking.pid AS blocker, b.application_name AS blocker_application,
       b.state AS blocker_state
FROM waiting
LEFT JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking(pid) ON true
LEFT JOIN pg_stat_activity b ON b.pid = blocking.pid
ORDER BY seconds DESC, waiting.pid, blocking.pid
"""


def read_postgres(session: Session, deadline: float) -> Postgres:
    """Ask for limits, activity and blocked sessions until the deadline; raises AskError."""
    limits = _ask(session, _LIMITS, deadline)[0]
    sees_all = bool(limits["sees_all"])
    databases = _ask(session, _DATABASES, deadline)
    activity = _ask(session, _ACTIVITY, deadline)
    return Postgres(
        version=limits["version"],
        max_connections=limits["max_connections"],
        superuser_reserved_connections=limits["superuser_reserved"],
        reserved_connections=limits["reserved"],
        sees_all=sees_all,
        connection_limits={row["datname"]: row["connection_limit"] for row in databases},
        activity=tuple(map(_activity, activity)),
        blocked=_blocked(_ask(session, _BLOCKED, deadline)) if sees_all else None,
    )


def _ask(session: Session, sql: str, deadline: float) -> list[Row]:
    # a question that we no longer wait for must not go on in the server
    limit_ms = max(1, int((deadline - time.monotonic()) * 1000))
    # LOCAL: behind a transaction pooler a plain SET would stay with somebody else's connection
    return session.ask(f"SET LOCAL statement_timeout = {limit_ms}; {sql}", deadline)


def _activity(row: Row) -> Activity:
    state = row["state"]
    return Activity(
        database=row["datname"],
        application=row["application"],
        state=state,
        pids=tuple(row["pids"]),
        longest_transaction_seconds=row["longest_transaction"],
        longest_state_seconds=row["longest_state"],
        waiting_for_lock=None if state is None else row["waiting_for_lock"],
    )


def _blocked(rows: list[Row]) -> tuple[Blocked, ...]:
    sessions = []
    for pid, group in groupby(rows, key=lambda row: int(row["pid"])):
        found = list(group)
        blockers = tuple(
            Blocker(
                pid=row["blocker"],
                application=row["blocker_application"],
                state=row["blocker_state"],
            )
            for row in found
            if row["blocker"] is not None
        )
        first = found[0]
        sessions.append(
            Blocked(pid, first["datname"], first["application"], first["seconds"], blockers)
        )
    return tuple(sessions)
