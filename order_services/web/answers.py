"""What a view is asked and what it answers: requests that are whole, JSON, one shape for errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import Scope

from order_services.domain.events import is_traceparent, new_id, new_traceparent

RETRY_AFTER_SECONDS: Final = 2

# with its label the id must fit into an exemplar, which OpenMetrics limits to 128 characters
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:\-]{1,64}\Z")

_log = structlog.get_logger(__name__)


class ApiError(Exception):
    """A refusal with the status and the JSON body that the client gets."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the one shape that all errors have."""
        content = {"message": self.message}
        if self.field is not None:
            content["field"] = self.field
        return {"error": content}

    def response(self) -> Response:
        """Return what the client gets."""
        return json_response(self.body(), self.status, self.headers)


@dataclass(slots=True)
class Call:
    """A request whose body has come; `path` has the variable parts of its address."""

    scope: Scope
    path: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    correlation_id: str = field(init=False)
    _headers: dict[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        headers = self._headers = {}
        for name, value in self.scope["headers"]:
            headers[name] = b"%b, %b" % (headers[name], value) if name in headers else value
        self.correlation_id = correlation_id_of(self.header("x-correlation-id") or "")

    def header(self, name: str) -> str | None:
        """Return a header, joined by commas where it came more than once (RFC 9110, 5.3).

        `name` is in lower case.
        """
        value = self._headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    @property
    def traceparent(self) -> str:
        """The trace (W3C Trace Context) that this request belongs to, a new one if it names none."""
        given = self.header("traceparent") or ""
        return given if is_traceparent(given) else new_traceparent()

    @property
    def query(self) -> QueryParams:
        """What follows the question mark."""
        return QueryParams(self.scope["query_string"])

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        """Read a bounded integer from the query string; raises `ApiError` 400 that names it."""
        text = self.query.get(name)
        if text is None:
            return default
        # int() also takes "1_0", " 1" and other alphabets' digits
        if not re.fullmatch(r"-?[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                f"{name} must be an integer from {low} to {high}",
                field=name,
            )
        return int(text)

    def ask_for_json(self) -> None:
        """Raise `ApiError` 415 unless the request says that its body is JSON.

        It keeps other people's pages out: what a page may send to any address without asking first
        (CORS) has another content type, or none.
        """
        content_type = self.header("content-type") or ""
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise ApiError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"
            )

    def json(self) -> Any:
        """Parse the body; raises `ApiError` 415, or 400 for what is not JSON."""
        self.ask_for_json()
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            message = f"the body is not valid JSON: {error.msg} at character {error.pos}"
            raise ApiError(HTTPStatus.BAD_REQUEST, message, field="body") from None


def json_response(
    body: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; `body` is anything that orjson writes."""
    return Response(orjson.dumps(body), status, dict(headers or {}), media_type="application/json")


def correlation_id_of(given: str) -> str:
    """Return the client's id when it has a safe shape, else a new one."""
    # an id of any other shape could forge log lines or bloat every event
    return given if _SAFE_ID.match(given) else new_id()


def database_away() -> ApiError:
    """Return the refusal for a request that the database cannot serve at the moment."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the database is not available at the moment; try again",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def upgrade_required() -> ApiError:
    """Return the refusal of what is no WebSocket handshake (RFC 6455, 4.2)."""
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
    }
    message = "this address speaks WebSocket, version 13"
    return ApiError(HTTPStatus.UPGRADE_REQUIRED, message, headers=headers)


def refusal_of(error: Exception, path: str, correlation: str) -> ApiError:
    """Return what the client hears of an error; the log has the rest."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeoutError)):
        # the driver's text names host and user: it belongs in neither the answer nor the log
        _log.warning("database away", path=path, error=type(error).__name__)
        return database_away()
    _log.error("request failed", path=path, correlation_id=correlation, exc_info=error)
    message = "an unexpected error happened; the log has it under the correlation id"
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message)
