"""What every service answers over HTTP; `server` carries it."""

from __future__ import annotations

import base64
import binascii
import re
import socket
import time
import uuid
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson
import structlog
from flask import Flask, Response, g, request
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import WebsocketMismatch
from wsproto.utilities import generate_accept_token

from order_services.events import is_traceparent, new_traceparent
from order_services.runtime import instrumentation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CORRELATION_HEADER: Final = "X-Correlation-Id"
MAX_BODY_BYTES: Final = 64 * 1024
# A client that is still sending when the connection closes gets a reset instead of the 413.
MAX_DRAINED_BYTES: Final = 1024 * 1024
RETRY_AFTER_SECONDS: Final = 2

# with its label the id must fit into an exemplar, which OpenMetrics limits to 128 characters
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:\-]{1,64}\Z")
ON_UPGRADE: Final = "order_services.on_upgrade"

_log = structlog.get_logger(__name__)


class Health(Protocol):
    """What a service says about itself; each answer lists reasons, none when all is well."""

    def alive(self) -> Sequence[str]:
        """Say why the process should be restarted."""

    def ready(self) -> Sequence[str]:
        """Say why no work should be sent here."""


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


def json_response(
    body: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; `body` is anything that orjson writes."""
    return Response(
        orjson.dumps(body), status=status, mimetype="application/json", headers=dict(headers or {})
    )


def correlation_id_of(given: str) -> str:
    """Return the client's id when it has a safe shape, else a new one."""
    # an id of any other shape could forge log lines or bloat every event
    return given if _SAFE_ID.match(given) else str(uuid.uuid4())


def traceparent_of(given: str) -> str:
    """Return the client's trace (W3C Trace Context) when it is proper, else a new one."""
    return given if is_traceparent(given) else new_traceparent()


def correlation_id() -> str:
    """Return the id that ties this request's logs, events and answers together."""
    return str(g.correlation_id)


def traceparent() -> str:
    """Return the trace that this request belongs to."""
    return traceparent_of(request.headers.get("traceparent", ""))


def parse_json(data: bytes, content_type: str | None) -> Any:
    """Parse a request's body.

    Raises `ApiError` 415 for another content type and 400 for what is not JSON.
    """
    if content_type and content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"
        )
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"the body is not valid JSON: {error.msg} at character {error.pos}"
        raise ApiError(HTTPStatus.BAD_REQUEST, message, field="body") from None


def body_too_large() -> ApiError:
    """Return the refusal of a body past the limit."""
    message = f"the body is larger than {MAX_BODY_BYTES} bytes"
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, field="body")


def query_integer(name: str, default: int, *, low: int, high: int) -> int:
    """Read a bounded integer from the query string; raises `ApiError` 400 that names it."""
    text = request.args.get(name)
    if text is None:
        return default
    # int() also takes "1_0", " 1" and other alphabets' digits
    if not re.fullmatch(r"-?[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ApiError(
            HTTPStatus.BAD_REQUEST, f"{name} must be an integer from {low} to {high}", field=name
        )
    return int(text)


def database_away() -> ApiError:
    """Return the refusal for a request that the database cannot serve at the moment."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the database is not available at the moment; try again",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def service_app(name: str, health: Health, *, registry: CollectorRegistry = REGISTRY) -> Flask:
    """Return an app with /health, /ready and /metrics, and JSON for every error."""
    app = Flask(name, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    _add_probes(app, name, health)
    _add_metrics(app, registry)
    _add_request_hooks(app)
    _add_error_handlers(app)
    return app


def _add_probes(app: Flask, name: str, health: Health) -> None:
    def answer(reasons: Sequence[str], good: str, bad: str) -> Response:
        body = {"service": name, "status": bad if reasons else good, "reasons": list(reasons)}
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return json_response(body, status)

    @app.get("/health")
    def alive() -> Response:
        return answer(health.alive(), "alive", "stuck")

    @app.get("/ready")
    def ready() -> Response:
        return answer(health.ready(), "ready", "not ready")


def _add_metrics(app: Flask, registry: CollectorRegistry) -> None:
    @app.get("/metrics")
    def metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)


def _add_request_hooks(app: Flask) -> None:
    @app.before_request
    def begin() -> None:
        g.started = time.perf_counter()
        g.correlation_id = correlation_id_of(request.headers.get(CORRELATION_HEADER, ""))

    @app.after_request
    def end(response: Response) -> Response:
        # the pattern, not the path: every order id would make a series of its own
        rule = request.url_rule
        method, route = (request.method, rule.rule) if rule is not None else ("any", "unmatched")
        count_request(method, route, response.status_code, g.started, g.correlation_id)
        response.headers[CORRELATION_HEADER] = g.correlation_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def count_request(method: str, route: str, status: int, started: float, correlation: str) -> None:
    """Count a request that began at `started` (perf_counter) and is answered now."""
    requests, seconds = _children(method, route, status)
    requests.inc()
    seconds.observe(time.perf_counter() - started, {"correlation_id": correlation})


@cache
def _children(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return (
        instrumentation.HTTP_REQUESTS.labels(method, route, str(int(status))),
        instrumentation.HTTP_SECONDS.labels(method, route),
    )


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


def _add_error_handlers(app: Flask) -> None:
    def answer(error: ApiError) -> Response:
        return json_response(error.body(), error.status, error.headers)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return answer(refusal_of(error, request.path, correlation_id()))

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_error: RequestEntityTooLarge) -> Response:
        drain(request.environ)
        return answer(body_too_large())

    @app.errorhandler(WebsocketMismatch)
    def wrong_protocol(_error: WebsocketMismatch) -> Response:
        connection = request.headers.get("Connection", "").lower()
        if "upgrade" in connection and request.headers.get("Upgrade", "").lower() == "websocket":
            return answer(ApiError(HTTPStatus.BAD_REQUEST, "this address speaks HTTP only"))
        return answer(_upgrade_required())

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        # keeps Allow on 405 and Location on redirects; the body and its type become ours
        headers = {k: v for k, v in error.get_headers() if k.lower() != "content-type"}
        messages = {
            HTTPStatus.NOT_FOUND: f"there is nothing at {request.path}",
            HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not allowed here",
        }
        message = messages.get(status, status.phrase)
        return answer(ApiError(status, message, headers=headers))


def drain(environ: Mapping[str, Any]) -> None:
    """Read what is left of a body that is refused, up to `MAX_DRAINED_BYTES`."""
    stream, left = environ["wsgi.input"], MAX_DRAINED_BYTES
    try:
        while left > 0 and (chunk := stream.read(min(left, 65536))):
            left -= len(chunk)
    except (OSError, ValueError):
        return  # a client that went away needs no answer


def _upgrade_required() -> ApiError:
    return ApiError(
        HTTPStatus.UPGRADE_REQUIRED,
        "this address speaks WebSocket, version 13",
        headers={"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
    )


def websocket_response(on_connected: Callable[[socket.socket], None]) -> Response:
    """Complete the WebSocket handshake (RFC 6455, 4.2) of a route with `websocket=True`.

    `on_connected` gets the connected socket, non-blocking and its own to close, once the answer is
    on its way; the thread that served the request is free again. Raises `ApiError` 400, 403 or 426
    for a request that is no proper handshake.
    """
    headers = request.headers
    if headers.get("Sec-WebSocket-Version") != "13":
        raise _upgrade_required()
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        proper = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        proper = False
    if not proper:
        raise ApiError(
            HTTPStatus.BAD_REQUEST, "the key must be 16 bytes in base64", field="Sec-WebSocket-Key"
        )
    origin = headers.get("Origin")
    # browsers let any page open a WebSocket to any host: only the header tells them apart
    if origin is not None and origin.split("://", 1)[-1] != request.host:
        raise ApiError(HTTPStatus.FORBIDDEN, "this origin is not allowed", field="Origin")
    request.environ[ON_UPGRADE] = on_connected
    response = Response(status=HTTPStatus.SWITCHING_PROTOCOLS)
    response.headers["Upgrade"] = "websocket"
    response.headers["Connection"] = "Upgrade"
    response.headers["Sec-WebSocket-Accept"] = generate_accept_token(key.encode()).decode()
    return response
