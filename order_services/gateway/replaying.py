"""Replays by HTTP: POST /api/orders/replay {"days": N}, and GET of what became of one."""

from __future__ import annotations

import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from order_services.domain.events import is_uuid
from order_services.operations import replay
from order_services.operations.replay_publisher import Publisher
from order_services.process import instrumentation
from order_services.web.answers import ApiError, Call, json_response
from order_services.web.auth import guarded

if TYPE_CHECKING:
    from starlette.responses import Response

    from order_services.operations.replay import Replay
    from order_services.process.settings import ServiceSettings
    from order_services.storage.database import Database
    from order_services.web.app import ServiceApp

RETRY_AFTER_SECONDS: Final = 10

_log = structlog.get_logger(__name__)


class ReplayJobs:
    """Begins replays and publishes each on a thread of its own.

    A gateway that ends half way falls silent: the replay counts as failed, and the next one may begin.
    """

    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def ask_to_stop(self) -> None:
        """Publish no more; a replay that is not published to its end has failed."""
        self._stopping.set()

    def close(self, timeout_seconds: float) -> bool:
        """Wait for the end of what is under way; false when that took too long."""
        self.ask_to_stop()
        until = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def start(self, days: int) -> Replay:
        """Begin a replay; raises `ReplayRunningError` while another one is under way."""
        try:
            with self._database.begin() as connection:
                begun = replay.begin(connection, days)
        except replay.ReplayRunningError:
            instrumentation.REPLAYS_REQUESTED.labels("refused").inc()
            raise
        instrumentation.REPLAYS_REQUESTED.labels("begun").inc()
        publisher = Publisher(self._settings, self._database, stopping=self._stopping)
        thread = threading.Thread(
            target=self._publish, args=(publisher, begun), name="replay", daemon=True
        )
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()
        return begun

    def get(self, replay_id: str) -> Replay | None:
        """Return a replay, or None."""
        with self._database.begin() as connection:
            return replay.get(connection, replay_id)

    def _publish(self, publisher: Publisher, begun: Replay) -> None:
        try:
            publisher.publish(begun)
            publisher.wait_until_read(begun)
        except (replay.ReplayError, SQLAlchemyError) as error:
            # the driver's text names host and user
            reason = str(error) if isinstance(error, replay.ReplayError) else type(error).__name__
            _log.warning("replay given up", replay_id=begun.replay_id, reason=reason)


def add_replay_routes(app: ServiceApp, token: str, jobs: ReplayJobs) -> None:
    """Add the routes; each answers 403 to everybody where `token` (ADMIN_TOKEN) is empty."""

    def start(call: Call) -> Response:
        days = parse_days(call.json())
        try:
            begun = jobs.start(days)
        except replay.ReplayRunningError as error:
            raise ApiError(
                HTTPStatus.CONFLICT,
                f"one replay at a time: {error}",
                headers={
                    "Retry-After": str(RETRY_AFTER_SECONDS),
                    "Location": _address(error.replay),
                },
            ) from None
        return json_response(_body(begun), HTTPStatus.ACCEPTED, {"Location": _address(begun)})

    def one(call: Call) -> Response:
        replay_id = call.path["replay_id"]
        found = jobs.get(replay_id) if is_uuid(replay_id) else None
        if found is None:
            message = f"there is no replay {replay_id[:64]}"
            raise ApiError(HTTPStatus.NOT_FOUND, message, field="replayId")
        return json_response(_body(found))

    app.add("POST", "/api/orders/replay", guarded(token, start))
    app.add("GET", "/api/orders/replay/{replay_id}", guarded(token, one))


def parse_days(body: Any) -> int:
    """Return the days of a request; raises `ApiError` 400 that names the field."""
    if not isinstance(body, dict):
        raise ApiError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object", field="body")
    # above all no topic: where a replay goes is not for a client to say
    for name in body:
        if name != "days":
            message = f"{name[:64]} is not known; there is days"
            raise ApiError(HTTPStatus.BAD_REQUEST, message, field=name[:64])
    days = body.get("days")
    if type(days) is not int or not replay.MIN_DAYS <= days <= replay.MAX_DAYS:
        message = f"days must be an integer from {replay.MIN_DAYS} to {replay.MAX_DAYS}"
        raise ApiError(HTTPStatus.BAD_REQUEST, message, field="days")
    return days


def _address(found: Replay) -> str:
    return f"/api/orders/replay/{found.replay_id}"


def _body(found: Replay) -> dict[str, Any]:
    return {
        "replayId": found.replay_id,
        "days": found.days,
        "since": found.since,
        "state": found.state,
        "reason": found.reason,
        "orders": found.orders,
        "events": found.events,
        "createdAt": found.created_at,
    }
