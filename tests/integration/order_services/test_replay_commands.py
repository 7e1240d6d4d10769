from __future__ import annotations

import json
from http import HTTPStatus

import httpx
import pytest
from click.testing import CliRunner, Result
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import text

from order_services import replay, topics
from order_services.analytics.rebuild import Rebuild
from order_services.cli import cli
from order_services.local.ports import free_port
from tests.integration.order_services.conftest import Lab
from tests.integration.order_services.test_analytics_rebuild import (
    TODAY,
    analytics,
    begin,
    counted,
    expected,
    story,
    write_history,
)
from tests.integration.order_services.test_gateway_service import running
from tests.support.waiting import wait_for

TOKEN = "a-token-of-sixteen-or-more"


def run(lab: Lab, *options: str, database: str | None = None) -> Result:
    url = database or lab.database.engine.url.render_as_string(hide_password=False)
    brokers = lab.kafka.bootstrap_servers
    command = ["replay", "--kafka", brokers, "--database", url, *options]
    return CliRunner().invoke(cli, command)


def test_a_replay_by_command_rebuilds_the_counts(lab: Lab) -> None:
    group = lab.group()
    topics.create(topics.admin_client(lab.kafka.bootstrap_servers))
    write_history(lab, [event for _ in range(20) for event in story(TODAY)])
    with analytics(lab, group):
        answer = run(lab, "--days", "1")
    assert answer.exit_code == 0, answer.output
    assert "20 orders, 80 events published" in answer.output
    assert answer.output.endswith("the counts are rebuilt\n")
    assert counted(lab) == expected(lab)


def test_a_replay_that_nobody_rebuilds_from_says_so_and_is_not_lost(lab: Lab) -> None:
    group = lab.group()
    topics.create(topics.admin_client(lab.kafka.bootstrap_servers))
    write_history(lab, story(TODAY))
    answer = run(lab, "--days", "1", "--wait", "0")
    assert answer.exit_code == 1
    assert "analytics is not done yet; it goes on when it runs" in answer.output
    refused = run(lab, "--days", "1")
    assert refused.exit_code == 2
    assert "is under way: published" in refused.output
    rebuild = Rebuild(lab.kafka_settings, lab.database, group.group_id)
    wait_for("the counts", lambda: rebuild.step() and counted(lab))
    assert counted(lab) == expected(lab)


def test_a_database_that_is_away_is_one_line_without_its_address(lab: Lab) -> None:
    away = f"postgresql://somebody:secret@127.0.0.1:{free_port()}/shop"
    answer = run(lab, "--days", "1", database=away)
    assert answer.exit_code == 2
    assert answer.output.count("\n") == 1
    assert "secret" not in answer.output


def test_a_replay_by_http_runs_to_its_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lab, "settings", lab.settings.model_copy(update={"admin_token": SecretStr(TOKEN)})
    )
    topics.create(topics.admin_client(lab.kafka.bootstrap_servers))
    write_history(lab, [event for _ in range(3) for event in story(TODAY)])
    headers = {"Authorization": f"Bearer {TOKEN}"}
    samples = {
        "replays_requested_total": {"answer": "begun"},
        "replay_events_published_total": {},
        "replay_seconds_count": {"stage": "rebuild"},
        "analytics_rebuilds_total": {"result": "done"},
        "analytics_rebuild_swap_seconds_count": {},
    }

    def counted_so_far() -> list[float]:
        return [REGISTRY.get_sample_value(*each) or 0 for each in samples.items()]

    def running_stages() -> float:
        stages = ("publish", "rebuild")
        each = [REGISTRY.get_sample_value("replays_running", {"stage": stage}) for stage in stages]
        return sum(value or 0 for value in each)

    before = counted_so_far()
    with running(lab, lab.group()) as url, analytics(lab, lab.group()):
        address = f"{url}/api/orders/replay"
        assert httpx.post(address, json={"days": 1}).status_code == HTTPStatus.UNAUTHORIZED
        accepted = httpx.post(address, json={"days": 1}, headers=headers)
        assert accepted.status_code == HTTPStatus.ACCEPTED
        at = url + accepted.headers["Location"]

        def state() -> str:
            return str(httpx.get(at, headers=headers).json()["state"])

        wait_for("the rebuild", lambda: state() == "done")
        body = json.loads(httpx.get(at, headers=headers).text)
        assert (body["orders"], body["events"], body["counted"]) == (3, 12, 12)
        wait_for("both stages to end", lambda: running_stages() == 0)
    gained = [after - each for after, each in zip(counted_so_far(), before, strict=True)]
    assert gained == [1, 12, 1, 1, 1]
    assert counted(lab) == expected(lab)


def test_of_two_replays_at_once_one_begins(lab: Lab) -> None:
    first = begin(lab)
    with lab.database.begin() as connection, pytest.raises(replay.ReplayRunningError):
        replay.begin(connection, 1, "another")
    with lab.database.begin() as connection:
        connection.execute(text("UPDATE replays SET lease_until = now() - interval '1 s'"))
    assert begin(lab).replay_id != first.replay_id
