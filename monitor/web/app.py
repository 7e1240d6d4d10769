"""What is served: bytes that exist already on the event loop, pages in threads of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

import structlog
from a2wsgi import WSGIMiddleware
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from monitor.every import cause_of
from monitor.exposition.render import CONTENT_TYPE, Page
from monitor.pools.services import ServiceTarget
from monitor.web.api import ReadHistory
from monitor.web.live import LISTEN, Live, TooManyError
from monitor.web.login import WRONG_LOGIN_DELAY_S, Access, Login, WrongLogins
from monitor.web.pages import ReadPools, Watching, pages
from monitor.web.static_files import read_static_files
from monitor.web.trends import Trends
from monitor.web.web_config import WebConfigFile

_log = structlog.get_logger(__name__)

Scope: TypeAlias = Any  # as ASGI describes them: dictionaries with a "type"
Message: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

PAGE_THREADS: Final = 4
# What answers without a login: whoever restarts programs has no password.
OPEN: Final = frozenset({"/health", "/ready", "/burrow/admin", "/burrow/admin/ready"})
# What every page may do: show itself, with scripts and styles that are files of ours.
_SECURITY_HEADERS: Final = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


Reload = Callable[[], str | None]
"""Reads the settings again; says what is wrong with them, None when they are in force."""


class App:
    """The ASGI application that serves what is watched; `reload` is what POST /-/reload does.

    `access` says who may see all but what is `OPEN`; /ready keeps its reason from others: it names
    addresses.
    """

    def __init__(
        self,
        watching: Watching,
        access: Callable[[], Access],
        *,
        reload: Reload | None = None,
        services: Sequence[ServiceTarget] = (),
        history: ReadHistory | None = None,
        pools: ReadPools | None = None,
        trends: Trends | None = None,
    ) -> None:
        self._watching = watching
        self._reload = reload
        self._access = access
        self._wrong_logins = WrongLogins()
        flask: Any = pages(watching, services, history, pools, trends)
        self._pages: Any = WSGIMiddleware(flask, workers=PAGE_THREADS)
        self._answers: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            "/metrics": self._metrics,
            "/health": self._health,
            "/ready": self._ready,
            "/probe": self._probe,
            "/live": self._listen,
        }
        self._live = Live(lambda: watching.pollers)
        self._files = read_static_files()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        has_begun = False
        access = self._access()
        more_headers = _with_headers(access.headers)

        async def secured(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message = {**message, "headers": [*message["headers"], *more_headers]}
            await send(message)

        try:
            await self._answer(access, scope, receive, secured)
        except Exception as error:
            _log.error("page failed", path=scope["path"], cause=cause_of(error), exc_info=error)
            if has_begun:
                raise
            await _refuse(secured, HTTPStatus.INTERNAL_SERVER_ERROR, "the monitor failed")

    async def _answer(self, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path not in OPEN:
            if not access.has_certificate(scope):
                await _refuse(send, HTTPStatus.FORBIDDEN, "a client certificate is needed")
                return
            if not await access.login.opens(_header(scope, b"authorization")):
                await self._demand_login(scope, send)
                return
        answer = self._answers.get(path)
        if path in self._files:
            answer = self._send_file
        if path == "/-/reload":
            await self._reload_settings(scope, send)
        elif not scope["query_string"].isascii():  # a2wsgi would fail on it
            await _refuse(send, HTTPStatus.BAD_REQUEST, "parameters are to be percent-encoded")
        elif answer is None:
            await self._pages(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            allow = [(b"allow", b"GET, HEAD")]
            message = "The method is not allowed for the requested URL."
            await _refuse(send, HTTPStatus.METHOD_NOT_ALLOWED, message, allow)
        else:
            await answer(scope, receive, send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._send_page(self._watching.page(), scope, receive, send)

    async def _probe(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with one cluster's page: for who scrapes each as a target of its own.

        Only names that are configured are targets: else anybody could have addresses asked.
        """
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("target", [])
        page = self._watching.page_of(asked[0]) if len(asked) == 1 else None
        if page is None:
            names = ", ".join(filter(None, self._watching.pollers)) or "none: no cluster has a name"
            status = HTTPStatus.NOT_FOUND if asked else HTTPStatus.BAD_REQUEST
            await _refuse(send, status, f"target is the name of a cluster; there are {names}")
            return
        await self._send_page(page, scope, receive, send)

    async def _reload_settings(self, scope: Scope, send: Send) -> None:
        if self._reload is None:
            message = "not enabled: MONITOR_RELOAD_BY_HTTP=true allows it; SIGHUP always works"
            await _refuse(send, HTTPStatus.FORBIDDEN, message)
        elif scope["method"] not in ("POST", "PUT"):
            allow = [(b"allow", b"POST, PUT")]
            message = "The method is not allowed for the requested URL."
            await _refuse(send, HTTPStatus.METHOD_NOT_ALLOWED, message, allow)
        else:
            fault = await asyncio.to_thread(self._reload)
            if fault is None:
                await _send_json(send, HTTPStatus.OK, {"status": "reloaded"})
            else:
                await _refuse(send, HTTPStatus.INTERNAL_SERVER_ERROR, fault)

    async def _send_page(self, page: Page, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"vary", b"Accept-Encoding")]
        if _takes_gzip(_header(scope, b"accept-encoding")):
            headers.append((b"content-encoding", b"gzip"))
            # two pieces: joined they would be a copy for each client who is slow to take it
            await _send(send, HTTPStatus.OK, headers, page.body, page.ending)
            return
        headers.append((b"content-length", str(page.length).encode()))
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
        gone = asyncio.ensure_future(_is_gone(receive))
        for piece in page.pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)  # others first: the next piece takes its time
            if gone.done():
                return
        gone.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _send_file(self, scope: Scope, _receive: Receive, send: Send) -> None:
        file = self._files[scope["path"]]
        # asked for each time, so that no page has scripts of two versions
        headers = [
            (b"etag", file.etag.encode()),
            (b"cache-control", b"no-cache"),
            (b"vary", b"Accept-Encoding"),
        ]
        if file.etag in (_header(scope, b"if-none-match") or ""):
            await send(
                {
                    "type": "http.response.start",
                    "status": HTTPStatus.NOT_MODIFIED,
                    "headers": headers,
                }
            )
            await send({"type": "http.response.body", "body": b""})
            return
        headers.append((b"content-type", file.type.encode()))
        if _takes_gzip(_header(scope, b"accept-encoding")):
            headers.append((b"content-encoding", b"gzip"))
            await _send(send, HTTPStatus.OK, headers, file.gzipped)
        else:
            await _send(send, HTTPStatus.OK, headers, file.plain)

    async def _listen(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell of each poll until the client is gone."""
        has_begun = False

        async def begin_and_send(event: bytes) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                if (extension := scope.get("extensions", {}).get(LISTEN)) is not None:
                    extension["begin"]()
                headers = [
                    (b"content-type", b"text/event-stream"),
                    (b"cache-control", b"no-store"),
                    (b"x-accel-buffering", b"no"),  # a proxy is not to wait for more
                ]
                await send(
                    {"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers}
                )
            await send({"type": "http.response.body", "body": event, "more_body": True})

        if scope["method"] == "HEAD":
            await _send(send, HTTPStatus.OK, [(b"content-type", b"text/event-stream")])
            return
        gone = asyncio.ensure_future(_is_gone(receive))
        try:
            await self._live.stream(begin_and_send, gone)
        except TooManyError:
            headers = [(b"retry-after", b"10")]
            message = "as many pages are live as may be; ask again at times"
            await _refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, message, headers)
            return
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await _send_json(send, HTTPStatus.OK, {"status": "ok"})

    async def _ready(self, scope: Scope, _receive: Receive, send: Send) -> None:
        reason = self._watching.unready_reason()
        if reason is None:
            await _send_json(send, HTTPStatus.OK, {"status": "ready"})
            return
        access = self._access()
        may_know = access.has_certificate(scope) and await access.login.opens(
            _header(scope, b"authorization")
        )
        told = {"reason": reason} if may_know else {}
        status = HTTPStatus.SERVICE_UNAVAILABLE
        await _send_json(send, status, {"status": "not ready", **told})

    async def _demand_login(self, scope: Scope, send: Send) -> None:
        if _header(scope, b"authorization") is not None:
            self._wrong_logins.note(scope["client"][0] if scope.get("client") else "unknown")
            await asyncio.sleep(WRONG_LOGIN_DELAY_S)
        headers = [(b"www-authenticate", b'Basic realm="Kafka lag monitor"')]
        message = "user and password are needed, by basic auth"
        await _refuse(send, HTTPStatus.UNAUTHORIZED, message, headers)


def create_app(
    watching: Watching,
    user_and_password: tuple[str, str] | None = None,
    *,
    client_certificates: bool = False,
    web_config: WebConfigFile | None = None,
    reload: Reload | None = None,
    services: Sequence[ServiceTarget] = (),
    history: ReadHistory | None = None,
    pools: ReadPools | None = None,
    trends: Trends | None = None,
) -> App:
    """Return the application that serves what is watched, see `App`.

    Without a `web_config` the login and the certificates say who may see the pages.
    """
    fixed = Access(Login(user_and_password), client_certificates)
    return App(
        watching,
        web_config.access if web_config else lambda: fixed,
        reload=reload,
        services=services,
        history=history,
        pools=pools,
        trends=trends,
    )


async def _is_gone(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _with_headers(said: Mapping[str, str]) -> Headers:
    """Return our headers, and over them those that were said; an empty one is left out."""
    found = dict(_SECURITY_HEADERS)
    found |= {name.lower().encode(): value.encode() for name, value in said.items()}
    return [(name, value) for name, value in found.items() if value]


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value.decode("latin-1"))
    return None


def _takes_gzip(accepted: str | None) -> bool:
    return parse_accept_header(accepted, Accept).quality("gzip") > 0


async def _send(send: Send, status: int, headers: Headers, *body: bytes) -> None:
    length = (b"content-length", str(sum(map(len, body))).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    for piece in body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _send_json(
    send: Send, status: int, told: Any, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    body = json.dumps(told).encode()
    await _send(send, status, [(b"content-type", b"application/json"), *headers], body)


async def _refuse(
    send: Send, status: int, message: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    await _send_json(send, status, {"error": {"message": message, "field": None}}, headers)
