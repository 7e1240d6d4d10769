"""Asks PgBouncer's admin console; a user in `stats_users` is enough.

Versions differ in columns: each is looked up by name, and what a version lacks is None.
https://www.pgbouncer.org/usage.html#admin-console
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Final

from monitor.pools.model import BouncerClients, BouncerDatabase, BouncerPool, PgBouncer
from monitor.pools.session import Row, Session

_MICROSECONDS: Final = 1_000_000
_TOTAL: Final = "total_"


def read_pgbouncer(session: Session, deadline: float) -> PgBouncer:
    """Ask for configuration, pools, connections and counters until the deadline; raises AskError."""

    def show(what: str) -> list[Row]:
        return session.ask(f"SHOW {what}", deadline)

    config = {str(row["key"]): row for row in show("CONFIG")}

    def setting(name: str) -> int | None:
        return _number(config.get(name, {}), "value")

    return PgBouncer(
        version=" ".join(str(value) for row in show("VERSION") for value in row.values()),
        max_client_conn=setting("max_client_conn"),
        default_pool_size=setting("default_pool_size"),
        max_db_connections=setting("max_db_connections"),
        max_user_connections=setting("max_user_connections"),
        pools=tuple(map(_pool, show("POOLS"))),
        databases=tuple(map(_database, show("DATABASES"))),
        stats={str(row["database"]): _totals(row) for row in show("STATS")},
        clients=_clients(show("CLIENTS")),
        server_pids=frozenset(
            pid for row in show("SERVERS") if (pid := _number(row, "remote_pid"))
        ),
    )


def _pool(row: Row) -> BouncerPool:
    waited = _number(row, "maxwait")
    return BouncerPool(
        database=_text(row, "database"),
        user=_text(row, "user"),
        mode=_text(row, "pool_mode") or None,
        client_active=_number(row, "cl_active"),
        client_active_cancel=_number(row, "cl_active_cancel_req"),
        client_waiting=_number(row, "cl_waiting"),
        # before 1.18 one column held both kinds of cancel requests
        client_waiting_cancel=_number(row, "cl_waiting_cancel_req", "cl_cancel_req"),
        server_active=_number(row, "sv_active"),
        server_active_cancel=_number(row, "sv_active_cancel"),
        server_being_canceled=_number(row, "sv_being_canceled"),
        server_idle=_number(row, "sv_idle"),
        server_used=_number(row, "sv_used"),
        server_testing=_number(row, "sv_tested"),
        server_login=_number(row, "sv_login"),
        maxwait_seconds=None
        if waited is None
        else waited + (_number(row, "maxwait_us") or 0) / _MICROSECONDS,
    )


def _database(row: Row) -> BouncerDatabase:
    return BouncerDatabase(
        name=_text(row, "name"),
        host=_text(row, "host"),
        port=_number(row, "port"),
        database=_text(row, "database"),
        force_user=_text(row, "force_user"),
        pool_mode=_text(row, "pool_mode"),
        pool_size=_number(row, "pool_size"),
        # 1.24 renamed it
        reserve_pool=_number(row, "reserve_pool", "reserve_pool_size"),
        max_connections=_number(row, "max_connections"),
        current_connections=_number(row, "current_connections"),
        paused=_number(row, "paused"),
        disabled=_number(row, "disabled"),
    )


def _totals(row: Row) -> dict[str, float]:
    """Keep the counters: the averages beside them are over a period that we don't choose."""
    return {
        name: float(total)
        for name in row
        if name.startswith(_TOTAL) and (total := _number(row, name)) is not None
    }


def _clients(rows: list[Row]) -> tuple[BouncerClients, ...] | None:
    if any("application_name" not in row for row in rows):
        return None
    counts = Counter((_text(row, "database"), _text(row, "application_name")) for row in rows)
    return tuple(BouncerClients(*key, connections) for key, connections in sorted(counts.items()))


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


def _number(row: Row, *names: str) -> int | None:
    """Return the first of these columns that this version has; numbers may come as text."""
    for name in names:
        if row.get(name) is not None:
            with suppress(ValueError, TypeError):
                return int(row[name])
    return None
