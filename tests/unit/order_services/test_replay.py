from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from order_services.cli import cli
from order_services.domain.events import Event, EventType, decode, new_id
from order_services.gateway.replaying import ReplayJobs, add_replay_routes
from order_services.operations import replay_publisher
from order_services.operations.replay import Replay, ReplayRunningError, ReplayState
from order_services.service.health import Health
from order_services.web.app import ServiceApp
from tests.support.serving import serving

TOKEN = "a-token-of-sixteen-or-more"


def begun(days: int = 1) -> Replay:
    now = datetime.now(UTC)
    return Replay(new_id(), days, now, ReplayState.PUBLISHING, None, 0, 0, now)


class _Jobs(ReplayJobs):
    """Takes note of what is asked, and begins nothing."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.running: Replay | None = None

    def start(self, days: int) -> Replay:
        if self.running is not None:
            raise ReplayRunningError(self.running)
        self.asked.append(days)
        return begun(days)

    def get(self, replay_id: str) -> Replay | None:
        return self.running if self.running and self.running.replay_id == replay_id else None


@pytest.fixture
def jobs() -> _Jobs:
    return _Jobs()


@pytest.fixture
def client(jobs: _Jobs) -> Iterator[Callable[[str], httpx.Client]]:
    with ExitStack() as served:

        def make(token: str) -> httpx.Client:
            app = ServiceApp("gateway", Health(), registry=CollectorRegistry())
            add_replay_routes(app, token, jobs)
            return served.enter_context(serving(app))

        yield make


def post(client: httpx.Client, body: Any, authorization: str | None = f"Bearer {TOKEN}") -> Any:
    given = () if authorization is None else (authorization.encode("latin-1"),)
    headers = [(b"Authorization", value) for value in given]
    return client.post("/api/orders/replay", json=body, headers=headers)


@pytest.mark.parametrize(
    ("token", "given", "status"),
    [
        (TOKEN, None, HTTPStatus.UNAUTHORIZED),
        (TOKEN, "", HTTPStatus.UNAUTHORIZED),
        (TOKEN, "Basic abc", HTTPStatus.UNAUTHORIZED),
        (TOKEN, "Bearer", HTTPStatus.UNAUTHORIZED),
        (TOKEN, "Bearer " + TOKEN[:-1], HTTPStatus.FORBIDDEN),
        (TOKEN, f"Bearer {TOKEN}x", HTTPStatus.FORBIDDEN),
        (TOKEN, "Bearer \xfc", HTTPStatus.FORBIDDEN),
        ("", "Bearer", HTTPStatus.FORBIDDEN),
        ("", f"Bearer {TOKEN}", HTTPStatus.FORBIDDEN),
    ],
)
def test_only_who_has_the_token_may_replay(
    client: Callable[[str], httpx.Client],
    jobs: _Jobs,
    token: str,
    given: str | None,
    status: HTTPStatus,
) -> None:
    answer = post(client(token), {"days": 1}, given)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert TOKEN not in answer.text
    assert jobs.asked == []


def test_tokens_are_compared_in_constant_time(client: Callable[[str], httpx.Client]) -> None:
    with patch("order_services.web.auth.hmac.compare_digest", return_value=False) as spy:
        assert post(client(TOKEN), {"days": 1}).status_code == HTTPStatus.FORBIDDEN
    spy.assert_called_once()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "days"),
        ({"days": 0}, "days"),
        ({"days": 31}, "days"),
        ({"days": "3"}, "days"),
        ({"days": 1.5}, "days"),
        ({"days": True}, "days"),
        ({"days": 1, "topic": "payments"}, "topic"),
    ],
)
def test_a_bad_request_names_the_field(
    client: Callable[[str], httpx.Client], jobs: _Jobs, body: Any, field: str
) -> None:
    answer = post(client(TOKEN), body)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json()["error"]["field"] == field
    assert jobs.asked == []


def test_a_replay_is_accepted_with_its_address(
    client: Callable[[str], httpx.Client], jobs: _Jobs
) -> None:
    answer = post(client(TOKEN), {"days": 30})
    assert answer.status_code == HTTPStatus.ACCEPTED
    assert answer.json()["state"] == "publishing"
    assert answer.headers["Location"] == f"/api/orders/replay/{answer.json()['replayId']}"
    assert jobs.asked == [30]


def test_a_second_replay_is_refused_while_one_is_under_way(
    client: Callable[[str], httpx.Client], jobs: _Jobs
) -> None:
    jobs.running = begun()
    answer = post(client(TOKEN), {"days": 1})
    assert answer.status_code == HTTPStatus.CONFLICT
    assert jobs.running.replay_id in answer.headers["Location"]
    assert "Retry-After" in answer.headers
    headers = {"Authorization": f"Bearer {TOKEN}"}
    shown = client(TOKEN).get(answer.headers["Location"], headers=headers)
    assert shown.json()["replayId"] == jobs.running.replay_id
    missing = client(TOKEN).get("/api/orders/replay/nothing", headers=headers)
    assert missing.status_code == HTTPStatus.NOT_FOUND


def test_a_copy_is_the_original_marked() -> None:
    original = Event(EventType.ORDER_CREATED, new_id(), {"totalCents": 5}, "gateway", "c")
    replay_id = new_id()
    copy = decode(replay_publisher.copy_of(original, replay_id).encode())
    assert copy.is_replay
    assert copy.event_id == original.event_id
    assert (copy.order_id, copy.timestamp) == (original.order_id, original.timestamp)
    assert copy.payload == {"totalCents": 5, "isReplay": True, "replayId": replay_id}


@given(st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001  # given its zone below
def test_the_border_is_below_all_ids_of_its_moment_and_above_those_before(moment: datetime) -> None:
    at = moment.replace(tzinfo=UTC)
    border = replay_publisher._first_id_at(at)
    with patch(
        "order_services.domain.events.time.time_ns", lambda: int(at.timestamp() * 1000) * 10**6
    ):
        assert border < new_id()
    earlier = at - timedelta(milliseconds=2)
    with patch(
        "order_services.domain.events.time.time_ns", lambda: int(earlier.timestamp() * 1000) * 10**6
    ):
        assert new_id() < border


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--days", "0"],
        ["--days", "31"],
        ["--days", "1", "--rate", "1"],
        ["--days", "1", "--database", "nonsense"],
        ["--days", "1", "--database", "mysql://u:secret@h/n"],
        ["--days", "1", "--database", "postgresql://u:secret@h:port/n"],
    ],
)
def test_a_wrong_command_line_is_refused_without_the_password(options: list[str]) -> None:
    answer = CliRunner().invoke(cli, ["replay", *options])
    assert answer.exit_code == 2
    assert "secret" not in answer.output
