"""Logins that a broker refused: tried again after a while, and not by every question of every poll.

A wrong password that is sent twenty times a minute locks the account of whoever it belongs to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from kafka import errors

from monitor.kafka.tokens import TokenError

FIRST_WAIT_S: Final = 10.0
MAX_WAIT_S: Final = 300.0

_Address: TypeAlias = tuple[str, int]

_REFUSALS: Final = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.AuthorizationError,
    TokenError,
)


class _Refusal(NamedTuple):
    error: BaseException
    wait_s: float
    until: float


class Logins:
    """The refused logins by address: a bootstrap server and a broker may be the same.

    Used on the network thread only.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[_Address, _Refusal] = {}

    def check(self, address: _Address) -> None:
        """Raise what the broker refused us with, until it is time to try again."""
        refusal = self._refused.get(address)
        if refusal is not None and self._clock() < refusal.until:
            raise refusal.error

    def failed(self, address: _Address, error: BaseException) -> None:
        """Take in why there is no connection; all questions that waited for it bring the same."""
        before = self._refused.get(address)
        if not is_refusal(error) or (before is not None and before.error is error):
            return
        wait_s = FIRST_WAIT_S if before is None else min(MAX_WAIT_S, 2 * before.wait_s)
        self._refused[address] = _Refusal(error, wait_s, self._clock() + wait_s)

    def succeeded(self, address: _Address) -> None:
        """Forget what was refused before."""
        self._refused.pop(address, None)


def is_refusal(error: BaseException) -> bool:
    """Say whether the broker, or TLS, refused who we are; it is not away."""
    if isinstance(error, _REFUSALS):
        return True
    text = str(error)
    return "Handshake failed" in text and ("SSL" in text or "certificate" in text)
