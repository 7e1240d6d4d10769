"""Routes that are answered before Flask, for the few requests that come by the thousand.

Flask takes longer to route a request, build its objects and run its hooks than accepting an order
takes. A direct route answers the same way: correlation id, metrics, limits, errors as JSON.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from werkzeug.routing import Rule

from order_services.runtime.http import (
    CORRELATION_HEADER,
    MAX_BODY_BYTES,
    ApiError,
    body_too_large,
    correlation_id_of,
    count_request,
    drain,
    parse_json,
    refusal_of,
    traceparent_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask


@dataclass(frozen=True, slots=True)
class DirectRequest:
    """What a direct route is asked."""

    environ: Mapping[str, Any]
    correlation_id: str
    body: bytes

    @property
    def traceparent(self) -> str:
        """The trace that this request belongs to."""
        return traceparent_of(self.environ.get("HTTP_TRACEPARENT", ""))

    def header(self, name: str) -> str | None:
        """Return a header by its name."""
        value = self.environ.get("HTTP_" + name.upper().replace("-", "_"))
        return None if value is None else str(value)

    def json(self) -> Any:
        """Parse the body; raises `ApiError` 400 or 415."""
        return parse_json(self.body, self.environ.get("CONTENT_TYPE"))


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """What a direct route answers: anything that orjson writes."""

    status: HTTPStatus
    body: Any
    headers: Mapping[str, str]


def add_direct_route(
    app: Flask, method: str, path: str, handle: Callable[[DirectRequest], DirectAnswer]
) -> None:
    """Have `handle` answer `method` on `path`; it may raise what a Flask view may."""
    # never reached, but known: the 405 of other methods lists it under Allow
    app.url_map.add(Rule(path, methods=[method], endpoint=f"direct {method} {path}"))
    # Flask's documented place for middleware
    app.wsgi_app = _DirectRoute(app.wsgi_app, method, path, handle)  # type: ignore[method-assign]


class _DirectRoute:
    def __init__(
        self,
        following: WSGIApplication,
        method: str,
        path: str,
        handle: Callable[[DirectRequest], DirectAnswer],
    ) -> None:
        self._following = following
        self._method = method
        self._path = path
        self._handle = handle

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != self._path or environ["REQUEST_METHOD"] != self._method:
            return self._following(environ, start_response)
        started = time.perf_counter()
        correlation_id = correlation_id_of(environ.get("HTTP_X_CORRELATION_ID", ""))
        try:
            body = _read_body(environ)
            answer = self._handle(DirectRequest(environ, correlation_id, body))
        except Exception as error:  # noqa: BLE001  # whatever it is, the client gets JSON
            answer = _refused(refusal_of(error, self._path, correlation_id))
        content = orjson.dumps(answer.body)
        count_request(self._method, self._path, answer.status, started, correlation_id)
        start_response(
            f"{answer.status.value} {answer.status.phrase}",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(content))),
                (CORRELATION_HEADER, correlation_id),
                ("X-Content-Type-Options", "nosniff"),
                *answer.headers.items(),
            ],
        )
        return [content]


def _refused(error: ApiError) -> DirectAnswer:
    return DirectAnswer(error.status, error.body(), error.headers)


def _read_body(environ: WSGIEnvironment) -> bytes:
    length = environ.get("CONTENT_LENGTH")
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""
    stream = environ["wsgi.input"]
    # a chunked body ends by itself: one byte more than allowed tells that it is too long
    wanted = MAX_BODY_BYTES + 1 if length is None else min(int(length), MAX_BODY_BYTES + 1)
    parts: list[bytes] = []
    while wanted > 0 and (part := stream.read(wanted)):
        parts.append(part)
        wanted -= len(part)
    body = b"".join(parts)
    if len(body) > MAX_BODY_BYTES:
        drain(environ)
        raise body_too_large()
    return body
