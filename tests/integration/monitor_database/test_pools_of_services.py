"""A service's pool is read from its own /metrics, each failing alone; and `monitor pools`."""

import csv
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner, Result
from prometheus_client import generate_latest
from psycopg2.extensions import connection
from sqlalchemy.pool import QueuePool

from monitor.commands.pools import WIDTH, pools
from monitor.configuration import read_configuration
from monitor.pools.collector import GRACE_SECONDS, DatabaseCollector
from monitor.pools.failures import NO_ANSWER, AskError
from monitor.pools.services import ServiceTarget, read_service
from order_services.local.ports import free_port
from order_services.local.postgres import EmbeddedPostgres
from order_services.process.settings import ServiceSettings
from order_services.storage.database import Database as ServiceDatabase
from tests.integration.monitor_database.conftest import ESCAPED, WATCHER_PASSWORD
from tests.support.pgbouncer import EmbeddedPgBouncer

Connect = Callable[[str], connection]
Serve = Callable[..., str]

PAGE = """\
# HELP db_pool_max_connections Connections that the pool may open.
# TYPE db_pool_max_connections gauge
db_pool_max_connections 5.0
db_pool_min_connections 1.0
db_pool_in_use_connections 3.0
db_pool_idle_connections 1.0
db_pool_waiting 2.0
db_pool_wait_seconds_bucket{le="0.001"} 4.0
db_pool_timeouts_total 6.0
other_metric{text="db_pool_max_connections 9"} 1.0
"""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that serves a page at /metrics and a service's name at /health."""
    servers: list[ThreadingHTTPServer] = []

    def start(
        page: str = PAGE,
        *,
        service: str = "payment-service",
        status: int = 200,
        stall: bool = False,
    ) -> str:
        release = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                is_health = self.path == "/health"
                body = json.dumps({"service": service}) if is_health else page
                self.send_response(503 if is_health else status)
                self.end_headers()
                if stall:
                    for _ in range(200):
                        self.wfile.write(b"# a page that never ends\n")
                        if release.wait(0.05):
                            return
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Keep the tests' output clean."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.release = release  # type: ignore[attr-defined]  # ends a stalled page
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.release.set()  # type: ignore[attr-defined]  # see above
        server.shutdown()
        server.server_close()


def test_each_service_is_read_and_fails_alone(serve: Serve) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    settings = read_configuration(
        service_urls=(
            serve(), f"orders={serve()}", serve(status=500), serve("no_pool 1\n"),
            serve("db_pool_max_connections five\n"), serve(stall=True), away,
        ),
        database_timeout=0.5,
    ).databases  # fmt: skip
    collector = DatabaseCollector(settings)
    started = time.monotonic()
    good, named, broken, without, garbled, endless, gone = collector.collect().services
    assert time.monotonic() - started < 0.5 + GRACE_SECONDS + 3  # a busy machine's slack
    collector.close()
    assert good.value is not None
    assert good.value.service == "payment-service"
    assert (good.value.maximum, good.value.in_use) == (5, 3)
    assert (good.value.idle, good.value.waiting, good.value.timeouts) == (1, 2, 6)
    assert named.value is not None
    assert named.value.service == "orders"
    assert broken.error == "answers /metrics with status 500"
    assert without.error == "its metrics have no db_pool_max_connections"
    assert garbled.error == "its metrics can't be read"
    assert endless.error == "no answer within 0.5 s"
    assert "refused" in str(gone.error)


def test_a_page_that_trickles_in_without_end_is_given_up_by_its_reader_itself(serve: Serve) -> None:
    started = time.monotonic()
    with pytest.raises(AskError, match=NO_ANSWER):
        read_service(ServiceTarget.parse(serve(stall=True)), started + 0.3)
    assert time.monotonic() - started < 0.3 + 3  # a busy machine's slack


def test_a_services_real_pool_is_understood(guarded: EmbeddedPostgres, serve: Serve) -> None:
    database = ServiceDatabase(
        ServiceSettings(
            port=0, kafka_client_id="payment-service-1", db_port=guarded.port, db_name="shop"
        )
    )
    assert isinstance(database.pool, QueuePool)
    with database.begin(), database.begin():
        page = generate_latest().decode()
    database.close()
    collector = DatabaseCollector(read_configuration(service_urls=(serve(page),)).databases)
    (reading,) = collector.collect().services
    collector.close()
    assert reading.value is not None, reading.error
    assert reading.value.maximum == 5
    assert (reading.value.in_use, reading.value.waiting) == (2, 0)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(pools, arguments, catch_exceptions=False)


def test_the_table_shows_pools_budgets_and_one_replica_more_in_80_columns(
    watcher_url: str, connect: Connect, serve: Serve,
    start_pgbouncer: Callable[..., EmbeddedPgBouncer],
) -> None:  # fmt: skip
    for replica in (1, 2, 3):
        connect(f"payment-service-{replica}")
    connect("a-service-with-quite-a-long-name-1")
    bouncer = start_pgbouncer()
    behind = bouncer.connect("shop")
    urls = [part for _ in range(3) for part in ("--service-url", serve())]
    result = run(
        "--database-url", watcher_url, "--pgbouncer-url", bouncer.url(), "--pool-max", "20", *urls
    )
    behind.close()
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= WIDTH
    payment = next(line for line in lines if line.startswith("payment-service"))
    assert payment.split()[1:7] == ["3", "5", "15", "3", "9", "6"]
    # 53 less 15, 20 for the long name, 20 for PgBouncer and the monitor's own
    assert "exceeds PostgreSQL by 8" in payment
    assert "PostgreSQL takes 60: 3 for superusers, 4 reserved, 53 for services" in lines
    assert next(line for line in lines if line.startswith("shop/postgres")).split()[1] == "20"
    assert WATCHER_PASSWORD not in result.output
    assert ESCAPED not in result.output


def test_json_and_csv_have_the_same_figures(watcher_url: str, connect: Connect) -> None:
    connect("payment-service-1")
    found = json.loads(
        run("--database-url", watcher_url, "--output", "json", "--pool-max", "5").output
    )
    (service,) = found["services"]
    assert (service["replicas"], service["total"], service["in_use"]) == (1, 5, None)
    assert service["one_more"]["text"] == f"fits, {53 - 5 - 1 - 5} left"
    assert found["budgets"][0]["left"] == 53 - 5 - 1
    text = run("--database-url", watcher_url, "--output", "csv", "--pool-max", "5").output
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["service"], row["total"], row["in_use"]) == ("payment-service", "5", "")
    assert row["one_more"] == "fits"


def test_the_databases_may_be_named_in_the_environment(
    watcher_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect("payment-service-1")
    monkeypatch.setenv("MONITOR_DATABASE_URL", watcher_url)
    result = run()
    assert result.exit_code == 0
    assert "payment-service" in result.output


def test_a_service_that_is_away_is_named_below_the_table(
    watcher_url: str, connect: Connect
) -> None:
    connect("payment-service-1")
    away = f"http://127.0.0.1:{free_port()}"
    result = run("--database-url", watcher_url, "--service-url", away)
    assert result.exit_code == 0
    assert f"not read: {away}/metrics: can't be read: Connection refused" in result.output


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("postgresql://u:hidden-word@127.0.0.1:{port}/shop", "refused"),
        ("hidden-word", "say postgresql://"),
        (None, "no database is named"),
    ],
)
def test_a_database_that_cannot_be_had_is_one_line_and_exit_code_2(
    url: str | None, cause: str
) -> None:
    arguments = [] if url is None else ["--database-url", url.format(port=free_port())]
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("monitor pools: ")
    assert cause in line
    assert "hidden-word" not in line


def test_pgbouncer_alone_is_still_worth_a_table(
    start_pgbouncer: Callable[..., EmbeddedPgBouncer],
) -> None:
    bouncer = start_pgbouncer()
    away = f"postgresql://u:hidden-word@127.0.0.1:{free_port()}/shop"
    result = run("--database-url", away, "--pgbouncer-url", bouncer.url())
    assert result.exit_code == 0
    assert "PgBouncer" in result.output
    assert "not read: 127.0.0.1:" in result.output
    assert "hidden-word" not in result.output
