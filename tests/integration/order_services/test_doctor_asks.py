"""What the doctor asks of the real broker, PostgreSQL, PgBouncer, and of programs by HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from confluent_kafka import Consumer
from sqlalchemy.engine import make_url

from order_services.domain.topics import Topic
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK, free_port
from order_services.local.postgres import EmbeddedPostgres
from order_services.operations import topic_admin
from order_services.operations.doctor import connections, members, replicas
from order_services.operations.doctor.replicas import Answers, Replica, SilentError
from tests.integration.order_services.conftest import Lab
from tests.support.pgbouncer import EmbeddedPgBouncer
from tests.support.programs import program
from tests.support.waiting import wait_for


def test_members_and_what_they_hold(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> None:
    topic, group_id = unique("topic"), unique("group")
    admin = topic_admin.admin_client(kafka.bootstrap_servers)
    topic_admin.create(admin, [Topic(topic, 2)])
    clients = [
        Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": group_id,
                "client.id": f"payment-service-{number}",
            }
        )
        for number in (1, 2, 3)
    ]
    try:
        for each in clients:
            each.subscribe([topic])

        def settled() -> members.Group | None:
            for each in clients:
                each.poll(0.05)
            try:
                found = members.read_one(admin, group_id)
            except members.GroupsError:
                return None  # the group's coordinator is still being looked for
            return found if found.stable and len(found.members) == 3 else None

        found = wait_for("group of three", settled)
        assert sorted(member.partitions for member in found.members) == [0, 1, 1]
        assert {member.client_id for member in found.members} == {
            f"payment-service-{number}" for number in (1, 2, 3)
        }
        assert group_id in members.read(admin)
    finally:
        for each in clients:
            each.close()
    assert members.read_one(admin, unique("nobody")).members == ()


def test_a_broker_that_is_away_is_an_error_in_words() -> None:
    admin = topic_admin.admin_client(f"{LOOPBACK}:{free_port()}")
    with pytest.raises(members.GroupsError):
        members.read_one(admin, "nobody")


def test_postgresql_tells_what_it_gives_and_what_others_hold(
    lab: Lab, postgres: EmbeddedPostgres
) -> None:
    with lab.database.begin() as connection:
        before = connections.server(connection)
        limit = int(connection.exec_driver_sql("SHOW max_connections").scalar_one())
        assert 0 < before.usable < limit
    strangers = [postgres.connect(lab.settings.db_name) for _ in range(3)]

    def seen() -> bool:
        with lab.database.begin() as connection:
            return connections.server(connection).others >= 3

    try:
        wait_for("the strangers", seen)
    finally:
        for each in strangers:
            each.close()


def test_pgbouncer_tells_its_limits_and_a_wrong_password_no_secret(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    program("pgbouncer", "pgbouncer")
    pooler = EmbeddedPgBouncer(tmp_path, postgres.port, max_client_conn=77, default_pool_size=7)
    pooler.start()
    try:
        found = connections.pooler(make_url(pooler.url()))
        assert found == connections.Pooler(77, 7, "transaction")
        with pytest.raises(connections.PoolerError) as caught:
            connections.pooler(make_url(pooler.url()).set(password="not-this-one"))
        assert "not-this-one" not in str(caught.value)
    finally:
        pooler.stop()


class _Handler(BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_GET(self) -> None:
        status, body = self.pages.get(self.path, (404, b"{}"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def served(**pages: tuple[int, Any]) -> Iterator[Replica]:
    """Serve pages, by their path without the slash; what is no text is sent as JSON."""
    contents = {
        f"/{path}": (status, body.encode() if isinstance(body, str) else json.dumps(body).encode())
        for path, (status, body) in pages.items()
    }
    handler = type("Handler", (_Handler,), {"pages": contents})
    server = ThreadingHTTPServer((LOOPBACK, 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Replica("payment", f"http://{LOOPBACK}:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ALIVE = (200, {"status": "alive", "reasons": []})
READY = (200, {"status": "ready", "reasons": []})
PAGE = (200, "# TYPE db_pool_max_connections gauge\ndb_pool_max_connections 5.0\n")


@pytest.mark.parametrize(
    ("pages", "reasons"),
    [
        ({"health": ALIVE, "ready": READY}, ()),
        ({"health": ALIVE, "ready": (200, {"status": "degraded", "reasons": ["away"]})}, ("away",)),
        ({"health": ALIVE, "ready": (503, {"status": "not ready", "reasons": ["x"]})}, ("x",)),
        ({"health": (503, {"status": "stuck", "reasons": ["hung"]}), "ready": READY}, ("hung",)),
        (
            {"health": (503, {"status": "x", "reasons": []}), "ready": READY},
            ("/health answered 503",),
        ),
    ],
)
def test_a_replica_says_what_ails_it(pages: Any, reasons: tuple[str, ...]) -> None:
    with served(metrics=PAGE, **pages) as replica:
        assert replicas.ask_all([replica]) == [Answers(replica, reasons, 5)]


@pytest.mark.parametrize("nonsense", ["<html>", "[]", '{"status": 1}'])
def test_somebody_else_at_its_port_is_no_replica(nonsense: str) -> None:
    with served(health=(200, nonsense), ready=READY, metrics=PAGE) as replica:
        (found,) = replicas.ask_all([replica])
    assert found.silent == "the answer is not that of a service"


def test_nobody_and_a_page_that_is_none_are_told() -> None:
    (found,) = replicas.ask_all([Replica("payment", f"http://{LOOPBACK}:{free_port()}")])
    assert found.silent is not None
    assert "refused" in found.silent.lower()
    with served(metrics=(401, "who are you?")) as replica, pytest.raises(SilentError, match="401"):
        replicas.samples(f"{replica.url}/metrics")
    with served(metrics=(200, "{not metrics")) as replica, pytest.raises(SilentError):
        replicas.samples(f"{replica.url}/metrics")


def test_a_name_that_stands_for_several_is_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, port: int, *_: object) -> list[Any]:
        addresses = {"payment-service": ["10.0.0.2", "10.0.0.1"], "gateway": ["10.0.0.9"]}
        return [(0, 0, 0, "", (address, port)) for address in addresses[host]]

    monkeypatch.setattr("socket.getaddrinfo", lookup)
    urls = {"gateway": ["http://gateway:4000/"], "payment": ["http://payment-service:4001"]}
    assert replicas.everywhere(urls) == [
        Replica("gateway", "http://gateway:4000"),
        Replica("payment", "http://10.0.0.1:4001"),
        Replica("payment", "http://10.0.0.2:4001"),
    ]
