"""Requests whose body is bytes already, and replies that are left as bytes.

kafka-python makes an object of every partition that a request names, and of every group or partition
in its reply.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic

from monitor.kafka.questions import Answer, Failure

_THROTTLE: Final = struct.Struct(">i")
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came; its body begins at `at`, with the throttle time (milliseconds)."""

    data: bytes
    at: int
    version: int
    throttle_time_ms: int  # kafka-python looks for it

    @property
    def body(self) -> bytes:
        """Return the body."""
        return self.data[self.at :]

    @property
    def digest(self) -> bytes:
        """Return what stands for the body after the throttle time."""
        content = memoryview(self.data)[self.at + _THROTTLE.size :]
        return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


class LastAnswer(Generic[Answer]):
    """What a question that is asked at every poll was answered: most replies say the same again."""

    __slots__ = ("_answer", "_digest")

    def __init__(self) -> None:
        self._digest = b""
        self._answer: Answer | None = None

    def read(self, reply: Reply, read: Callable[[bytes], Answer | Failure]) -> Answer | Failure:
        """Return the last answer, the same object, or what `read` makes of another body."""
        digest = reply.digest
        if self._answer is not None and digest == self._digest:
            return self._answer
        found = read(reply.body)
        if isinstance(found, Failure):
            return found
        self._digest, self._answer = digest, found
        return found


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
