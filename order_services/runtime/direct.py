"""Routes that are answered before Flask, for the few requests that come by the thousand.

Flask takes longer to route a request, build its objects and run its hooks than accepting an order
takes. A direct route answers the same way: correlation id, metrics, limits, errors as JSON. It may
answer later, and then needs no thread to wait on: `server` gives it none for a plain request. Where
a thread came with the request, the thread waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import orjson
from werkzeug.routing import Rule

from order_services.runtime.http import (
    CORRELATION_HEADER,
    MAX_BODY_BYTES,
    body_too_large,
    correlation_id_of,
    count_request,
    drain,
    parse_json,
    refusal_of,
    traceparent_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask

_EXTENSION: Final = "order_services.direct"

T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class DirectRequest:
    """What a direct route is asked; the names of the headers are in lower case."""

    headers: Mapping[str, str]
    correlation_id: str
    body: bytes

    @property
    def traceparent(self) -> str:
        """The trace that this request belongs to."""
        return traceparent_of(self.headers.get("traceparent", ""))

    def json(self) -> Any:
        """Parse the body; raises `ApiError` 400 or 415."""
        return parse_json(self.body, self.headers.get("content-type"))


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """What a direct route answers: anything that orjson writes."""

    status: HTTPStatus
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Later(Generic[T]):
    """An answer that waits for something; `answer` makes it of the future once that is done.

    It runs on the thread that has brought the result, and must not wait. It may raise what a view may.
    """

    future: Future[T]
    answer: Callable[[Future[T]], DirectAnswer]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to the client."""

    status: HTTPStatus
    headers: list[tuple[str, str]]
    content: bytes


Handle = Callable[[DirectRequest], DirectAnswer | Later[Any]]


class DirectRoute:
    """One method on one path."""

    def __init__(self, method: str, path: str, handle: Handle) -> None:
        self._method = method
        self._path = path
        self._handle = handle

    def begin(
        self,
        headers: Mapping[str, str],
        read_body: Callable[[], bytes],
        send: Callable[[Reply], None],
    ) -> None:
        """Handle a request; `send` is called once, now or later and then on another thread."""
        started = time.perf_counter()
        correlation_id = correlation_id_of(headers.get(CORRELATION_HEADER.lower(), ""))

        def attempt(step: Callable[[], A]) -> A | DirectAnswer:
            try:
                return step()
            except Exception as error:  # noqa: BLE001  # whatever it is, the client gets JSON
                refusal = refusal_of(error, self._path, correlation_id)
                return DirectAnswer(refusal.status, refusal.body(), refusal.headers)

        def finish(answer: DirectAnswer) -> None:
            count_request(self._method, self._path, answer.status, started, correlation_id)
            send(_reply(answer, correlation_id))

        outcome = attempt(lambda: self._handle(DirectRequest(headers, correlation_id, read_body())))
        if isinstance(outcome, Later):
            make = outcome.answer
            outcome.future.add_done_callback(lambda done: finish(attempt(lambda: make(done))))
        else:
            finish(outcome)


def add_direct_route(app: Flask, method: str, path: str, handle: Handle) -> None:
    """Have `handle` answer `method` on `path`; it may raise what a Flask view may."""
    routes = app.extensions.get(_EXTENSION)
    if routes is None:
        routes = app.extensions[_EXTENSION] = {}
        # Flask's documented place for middleware
        app.wsgi_app = _Middleware(app.wsgi_app, routes)  # type: ignore[method-assign]
    routes[method, path] = DirectRoute(method, path, handle)
    # never reached, but known: the 405 of other methods lists it under Allow
    app.url_map.add(Rule(path, methods=[method], endpoint=f"direct {method} {path}"))


def direct_routes(app: Flask) -> Mapping[tuple[str, str], DirectRoute]:
    """Return an app's direct routes by method and path."""
    routes: Mapping[tuple[str, str], DirectRoute] = app.extensions.get(_EXTENSION, {})
    return routes


class _Middleware:
    """Answers direct routes' requests on the thread that brings them."""

    def __init__(
        self, following: WSGIApplication, routes: Mapping[tuple[str, str], DirectRoute]
    ) -> None:
        self._following = following
        self._routes = routes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        route = self._routes.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if route is None:
            return self._following(environ, start_response)
        replied: Future[Reply] = Future()
        route.begin(_headers(environ), partial(_read_body, environ), replied.set_result)
        reply = replied.result()
        start_response(f"{reply.status.value} {reply.status.phrase}", reply.headers)
        return [reply.content]


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    headers = {
        name[len("HTTP_") :].replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    if "CONTENT_TYPE" in environ:
        headers["content-type"] = environ["CONTENT_TYPE"]
    return headers


def _reply(answer: DirectAnswer, correlation_id: str) -> Reply:
    content = orjson.dumps(answer.body)
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(content))),
        (CORRELATION_HEADER, correlation_id),
        ("X-Content-Type-Options", "nosniff"),
        *answer.headers.items(),
    ]
    return Reply(answer.status, headers, content)


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
