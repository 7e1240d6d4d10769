"""A real PgBouncer in transaction mode, listening on the loopback interface."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import psycopg2

from order_services.local.ports import LOOPBACK
from order_services.local.process import ManagedProcess, StartError
from order_services.local.server import EmbeddedServer

CONSOLE = "pgbouncer"
INSTALL_HINT: Final = "pgbouncer is not installed (Debian, Ubuntu: apt install pgbouncer)"
# PgBouncer refuses to run as root; the first of these that a machine has will do
_ORDINARY_USERS: Final = ("pgbouncer", "postgres", "nobody")


def find_pgbouncer() -> str | None:
    """Return the path of the machine's pgbouncer; None when it is not installed."""
    # distributions put it where an ordinary user's PATH does not look
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"))
    return shutil.which("pgbouncer", path=path)


class EmbeddedPgBouncer(EmbeddedServer):
    """One PgBouncer in front of one PostgreSQL server, for every database there.

    Clients log in as `user` with `password`, who may also use the admin console. `upstream_user`
    and `upstream_password` are what PgBouncer logs in with. `overrides` are lines of the
    [pgbouncer] section.
    """

    name = "PgBouncer"
    start_timeout_s = 10.0
    user = "postgres"
    password = "postgres"  # reachable on the loopback interface only, as PostgreSQL is

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
        data_dir = data_dir.resolve()
        super().__init__(data_dir, port, log_file or data_dir / "pgbouncer.log")
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
        self._files: Path | None = None

    def _prepare(self, _progress: Callable[[str], None]) -> ManagedProcess:
        program = find_pgbouncer()
        if program is None:
            raise StartError(INSTALL_HINT)
        user = _ordinary_user()
        ini = self._write_files(user)
        return ManagedProcess(
            name="pgbouncer",
            command=[program, str(ini)],
            log_file=self.log_file,
            user=user,
            working_directory=ini.parent,
            environment={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        )

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

    def kill(self) -> None:
        """End it as a crash would."""
        super().kill()
        self._remove_files()

    def stop(self) -> None:
        """Close every connection and end."""
        super().stop()
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

    def _probe(self) -> Callable[[], bool]:
        def answers() -> bool:
            try:
                self.connect(CONSOLE).close()
            except psycopg2.OperationalError:
                return False
            return True

        return answers

    def _failure(self, what: str, process: ManagedProcess) -> StartError:
        self._remove_files()
        return super()._failure(what, process)


def _ordinary_user() -> str | None:
    """Return whom to run as when we are root, None when we are not."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _ORDINARY_USERS:
        if name in known:
            return name
    raise StartError(f"PgBouncer needs one of the users {', '.join(_ORDINARY_USERS)}")
