"""A real PgBouncer in transaction mode, listening on the loopback interface."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import psycopg2

from order_services.local.ports import LOOPBACK, free_port
from order_services.local.process import ManagedProcess, StartError

START_TIMEOUT_S = 10.0
CONSOLE = "pgbouncer"
INSTALL_HINT: Final = "pgbouncer is not installed (Debian, Ubuntu: apt install pgbouncer)"
# PgBouncer refuses to run as root; the first of these that a machine has will do
_ORDINARY_USERS: Final = ("pgbouncer", "postgres", "nobody")


def find_pgbouncer() -> str | None:
    """Return the path of the machine's pgbouncer; None when it is not installed."""
    # distributions put it where an ordinary user's PATH does not look
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"))
    return shutil.which("pgbouncer", path=path)


class EmbeddedPgBouncer:
    """One PgBouncer in front of one PostgreSQL server, for every database there.

    Clients log in as `user` with `password`, who may also use the admin console. `upstream_user`
    and `upstream_password` are what PgBouncer logs in with. `overrides` are lines of the
    [pgbouncer] section.
    """

    user = "postgres"
    password = "postgres"  # reachable on the loopback interface only, as PostgreSQL is
    host = LOOPBACK

    def __init__(
        self,
        data_dir: Path,
        upstream_port: int,
        port: int = 0,
        *,
        upstream_host: str = LOOPBACK,
        upstream_user: str = "postgres",
        upstream_password: str = "",
        max_client_conn: int = 1000,
        default_pool_size: int = 20,
        overrides: Mapping[str, str] | None = None,
        log_file: Path | None = None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or free_port()
        login = f"user={upstream_user}"
        if upstream_password:
            login += f" password={upstream_password}"
        self._upstream = f"host={upstream_host} port={upstream_port} {login}"
        self._settings = {
            "listen_addr": self.host,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "md5",
            "admin_users": self.user,
            "pool_mode": "transaction",
            "max_client_conn": str(max_client_conn),
            "default_pool_size": str(default_pool_size),
            # common drivers send it at the start; PgBouncer would refuse the connection
            "ignore_startup_parameters": "extra_float_digits",
            **(overrides or {}),
        }
        self.log_file = log_file or self.data_dir / "pgbouncer.log"
        self.process: ManagedProcess | None = None
        self._files: Path | None = None

    def start(
        self,
        progress: Callable[[str], None] = lambda _: None,
        spawned: Callable[[ManagedProcess], None] = lambda _: None,
    ) -> None:
        """Write its files, start, and wait until the admin console answers.

        `spawned` gets the process before it is ready. Raises StartError with the end of its log, or
        with what to install.
        """
        program = find_pgbouncer()
        if program is None:
            raise StartError(INSTALL_HINT)
        user = _ordinary_user()
        ini = self._write_files(user)
        progress(f"PgBouncer: starting on {self.host}:{self.port}")
        self.process = ManagedProcess(
            name="pgbouncer",
            command=[program, str(ini)],
            log_file=self.log_file,
            user=user,
            working_directory=ini.parent,
            environment={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        )
        self.process.start()
        spawned(self.process)
        self._wait_until_ready(self.process)

    def connect(self, database: str) -> psycopg2.extensions.connection:
        """Open a connection in autocommit, as the console needs it."""
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=self.user, password=self.password,
            dbname=database, connect_timeout=5,
        )  # fmt: skip
        connection.autocommit = True
        return connection

    def url(self, database: str = CONSOLE) -> str:
        """Return a URL of a database behind it, or of its admin console."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered."""
        self._started().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._started().resume()

    def kill(self) -> None:
        """End it as a crash would."""
        self._started().kill()
        self._remove_files()

    def stop(self) -> None:
        """Close every connection and end."""
        if self.process is not None:
            self.process.stop(timeout_s=10)
        self._remove_files()

    def _write_files(self, user: str | None) -> Path:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        folder = self.data_dir
        if user is not None:
            # it can't pass through folders of ours that are closed to others
            folder = self._files = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
            shutil.chown(folder, user)
        users = folder / "userlist.txt"
        users.write_text(f'"{self.user}" "{self.password}"\n')
        ini = folder / "pgbouncer.ini"
        settings = {"auth_file": str(users), **self._settings}
        lines = [f"{name} = {value}" for name, value in settings.items()]
        ini.write_text(
            "\n".join(["[databases]", f"* = {self._upstream}", "[pgbouncer]", *lines, ""])
        )
        for file in (users, ini):
            file.chmod(0o600)
            if user is not None:
                shutil.chown(file, user)
        return ini

    def _remove_files(self) -> None:
        if self._files is not None:
            shutil.rmtree(self._files, ignore_errors=True)
            self._files = None

    def _wait_until_ready(self, process: ManagedProcess) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.running:
            try:
                self.connect(CONSOLE).close()
            except psycopg2.OperationalError:
                time.sleep(0.05)
            else:
                return
        ended = process.exit_code
        process.kill()
        self._remove_files()
        what = "did not answer" if ended is None else f"ended with exit code {ended}"
        raise StartError(
            f"PgBouncer {what} on {self.host}:{self.port}; "
            f"the end of its log ({self.log_file}):\n{process.log_tail()}"
        )

    def _started(self) -> ManagedProcess:
        if self.process is None:
            raise RuntimeError("PgBouncer was not started")
        return self.process


def _ordinary_user() -> str | None:
    """Return whom to run as when we are root, None when we are not."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _ORDINARY_USERS:
        if name in known:
            return name
    raise StartError(f"PgBouncer needs one of the users {', '.join(_ORDINARY_USERS)}")
