from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus

import httpx
import pytest
from click.testing import CliRunner, Result
from prometheus_client import REGISTRY
from pydantic import SecretStr

from order_services.cli import cli
from order_services.domain.topics import ANALYTICS_GROUP, ConsumerGroup
from order_services.local.ports import free_port
from tests.integration.order_services.conftest import Lab
from tests.integration.order_services.test_analytics_counting import (
    TODAY,
    analytics,
    begin,
    count,
    counted,
    expected,
    fetch,
    replaying_group,
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


def real_group(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> ConsumerGroup:
    """Return the group that the command asks about, with topics of this test."""
    group = replaying_group(lab, monkeypatch)
    return replace(group, group_id=ANALYTICS_GROUP.group_id)


def test_a_replay_by_command_adds_what_analytics_lacks(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = real_group(lab, monkeypatch)
    past = [event for _ in range(20) for event in story(TODAY)]
    write_history(lab, past)
    count(lab, past[:30])
    with analytics(lab, group):
        answer = run(lab, "--days", "1")
    assert answer.exit_code == 0, answer.output
    assert "20 orders, 80 events published" in answer.output
    assert answer.output.endswith("analytics has counted what it lacked\n")
    assert counted(lab) == expected(lab)


def test_a_replay_that_nobody_reads_says_so_and_is_not_lost(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = real_group(lab, monkeypatch)
    write_history(lab, story(TODAY))
    answer = run(lab, "--days", "1", "--wait", "0")
    assert answer.exit_code == 1
    assert "analytics is not done yet; it goes on when it runs" in answer.output
    with analytics(lab, group):
        wait_for("the counts", lambda: counted(lab) == expected(lab))


def test_a_replay_beside_another_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real_group(lab, monkeypatch)
    first = begin(lab)
    refused = run(lab, "--days", "1")
    assert refused.exit_code == 2
    assert f"replay {first.replay_id} is under way: publishing" in refused.output
    assert fetch(lab, first).state == "publishing"


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
    group = real_group(lab, monkeypatch)
    write_history(lab, [event for _ in range(3) for event in story(TODAY)])
    headers = {"Authorization": f"Bearer {TOKEN}"}
    samples = {
        "replays_requested_total": {"answer": "begun"},
        "replay_events_published_total": {},
        "replay_seconds_count": {"stage": "count"},
    }

    def counted_so_far() -> list[float]:
        return [REGISTRY.get_sample_value(*each) or 0 for each in samples.items()]

    def running_stages() -> float:
        stages = ("publish", "count")
        each = [REGISTRY.get_sample_value("replays_running", {"stage": stage}) for stage in stages]
        return sum(value or 0 for value in each)

    before = counted_so_far()
    with running(lab, lab.group()) as url, analytics(lab, group):
        address = f"{url}/api/orders/replay"
        assert httpx.post(address, json={"days": 1}).status_code == HTTPStatus.UNAUTHORIZED
        accepted = httpx.post(address, json={"days": 1}, headers=headers)
        assert accepted.status_code == HTTPStatus.ACCEPTED
        at = url + accepted.headers["Location"]

        def state() -> str:
            return str(httpx.get(at, headers=headers).json()["state"])

        wait_for("the counts", lambda: state() == "done")
        body = json.loads(httpx.get(at, headers=headers).text)
        assert (body["orders"], body["events"]) == (3, 12)
        wait_for("both stages to end", lambda: running_stages() == 0)
    gained = [after - each for after, each in zip(counted_so_far(), before, strict=True)]
    assert gained == [1, 12, 1]
    assert counted(lab) == expected(lab)
