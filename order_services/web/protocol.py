"""The library's HTTP protocol with the limits and deadlines that it lacks.

A client that is silent, trickles, or does not read costs a connection for a while, and nobody else
anything. Framing that RFC 9112 forbids is refused before anybody could read it in two ways. All
refusals are JSON. Nothing here is logged: clients must not be able to fill a disk.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import re
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from order_services.process.instrumentation import HTTP_REQUESTS
from order_services.web.answers import ApiError, upgrade_required
from order_services.web.limits import Limits, Unread

_TARGET: Final = re.compile(rb"[!-~]+")
_CHECKED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
# Chunks of one byte each take six: whoever sends more than this around a body sends no body.
_OVERHEAD: Final = 8
# How much is read of what comes after a refusal, and for how long: a client that is still sending
# when its connection closes gets a reset, and not the refusal.
_DRAINED_BYTES: Final = 1024 * 1024
_LINGER_SECONDS: Final = 2.0
# Under a flood of new connections, one look at all of them makes room for many.
_EVICTED_SHARE: Final = 16


class _Refused(Exception):  # noqa: N818  # ends the parser's work; the client's error, not ours
    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Protocol(HttpToolsProtocol):
    """One HTTP connection."""

    def __init__(self, *arguments: Any, limits: Limits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self._in_head = False
        self._message_bytes = 0
        self._since = self.loop.time()  # when the present step began
        self._unread = Unread()
        self._answering: RequestResponseCycle | None = None
        self._refusal: bytes | None = None
        self._drained = 0

    def connection_made(self, transport: Any) -> None:
        """Take the connection, at the cost of the one that has been waited for the longest."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections and not self._make_room():
            self._refuse(
                ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again")
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell also the request that is being answered while others wait behind it."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse what has come; refuse what is no proper request, and what takes too much."""
        if self._refusal is not None:
            self._drained += len(data)
            if self._drained > _DRAINED_BYTES:
                self.transport.abort()
            return
        self._message_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause.error
                if isinstance(cause, _Refused)
                else ApiError(HTTPStatus.BAD_REQUEST, "this is no proper HTTP request")
            )
            return
        most = self._limits.head_bytes
        if self._in_head and self._message_bytes > most:
            self._refuse(_head_too_large(most).error)
        elif self._message_bytes > most + _OVERHEAD * self._limits.body_bytes:
            self._refuse(_body_too_large(self._limits.body_bytes).error)

    def on_message_begin(self) -> None:
        """Begin a request: its head has a deadline from its first byte."""
        super().on_message_begin()
        self._in_head = True
        self._since = self.loop.time()
        self._field_bytes = self._body_bytes = 0
        self._hosts = self._length = 0
        self._is_chunked = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, and pass trailers over: they would be read as headers."""
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > self._limits.head_bytes:
            raise _head_too_large(self._limits.head_bytes)
        if self._in_head:
            name = name.lower()
            self.headers.append((name, value))
            if name in _CHECKED:
                self._check_field(name, value)

    def on_headers_complete(self) -> None:
        """Refuse a head that could be read in two ways, or begin to answer."""
        self._in_head = False
        self._since = self.loop.time()
        self._check_head()
        self.scope["state"]["connection"] = self
        super().on_headers_complete()
        if self.parser.should_upgrade() and not self._should_upgrade():
            # what the parser takes for another protocol from here on is not read
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of a body within the limit."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise _body_too_large(self._limits.body_bytes)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; what follows is the next one."""
        self._message_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or tell what was wrong with it."""
        self._since = self.loop.time()
        if self.pipeline:
            super().on_response_complete()
        elif self._refusal is not None:
            self._send_refusal()
        elif not self.transport.is_closing():
            # the library would set a timer for each answer: `check_deadlines` ends idle connections
            self.server_state.total_requests += 1
            self.flow.resume_reading()

    async def send_whole(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Send an answer that is there as a whole: ASGI's two messages cost an order 12 us more."""
        cycle = self._answering
        assert cycle is not None  # noqa: S101  # an app asks that is answering
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        lines = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        if cycle.scope["method"] != "HEAD":
            lines.append(body)
        self.transport.write(b"".join(lines))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def check_deadlines(self, now: float) -> None:
        """End the connection when the client has kept it waiting for too long."""
        if self._unread.is_overdue(self.transport, now, self._limits.send_seconds):
            # not close: that would wait until all is read
            self.transport.abort()
        elif self.is_waiting_for_client and not self.transport.is_closing():
            self._check_step(now - self._since)

    def _check_step(self, waited_seconds: float) -> None:
        limits = self._limits
        if self._refusal is not None:
            if waited_seconds > _LINGER_SECONDS:
                self.transport.close()
        elif self._in_head:
            if waited_seconds > limits.head_seconds:
                self._refuse(_too_slow("head"))
        elif self.cycle is None:
            if waited_seconds > limits.head_seconds:
                self.transport.close()
        elif self.cycle.response_complete:
            if waited_seconds > limits.idle_seconds:
                self.transport.close()
        elif waited_seconds > limits.body_seconds:
            self._refuse(_too_slow("body"))

    @property
    def is_waiting_for_client(self) -> bool:
        """Whether nothing goes on until the client sends or reads something."""
        if self.flow.write_paused:
            return True
        if self.pipeline:
            return False
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _check_head(self) -> None:
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise _bad("this server speaks HTTP/1.1")
        if not _TARGET.fullmatch(self.url):
            raise _bad("the address must be visible ASCII characters")
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise _bad("a request has one Host", "Host")
        if self._is_chunked and version == "1.0":
            raise _bad("HTTP/1.0 knows no Transfer-Encoding", "Transfer-Encoding")
        if self.parser.should_upgrade():
            self._check_upgrade()

    def _check_field(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            # the parser takes no second one, and none beside Transfer-Encoding
            self._length = int(value)
            if self._length > self._limits.body_bytes:
                raise _body_too_large(self._limits.body_bytes)
        elif name == b"transfer-encoding":
            self._is_chunked = True
            if value.strip().lower() != b"chunked":
                raise _bad("the only Transfer-Encoding is chunked", "Transfer-Encoding")
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True
        else:
            status = HTTPStatus.EXPECTATION_FAILED
            raise _Refused(ApiError(status, "the only Expect is 100-continue", field="Expect"))

    def _check_upgrade(self) -> None:
        if self._length or self._is_chunked:
            # the parser takes the body for the other protocol's
            raise _bad("a request for another protocol has no body", "Upgrade")
        if not self._should_upgrade():
            return
        fields = dict(self.headers)
        if self.parser.get_method() != b"GET" or self.cycle_is_open:
            raise _bad("a WebSocket begins with a GET of its own", "Upgrade")
        if fields.get(b"sec-websocket-version") != b"13":
            raise _Refused(upgrade_required())
        try:
            is_key = (
                len(base64.b64decode(fields.get(b"sec-websocket-key", b""), validate=True)) == 16
            )
        except binascii.Error:
            is_key = False
        if not is_key:
            raise _bad("the key must be 16 bytes in base64", "Sec-WebSocket-Key")

    @property
    def cycle_is_open(self) -> bool:
        """Whether a request that came before is still to be answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> bool:
        """End those connections that have been waited for the longest; false where there is none."""
        waiting = [
            each
            for each in self.connections
            if isinstance(each, Protocol)
            and each is not self
            and each.is_waiting_for_client
            and not each.transport.is_closing()
        ]
        count = max(1, self._limits.connections // _EVICTED_SHARE)
        # a client that has been answered before is more likely to be one
        evicted = heapq.nsmallest(count, waiting, key=lambda c: (c.cycle is not None, c._since))  # noqa: SLF001  # its own class
        for each in evicted:
            each.transport.abort()
        return bool(evicted)

    def _refuse(self, error: ApiError) -> None:
        """Answer in place of the app, after what came before has been answered."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._refusal = _encode(error, self.server_state.default_headers)
        HTTP_REQUESTS.labels("any", "refused", str(error.status.value)).inc()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and cycle.more_body:
            # the refused request itself: whatever the app makes of it is not sent
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
            is_queued = any(each is cycle for each, _ in self.pipeline)
            if is_queued:
                self.pipeline.popleft()  # it is the last one
            else:
                self._send_refusal()
        elif cycle is None or cycle.response_complete:
            self._send_refusal()

    def _send_refusal(self) -> None:
        assert self._refusal is not None  # noqa: S101  # narrows the type
        self._since = self.loop.time()
        self.flow.resume_reading()
        self.transport.write(self._refusal)
        if self.transport.can_write_eof():
            self.transport.write_eof()


def _bad(message: str, field: str | None = None) -> _Refused:
    return _Refused(ApiError(HTTPStatus.BAD_REQUEST, message, field=field))


def _too_slow(part: str) -> ApiError:
    return ApiError(HTTPStatus.REQUEST_TIMEOUT, f"the request's {part} took too long")


def _head_too_large(most: int) -> _Refused:
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return _Refused(ApiError(status, f"the request's head is larger than {most} bytes"))


def _body_too_large(most: int) -> _Refused:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return _Refused(ApiError(status, f"the body is larger than {most} bytes", field="body"))


def _encode(error: ApiError, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    answer = error.response()
    own = [(name, value) for name, value in answer.raw_headers if name != b"connection"]
    lines = b"".join(
        name + b": " + value + b"\r\n"
        for name, value in (*default_headers, *own, (b"connection", b"close"))
    )
    status = f"HTTP/1.1 {error.status.value} {error.status.phrase}\r\n".encode()
    return status + lines + b"\r\n" + bytes(answer.body)
