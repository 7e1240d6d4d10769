from __future__ import annotations

import json

from click.testing import CliRunner, Result
from sqlalchemy import text

from order_services.cli import cli
from order_services.local.ports import free_port
from tests.integration.order_services.conftest import Lab


def run(lab: Lab, *arguments: str, database: str | None = None) -> Result:
    url = database or lab.database.engine.url.render_as_string(hide_password=False)
    return CliRunner().invoke(cli, ["refused", *arguments, "--database", url])


def refuse(lab: Lab, slice_: str, *ids: int) -> None:
    with lab.database.begin() as connection:
        for message_id in ids:
            connection.execute(
                text(
                    "INSERT INTO outbox_refused (id, slice, topic, key, value, headers, reason) "
                    "VALUES (:id, :slice, 'payments', 'key', :value, :headers, :reason)"
                ),
                {
                    "id": message_id,
                    "slice": slice_,
                    "value": b'{"eventId": "e-%d"}' % message_id,
                    "headers": '{"correlation-id": "corr-1"}',
                    "reason": "MSG_SIZE_TOO_LARGE: Broker: Message size too large",
                },
            )


def test_refused_messages_are_counted_and_shown(lab: Lab) -> None:
    assert run(lab, "list").output == "none\n"
    refuse(lab, "payment", 7, 8)
    listed = run(lab, "list")
    assert listed.output.startswith("payment: 2 for payments, MSG_SIZE_TOO_LARGE\n")
    heap = json.loads(run(lab, "list", "--output", "json").output)[0]
    assert (heap["slice"], heap["count"]) == ("payment", 2)
    shown = run(lab, "show", "7").output
    for part in ("Message size too large", "corr-1", '"eventId": "e-7"'):
        assert part in shown
    assert json.loads(run(lab, "show", "8", "--output", "json").output)["key"] == "key"
    missing = run(lab, "show", "9")
    assert (missing.exit_code, missing.output) == (
        2,
        "order-services: there is no refused message 9\n",
    )


def test_retried_messages_are_in_the_outbox_once_in_their_order(lab: Lab) -> None:
    refuse(lab, "payment", 3, 1, 2)
    refuse(lab, "inventory", 4)
    assert run(lab, "retry").exit_code == 2
    assert run(lab, "retry", "--service", "payment", "--limit", "2").output.startswith("2 put back")
    assert run(lab, "retry", "--id", "3").output.startswith("1 put back")
    assert run(lab, "retry", "--id", "3").output.startswith("0 put back")
    assert run(lab, "retry", "--all").output.startswith("1 put back")
    assert lab.number("SELECT count(*) FROM outbox_refused") == 0
    rows = lab.query("SELECT slice, value, headers::json FROM outbox ORDER BY id")
    assert [json.loads(bytes(row[1]))["eventId"] for row in rows] == ["e-1", "e-2", "e-3", "e-4"]
    assert {row[0] for row in rows} == {"payment", "inventory"}
    assert rows[0][2] == {"correlation-id": "corr-1"}


def test_a_database_that_is_away_is_one_line_without_its_address(lab: Lab) -> None:
    away = f"postgresql://somebody:secret@127.0.0.1:{free_port()}/shop"
    answer = run(lab, "list", database=away)
    assert answer.exit_code == 2
    assert answer.output.count("\n") == 1
    assert "secret" not in answer.output
