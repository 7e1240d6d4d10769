"""One real broker and one real database for all tests; names that no two tests share."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from order_services.local import ports
from order_services.local.kafka import EmbeddedKafka
from order_services.local.postgres import EmbeddedPostgres

WHOLE_SYSTEMS = ("tests/crash/", "tests/e2e/", "tests/kubernetes/")

# a busy machine must not fail a test of what is true, not of how fast it is
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_numbers = itertools.count(1)
_own_basetemp: Path | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give each run a temporary directory of its own.

    pytest's shared one is closed to other users again whenever another run starts, and PostgreSQL,
    which refuses to run as root, would lose its data directory in the middle.
    """
    _draw_ports_of_our_own()
    global _own_basetemp  # noqa: PLW0603  # pytest offers no state between these two hooks
    if config.option.basetemp is None:
        _own_basetemp = Path(tempfile.mkdtemp(prefix="pytest-run-"))
        config.option.basetemp = str(_own_basetemp)
    # a monitor that a test starts keeps no history, nor ever one in the home of who runs the tests
    os.environ["XDG_STATE_HOME"] = str(Path(config.option.basetemp).absolute() / "state")
    os.environ.pop("STATE_DIRECTORY", None)
    os.environ["MONITOR_HISTORY_URL"] = "off"


def _draw_ports_of_our_own() -> None:
    """Give each worker a share of the ports: what one has drawn and not bound yet looks free to another."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    everybodys = ports.range_of_ports()
    size = len(everybodys) // workers
    share = everybodys[number * size : (number + 1) * size]
    ports.range_of_ports = lambda: share


class _Groups(LoadScopeScheduling):  # type: ignore[misc]  # untyped base
    """What workers run as one: a file, or all files that start a whole system in each test.

    Two whole systems at a time are more than two cores carry: their time limits would be missed.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "whole systems" if file.startswith(WHOLE_SYSTEMS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Groups:
    """Group tests in this way; pytest-xdist's own marks for it do nothing under pytest 9.2."""
    return _Groups(config, log)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Keep the directory, with the servers' logs, only where something failed."""
    if _own_basetemp is not None and exitstatus == pytest.ExitCode.OK:
        atexit.register(shutil.rmtree, _own_basetemp, ignore_errors=True)


@dataclass(frozen=True)
class Database:
    """An empty database of one test."""

    host: str
    port: int
    name: str
    user: str
    password: str

    @property
    def url(self) -> str:
        return (
            f"postgresql+psycopg2://{self.user}:{self.password}@{self.host}:{self.port}/{self.name}"
        )


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    broker = EmbeddedKafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    postgres.create_database(name)
    yield Database(postgres.host, postgres.port, name, postgres.user, postgres.password)
    postgres.drop_database(name)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Return a function that makes a topic or group name that no other test uses."""
    return lambda stem: f"{stem}-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parent.parent
