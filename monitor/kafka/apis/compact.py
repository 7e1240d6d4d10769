"""Kafka's compact ("flexible") encoding, KIP-482: lengths, names, tagged fields.

Where bytes end too early, readers raise IndexError or struct.error.
Names are interned: 2,000 groups that read one topic share one string.
"""

from __future__ import annotations

import struct
import sys
from typing import Final

INT32: Final = struct.Struct(">i")
INT16: Final = struct.Struct(">h")
NO_TAGS: Final = b"\x00"
NULL: Final = b"\x00"


def encode_varint(value: int) -> bytes:
    """Encode an unsigned number, seven bits a byte, lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_name(text: str) -> bytes:
    """Encode a string."""
    encoded = text.encode()
    return encode_varint(len(encoded) + 1) + encoded


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number; like all readers here, return where the next field begins, too."""
    value = shift = 0
    while (byte := data[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """Read the length of a string or array, which is stored plus one; null is read as empty."""
    value = data[at]
    if value < 0x80:  # nearly all are short
        return (value - 1 if value else 0), at + 1
    value, at = read_varint(data, at)
    return value - 1, at


def read_name(data: bytes, at: int) -> tuple[str, int]:
    """Read a string; null is read as empty."""
    length, at = read_length(data, at)
    end = at + length
    if end > len(data):
        raise IndexError
    return sys.intern(data[at:end].decode()), end


def skip_tags(data: bytes, at: int) -> int:
    """Return what comes after the fields that a later broker has added."""
    if not data[at]:
        return at + 1
    count, at = read_varint(data, at)
    for _ in range(count):
        _, at = read_varint(data, at)
        size, at = read_varint(data, at)
        at += size
    return at
