"""Fatal errors on demand: librdkafka has a function for it, which the Python client does not offer."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka
from confluent_kafka import Consumer, Producer


def raise_fatal(client: Consumer | Producer, code: int) -> None:
    """Have a client meet the fatal error `code`, as from a broker."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    (library,) = folder.glob("librdkafka*")
    test_fatal_error = ctypes.CDLL(str(library)).rd_kafka_test_fatal_error
    test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    # the handle is the first field of the client's object
    handle = ctypes.c_void_p.from_address(id(client) + object.__basicsize__)
    assert test_fatal_error(handle, code, b"on purpose") == 0, "it has met one before"
