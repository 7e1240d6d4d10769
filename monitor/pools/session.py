"""A connection that is kept between polls and never waits past a deadline.

psycopg2's own timeouts don't bound a poll: `connect_timeout` is at least 2 s for each host, and
`statement_timeout` is kept by the server, which a frozen server does not do. So the connection is
asynchronous, and we wait for its socket ourselves.
"""

from __future__ import annotations

import contextlib
import select
import time
from typing import Any, Final, TypeAlias

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, connection

from monitor.pools.address import Address
from monitor.pools.failures import NO_ANSWER, AskError

APPLICATION_NAME: Final = "kafka-lag-monitor"

Row: TypeAlias = dict[str, Any]


class Session:
    """One connection to a PostgreSQL or a PgBouncer console, opened when it is first used.

    Not for several threads at once.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: connection | None = None

    @property
    def is_open(self) -> bool:
        """Say whether a connection is kept; the server may have closed its end meanwhile."""
        return self._connection is not None

    def ask(self, sql: str, deadline: float) -> list[Row]:
        """Connect if need be and return the rows of the last statement by column name.

        Raises AskError, at the latest when `time.monotonic()` passes the deadline; the connection
        is then closed.
        """
        try:
            if self._connection is None:
                self._connection = self._connect(deadline)
            with self._connection.cursor() as cursor:
                cursor.execute(sql)
                _wait(self._connection, deadline)
                if cursor.description is None:
                    return []
                names = [column.name for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except TimeoutError:
            self.close()
            raise AskError(NO_ANSWER) from None
        except (psycopg2.Error, OSError) as error:
            self.close()
            message = self.address.without_secrets(str(error)) or type(error).__name__
            raise AskError(message) from None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    def _connect(self, deadline: float) -> connection:
        parameters: dict[str, Any] = {**self.address.parameters}
        parameters.setdefault("application_name", APPLICATION_NAME)
        opened: connection = psycopg2.connect(**parameters, async_=1)
        try:
            _wait(opened, deadline)
        except BaseException:
            opened.close()
            raise
        return opened


def _wait(waiting: connection, deadline: float) -> None:
    """Let libpq work until it is done; raise TimeoutError at the deadline."""
    while (state := waiting.poll()) != POLL_OK:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        poller = select.poll()  # select() takes no file descriptor above 1023
        events = {POLL_READ: select.POLLIN, POLL_WRITE: select.POLLOUT}[state]
        poller.register(waiting.fileno(), events)
        if not poller.poll(left * 1000):
            raise TimeoutError
