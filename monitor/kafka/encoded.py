"""Requests whose bytes are made, and whose replies are read, without kafka-python's objects."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from monitor.kafka.apis.compact import Decoded

Decode: TypeAlias = Callable[[bytes, int], Decoded[Any]]


class EncodedRequest:
    """A request whose body is bytes already; kafka-python adds only its header.

    With `decode`, its reply's body is read by that, from bytes and where the body begins.
    """

    def __init__(
        self, message: Any, version: int, body: bytes, decode: Decode | None = None
    ) -> None:
        self.name = message.name
        self.API_VERSION = version
        self.header: Any = None
        self._body = body
        self._decode = decode
        self._empty = message(version=version)
        self._flexible = message.flexible_version_q(version)

    def with_header(self, correlation_id: int, client_id: str) -> None:
        """Make the header; kafka-python then finds in it how the reply is read."""
        self._empty.with_header(correlation_id=correlation_id, client_id=client_id)
        header = self._empty.header
        self.header = header if self._decode is None else _Awaited(header, self._decode)

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

    def __init__(self, header: Any, decode: Decode) -> None:
        self.correlation_id = header.correlation_id
        self._theirs = header.get_response_class()
        self._decode = decode

    def get_response_class(self) -> _Awaited:
        return self

    def parse_header(self, buffer: Any) -> Any:
        return self._theirs.parse_header(buffer)

    def decode(self, buffer: Any) -> Decoded[Any]:
        return self._decode(bytes(buffer), buffer.tell())
