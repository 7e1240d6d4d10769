from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from order_services.local.ports import free_port
from order_services.process.settings import ServiceSettings
from order_services.storage import database as database_module
from order_services.storage.database import Database, close_idle, is_transient


@pytest.fixture
def pool_of_two(lab_settings: ServiceSettings) -> Iterator[Database]:
    settings = lab_settings.model_copy(update={"db_pool_max": 2, "db_pool_timeout_seconds": 0.2})
    database = Database(settings)
    yield database
    database.close()


def test_waiting_for_a_connection_fails_after_its_time(pool_of_two: Database) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(pool_of_two.begin())
        started = time.monotonic()
        with pytest.raises(PoolTimeoutError) as timed_out:
            stack.enter_context(pool_of_two.begin())
        assert time.monotonic() - started >= 0.2
        assert "pool" in str(pool_of_two.unreachable())
    assert is_transient(timed_out.value)


def test_idle_connections_are_closed_down_to_the_minimum(pool_of_two: Database) -> None:
    with pool_of_two.begin(), pool_of_two.begin():
        pass
    pool = pool_of_two.pool
    assert close_idle(pool, minimum=1, idle_seconds=60) == 0
    assert close_idle(pool, minimum=1, idle_seconds=0) == 1
    assert pool.checkedout() == 0
    assert close_idle(pool, minimum=1, idle_seconds=0) == 0


def test_looking_for_idle_connections_does_not_make_them_look_used(pool_of_two: Database) -> None:
    with pool_of_two.begin(), pool_of_two.begin():
        pass
    closed = 0
    deadline = time.monotonic() + 20
    # each look would begin the second anew if it counted as use
    while not closed and time.monotonic() < deadline:
        closed = close_idle(pool_of_two.pool, minimum=1, idle_seconds=0.5)
    assert closed == 1


def test_a_connection_that_the_server_ended_is_a_transient_error(pool_of_two: Database) -> None:
    with pytest.raises(DBAPIError) as ended, pool_of_two.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert is_transient(ended.value)
    with pool_of_two.begin() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_connection_that_died_while_it_was_idle_is_replaced_before_use(
    pool_of_two: Database, lab_settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_TEST_IDLE_SECONDS", 0.0)
    with pool_of_two.begin() as connection:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    other = Database(lab_settings)
    with other.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": backend})
    other.close()
    with pool_of_two.begin() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != backend


@pytest.mark.parametrize("statement", ["SELECT 1/0", "SELECT 'x'::uuid", "SELECT nothing"])
def test_an_error_of_the_statement_is_not_transient(pool_of_two: Database, statement: str) -> None:
    with pytest.raises(DBAPIError) as failed, pool_of_two.begin() as connection:
        connection.execute(text(statement))
    assert not is_transient(failed.value)


@pytest.mark.parametrize("via_pgbouncer", [True, False])
def test_timeouts_and_name_hold_with_and_without_a_pooler(
    lab_settings: ServiceSettings, *, via_pgbouncer: bool
) -> None:
    changes = {"db_via_pgbouncer": via_pgbouncer, "db_statement_timeout_seconds": 7}
    database = Database(lab_settings.model_copy(update=changes))
    with database.begin() as connection:
        settings = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("statement_timeout", "lock_timeout", "application_name")
        }
    database.close()
    assert settings == {
        "statement_timeout": "7s",
        "lock_timeout": "10s",
        "application_name": "lab",
    }


def test_a_database_that_is_away_is_told_without_its_address(lab_settings: ServiceSettings) -> None:
    port = free_port()
    database = Database(lab_settings.model_copy(update={"db_port": port}))
    reason = str(database.unreachable())
    database.close()
    assert "not reachable" in reason
    assert str(port) not in reason
