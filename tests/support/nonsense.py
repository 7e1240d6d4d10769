"""Requests of every kind of wrongness, made from a seed: methods, addresses, heads, framing, bodies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final

METHODS: Final = (
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "BREW",
    "get",
)
ORDER: Final = {"customerId": "c-1", "items": [{"productId": "PROD-001", "quantity": 1}]}
VALUES: Final[Sequence[Any]] = (
    *(None, True, 0, -1, 1.5, 1e308, 10**30, "", "x" * 300, "\u0000", "\ud7ff", [], {}, [[]]),
    *({"a": 1}, ["PROD-001"], [ORDER], ORDER),
)
ODD_HEADERS: Final = (
    "Content-Type: text/plain",
    "Content-Type: application/json; charset=x",
    "Accept: application/openmetrics-text",
    "Accept: \xff;q=\xe4",
    "Expect: 100-continue",
    "Expect: something",
    "Connection: close",
    "Connection: Upgrade\r\nUpgrade: websocket",
    "Connection: Upgrade\r\nUpgrade: h2c",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x",
    "Authorization: Bearer",
    "Authorization: Bearer \xff",
    "Authorization: Basic eDp5",
    "Idempotency-Key: ",
    "Idempotency-Key: \xe4",
    "Idempotency-Key: 1\r\nIdempotency-Key: 2",
    "traceparent: 00-zz-zz-01",
    "X-Correlation-Id: \x7f",
    "Host: other",
    "Cookie: " + "c" * 5000,
    "X-Large: " + "x" * 40_000,
    "No colon",
    " : empty",
    "Range: bytes=0-",
    "Transfer-Encoding: gzip",
    "Content-Length: 3",
)


def nonsense(random: Random, paths: Sequence[str]) -> bytes:
    """Return a request, in most cases an improper one; it may be cut short."""
    method = random.choice(METHODS)
    head = [f"{method} {_target(random, random.choice(paths))} {_version(random)}"]
    if random.random() < 0.95:
        head.append("Host: x")
    if random.random() < 0.8:
        head.append("Content-Type: application/json")
    head += random.choices(ODD_HEADERS, k=random.choice((0, 0, 0, 0, 1, 1, 2)))
    framing, body = _body(random)
    head += framing
    end = "\r\n" if random.random() < 0.97 else "\n"
    data = end.join([*head, "", ""]).encode("latin-1", "replace") + body
    if random.random() < 0.05:
        data = _damaged(random, data)
    if random.random() < 0.03:
        data = data[: random.randrange(len(data) + 1)]
    return data


def _version(random: Random) -> str:
    return random.choice(("HTTP/1.1",) * 60 + ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/11", ""))


def _target(random: Random, path: str) -> str:
    ids = ("0192f0c1-2345-7000-8000-000000000000", "x", "%00", "%ff%fe", "..%2f..", "a" * 500, "%")
    path = path.replace("{}", random.choice(ids))
    return random.choice(
        (
            *(path,) * 30,
            path + "/",
            path + "%",
            path + "\xff",
            path.upper(),
            "/" + path,
            "http://elsewhere" + path,
            path + "?limit=1&limit=2&cursor=%00&days=-1",
            path + f"?limit={random.choice(('0', '1e3', '%d9%a5', '9' * 50, ''))}",
            path + "?days=" + random.choice(("1", "367", "x", "\xe4")),
            path + "?" + "&".join(["a=b"] * 3000),
            path + "#x",
            "*",
            "x:1",
        )
    )


def _body(random: Random) -> tuple[list[str], bytes]:
    body = _content(random)
    kind = random.randrange(12)
    if kind < 7:
        return [f"Content-Length: {len(body)}"], body
    if kind < 9:
        return ["Transfer-Encoding: chunked"], _chunked(random, body)
    return random.choice(
        (
            ([], body),
            ([], b""),
            ([f"Content-Length: {len(body)}"] * 2, body),
            ([f"Content-Length: {len(body)}", f"Content-Length: {len(body) + 1}"], body),
            (
                [f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"],
                _chunked(random, body),
            ),
            (["Transfer-Encoding: chunked"], body),
            (["Transfer-Encoding: chunked, chunked"], _chunked(random, body)),
            ([f"Content-Length: {random.choice(('-1', 'x', '1e3', '65537', '9' * 30))}"], body),
            (["Content-Length: 70000"], b"x" * 70_000),
        )
    )


def _content(random: Random) -> bytes:
    kind = random.randrange(6)
    if kind == 0:
        return json.dumps(ORDER).encode()
    if kind == 1:
        return json.dumps(random.choice(VALUES)).encode()
    if kind == 2:
        names = ("customerId", "items", "productId", "quantity", "days", "poisonRate", "x", "")
        return json.dumps({random.choice(names): random.choice(VALUES) for _ in range(3)}).encode()
    if kind == 3:
        changed = {**ORDER, random.choice(("customerId", "items")): random.choice(VALUES)}
        return json.dumps(changed).encode()
    if kind == 4:
        return random.randbytes(random.choice((0, 1, 100, 5000)))
    return random.choice(
        (b"[" * 60_000, b'{"a":' * 10_000, b'"\\ud800"', b"NaN", b"1e999", b"\xef\xbb\xbf{}")
    )


def _chunked(random: Random, body: bytes) -> bytes:
    half = len(body) // 2
    parts = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:half], body[half:]) if p)
    return parts + random.choice(
        (b"0\r\n\r\n",) * 6 + (b"0\r\nX: y\r\n\r\n", b"-1\r\n", b"zz\r\n", b"0\r\n\r")
    )


def _damaged(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + random.choice((b"\x00", b"\r", b"\n", b"\xff", b" ", b":")) + data[at + 1 :]
