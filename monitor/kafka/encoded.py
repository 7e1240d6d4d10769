"""Requests whose body is bytes already, and replies that are left as bytes.

kafka-python makes an object of every partition that a request names, and of every one in its reply.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

_THROTTLE: Final = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came; its body begins at `at`, with the throttle time (milliseconds)."""

    data: bytes
    at: int
    version: int
    throttle_time_ms: int  # kafka-python looks for it

    @property
    def whole_body(self) -> bytes:
        """Return the body with the throttle time."""
        return self.data[self.at :]

    @property
    def body(self) -> bytes:
        """Return the body after the throttle time."""
        return self.data[self.at + _THROTTLE.size :]


class EncodedRequest:
    """A request whose body is bytes already; kafka-python adds only its header.

    With `raw` the reply is a `Reply`, kafka-python's message otherwise.
    """

    def __init__(self, message: Any, version: int, body: bytes, *, raw: bool = False) -> None:
        self.name = message.name
        self.API_VERSION = version
        self.header: Any = None
        self._body = body
        self._raw = raw
        self._empty = message(version=version)
        self._flexible = message.flexible_version_q(version)

    def with_header(self, correlation_id: int, client_id: str) -> None:
        """Make the header; kafka-python then finds in it how the reply is read."""
        self._empty.with_header(correlation_id=correlation_id, client_id=client_id)
        header = self._empty.header
        self.header = _Awaited(header, self.API_VERSION) if self._raw else header

    def encode(self, *, framed: bool, header: bool) -> bytes:
        """Return size, header and body."""
        assert framed and header  # noqa: S101, PT018  # how kafka-python sends every request
        head = self._empty.encode_header(flexible=self._flexible)
        return struct.pack(">i", len(head) + len(self._body)) + bytes(head) + self._body

    def expect_response(self) -> bool:
        """Return that the broker replies."""
        return True


class _Awaited:
    """What kafka-python keeps of a request that it has sent, and reads its reply with."""

    def __init__(self, header: Any, version: int) -> None:
        self.correlation_id = header.correlation_id
        self._version = version
        self._theirs = header.get_response_class()

    def get_response_class(self) -> _Awaited:
        return self

    def parse_header(self, buffer: Any) -> Any:
        return self._theirs.parse_header(buffer)

    def decode(self, buffer: Any) -> Reply:
        data, at = bytes(buffer), buffer.tell()
        return Reply(data, at, self._version, *_THROTTLE.unpack_from(data, at))
