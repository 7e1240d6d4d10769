from pathlib import Path

import psycopg2
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import is_free
from order_services.local.postgres import EmbeddedPostgres


@pytest.mark.heavy
def test_a_killed_broker_comes_back_with_its_topics(tmp_path: Path) -> None:
    broker = EmbeddedKafka(tmp_path / "kafka")
    broker.start()
    try:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        for future in admin.create_topics([NewTopic("kept", 2, 1)]).values():
            future.result(10)
        broker.kill()
        broker.start()
        topics = AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(
            timeout=10
        )
        assert len(topics.topics["kept"].partitions) == 2
    finally:
        broker.stop()
    assert is_free(broker.port)


def test_a_killed_postgres_comes_back_with_what_was_committed(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    try:
        server.create_database("shop")
        connection = server.connect("shop")
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 7 AS number")
        server.kill()
        with pytest.raises(psycopg2.Error):
            connection.cursor().execute("SELECT 1")
        server.start()
        again = server.connect("shop")
        with again.cursor() as cursor:
            cursor.execute("SELECT number FROM kept")
            assert cursor.fetchone() == (7,)
        again.close()
    finally:
        server.stop()
    assert is_free(server.port)


def test_a_paused_postgres_answers_nobody_until_it_is_resumed(postgres: EmbeddedPostgres) -> None:
    connection = postgres.connect("postgres")
    postgres.pause()
    try:
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(
                host=postgres.host, port=postgres.port, user=postgres.user, connect_timeout=2
            )
    finally:
        postgres.resume()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()
