from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_services.runtime.plain import PlainRequest, plain_request

WANTED = {("POST", "/orders")}
HEAD = b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\nX-Trace:  a b \r\n\r\n"


def parsed(data: bytes) -> PlainRequest | None:
    return plain_request(data, WANTED, max_head=200, max_body=10)


def test_a_whole_plain_request_is_taken_and_what_follows_it_is_not() -> None:
    assert parsed(HEAD + b"bodyPOST /next") == PlainRequest(
        "POST",
        "/orders",
        {"host": "shop", "content-length": "4", "x-trace": "a b"},
        b"body",
        len(HEAD) + 4,
    )


@given(st.integers(0, len(HEAD) - 1))
def test_a_part_of_a_head_is_never_taken(arrived: int) -> None:
    assert parsed(HEAD[:arrived]) is None


@given(st.integers(0, 3))
def test_a_request_says_how_much_of_it_is_still_to_come(arrived: int) -> None:
    request = parsed(HEAD + b"body"[:arrived])
    assert request is not None
    assert request.size == len(HEAD) + 4


def with_lines(*lines: bytes, first: bytes = b"POST /orders HTTP/1.1") -> bytes:
    return b"\r\n".join((first, b"Host: shop", *lines, b"", b"body"))


@pytest.mark.parametrize(
    "data",
    [
        with_lines(b"Content-Length: 4", first=b"POST /others HTTP/1.1"),
        with_lines(b"Content-Length: 4", first=b"POST /orders?x=1 HTTP/1.1"),
        with_lines(b"Content-Length: 4", first=b"PUT /orders HTTP/1.1"),
        with_lines(b"Content-Length: 4", first=b"POST /orders HTTP/1.0"),
        with_lines(b"Content-Length: 4", first=b"POST http://shop/orders HTTP/1.1"),
        with_lines(b"Content-Length: 4", first=b"POST  /orders HTTP/1.1"),
        with_lines(),
        with_lines(b"Content-Length: 4", b"Content-Length: 4"),
        with_lines(b"Content-Length: 4", b"content-length: 2"),
        with_lines(b"Content-Length: +4"),
        with_lines(b"Content-Length: 4, 4"),
        with_lines("Content-Length: \N{SUPERSCRIPT FOUR}".encode("latin-1", "replace")),
        with_lines(b"Content-Length: 11"),
        with_lines(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
        with_lines(b"Content-Length: 4", b"transfer-encoding: identity"),
        with_lines(b"Content-Length: 4", b"Expect: 100-continue"),
        with_lines(b"Content-Length: 4", b"Upgrade: websocket"),
        with_lines(b"Content-Length: 4", b"Connection: close"),
        with_lines(b"Content-Length: 4", b" folded"),
        with_lines(b"Content-Length : 4"),
        with_lines(b"Content-Length: 4", b"no colon"),
        with_lines(b"Content-Length: 4", b": no name"),
        with_lines(b"Content-Length: 4", b"X: \x00"),
        with_lines(b"Content-Length: 4", b"X: \xff"),
        with_lines(b"Content-Length: 4", b"X: a\nTransfer-Encoding: chunked"),
        with_lines(b"Content-Length: 4", b"X: a\rTransfer-Encoding: chunked"),
        with_lines(b"Content-Length: 4", b"X: " + b"x" * 200),
    ],
)
def test_what_is_not_plain_is_left_to_the_full_parser(data: bytes) -> None:
    assert parsed(data) is None


def test_a_client_that_asks_to_keep_the_connection_is_plain() -> None:
    assert parsed(with_lines(b"Content-Length: 4", b"Connection: Keep-Alive")) is not None
