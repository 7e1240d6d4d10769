"""Recognises requests in the plainest form of HTTP/1.1.

Most are. To read them takes neither a thread, because their size is known, nor a full parser.
Whatever is not plain, proper or not, is the full parser's.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

# RFC 9112, 3 and 5: a target in origin form, names that are tokens, no folded lines
_HEAD: Final = re.compile(
    rb"([A-Z]+) (/[!-~]*) HTTP/1\.1\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*)\r\n"
)
_LENGTH: Final = re.compile(r"[0-9]{1,9}")
# A body in chunks, an answer before the body, another protocol.
_NOT_PLAIN: Final = frozenset({"transfer-encoding", "expect", "upgrade"})


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request; the names of its headers are in lower case.

    `size` is how many bytes it takes: more than have arrived while a part of its body is still to come.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    size: int


def plain_request(
    data: bytes, wanted: Container[tuple[str, str]], *, max_head: int, max_body: int
) -> PlainRequest | None:
    """Return the request that `data` begins with, if its head is whole and plain, and it is wanted.

    `wanted` are methods with their paths; the limits are in bytes.
    """
    match = _HEAD.match(data)
    if match is None or match.end() > max_head:
        return None
    method, path, lines = (part.decode("ascii") for part in match.groups())
    headers = _headers(lines)
    if (method, path) not in wanted or headers is None:
        return None
    length = headers.get("content-length", "")
    is_body_plain = _LENGTH.fullmatch(length) is not None and int(length) <= max_body
    if not is_body_plain or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    end = match.end() + int(length)
    return PlainRequest(method, path, headers, data[match.end() : end], end)


def _headers(lines: str) -> dict[str, str] | None:
    headers: dict[str, str] = {}
    for line in lines.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name = name.lower()
        # which of two counts is a question for the full parser: two lengths can smuggle a request
        if name in headers or name in _NOT_PLAIN:
            return None
        headers[name] = value.strip()
    return headers
