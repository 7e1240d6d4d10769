"""What comes with the end of a connection is read, and then the end."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from monitor.kafka.connecting import ClosingSocket, connection_options
from monitor.settings import KafkaSettings

TLS = Path(__file__).parents[2] / "support" / "tls"


def read_until_blocked(connection: socket.socket) -> tuple[bytes, bool]:
    """Read as kafka-python does: return what came, and whether the connection ended with it."""
    read = b""
    while True:
        try:
            data = connection.recv(4_096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return read, False
        except OSError:
            return read, True
        if not data:
            return read, True
        read += data


@pytest.fixture
def plain() -> Iterator[tuple[socket.socket, socket.socket]]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        near = stack.enter_context(ClosingSocket("direct://").socket(socket.AF_INET))
        near.connect(listener.getsockname())
        far = stack.enter_context(listener.accept()[0])
        yield near, far


def test_a_reply_that_comes_with_the_end_is_read_before_the_end(
    plain: tuple[socket.socket, socket.socket],
) -> None:
    near, far = plain
    far.sendall(b"refused")
    far.close()
    near.setblocking(False)
    assert read_until_blocked(near) == (b"refused", False)
    assert read_until_blocked(near) == (b"", True)


def test_a_reply_that_comes_before_a_reset_is_read(
    plain: tuple[socket.socket, socket.socket],
) -> None:
    near, far = plain
    near.sendall(b"unread")
    far.sendall(b"refused")
    assert near.recv(4_096) == b"refused"
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    near.setblocking(False)
    ends = [read_until_blocked(near)[1] for _ in range(2)]
    assert ends[-1]


def test_an_open_connection_has_not_ended(plain: tuple[socket.socket, socket.socket]) -> None:
    near, far = plain
    near.setblocking(False)
    for _ in range(3):
        assert read_until_blocked(near) == (b"", False)
        far.sendall(b"more")
        near.setblocking(True)
        assert near.recv(4_096) == b"more"
        near.setblocking(False)


def test_a_reply_that_comes_with_the_end_over_tls_is_read_before_the_end() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(TLS / "one.pem")
    settings = KafkaSettings(
        security_protocol="SSL", ssl_cafile=TLS / "one.pem", ssl_check_hostname=False
    )
    client: ssl.SSLContext = connection_options(settings)["ssl_context"]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with server.wrap_socket(listener.accept()[0], server_side=True) as far:
                far.sendall(b"refused")
                with suppress(OSError):  # the other side does not say good-bye
                    far.unwrap()

        thread = threading.Thread(target=serve)
        thread.start()
        near = client.wrap_socket(socket.create_connection(listener.getsockname()))
        with near:
            while not near.pending():  # what came is decrypted, and its end is in the socket
                near.setblocking(True)
                first = near.recv(1)
            near.setblocking(False)
            read, ended = read_until_blocked(near)
            assert first + read == b"refused"
            assert not ended
            while not ended:
                more, ended = read_until_blocked(near)
                assert more == b""
        thread.join()
