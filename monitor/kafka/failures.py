"""Why a broker did not answer, in words."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Final

from kafka import errors

from monitor import every
from monitor.kafka.logins import is_refusal
from monitor.kafka.questions import Failure
from monitor.kafka.tokens import TokenError


class ThrottledError(Exception):
    """The broker enforces a quota on this client; it is not away."""


class SlowNameError(Exception):
    """The broker's name was not resolved in time."""

    def __init__(self) -> None:
        super().__init__("its name was not resolved in time")


class TooLargeError(Exception):
    """The reply is larger than kafka-python was told to take, and it closed the connection."""


class LostError(Exception):
    """The connection was closed because of another question's reply."""


_HERE: Final = Path(__file__).parent
# How kafka-python names what a broker does not know.
_PROTOCOL: Final = re.compile(r"the '(\w+?)(?:Request)?' Kafka protocol")

_SIGNS: Final = (
    ("ECONNREFUSED", "connection refused"),
    ("DNS", "the name does not resolve"),
    ("EHOSTUNREACH", "no route to host"),
    ("ENETUNREACH", "the network is unreachable"),
    ("Connection timed out", "timed out connecting"),
)
_UNKNOWN_AUTHORITY: Final = (
    "its certificate is of an authority that is not known here: name the authority's file by "
    "KAFKA_SSL_CAFILE"
)
# What OpenSSL says of a server's certificate.
_CERTIFICATES: Final = (
    ("certificate has expired", "its certificate has expired: renew it at the broker"),
    ("not yet valid", "its certificate is not valid yet: compare the clocks of both machines"),
    (
        "certificate is not valid for",
        "its certificate is for other names: connect to one that is in it, or issue it for this one",
    ),
    (
        "issuer certificate",
        _UNKNOWN_AUTHORITY,
    ),
    (
        "self-signed certificate",
        _UNKNOWN_AUTHORITY,
    ),
)
_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (errors.KafkaTimeoutError, "timed out: no answer"),
    (errors.RequestTimedOutError, "timed out: no answer"),
    (
        errors.UnsupportedSaslMechanismError,
        "it does not offer the SASL mechanism that KAFKA_SASL_MECHANISM names",
    ),
    (errors.KafkaProtocolError, "its answer is not Kafka's protocol"),
    (errors.IllegalSaslStateError, "it does not ask for SASL on this port"),
    (errors.NodeNotReadyError, "not connected since its last failure"),
)


def cause_of(error: BaseException) -> str:
    """Say in a few words why a broker did not answer; none of these messages holds a secret."""
    text = str(error)
    for sign, meaning in () if isinstance(error, TokenError) else _SIGNS:
        if sign in text:
            return meaning
    for kind, meaning in _KINDS:
        if isinstance(error, kind):
            return meaning
    if isinstance(error, errors.SaslAuthenticationFailedError):
        why = text.rpartition("Error: ")[2]  # kafka-python puts the kind before it, twice
        return f"the login was refused ({why}): see KAFKA_SASL_MECHANISM and what it logs in with"
    if "Handshake failed" in text:
        return _of_handshake(text.rpartition("Handshake failed: ")[2])
    if isinstance(error, errors.KafkaConnectionError):
        return "it closed the connection"
    return text or type(error).__name__  # a TokenError's says it all


def _of_handshake(text: str) -> str:
    """Say what is wrong with TLS, and what to do; `text` is OpenSSL's."""
    for sign, meaning in _CERTIFICATES:
        if sign in text:
            return f"{meaning} ({text})"
    return f"the TLS handshake failed ({text})"


def is_unclear(error: BaseException) -> bool:
    """Say whether something listens there that may want to be spoken to otherwise."""
    if isinstance(error, SlowNameError):
        return False
    text = str(error)
    if isinstance(error, errors.UnsupportedSaslMechanismError | errors.IllegalSaslStateError):
        return True
    if is_refusal(error):
        return "CERTIFICATE_VERIFY_FAILED" not in text and "SSL" in text
    if any(sign in text for sign, _ in _SIGNS):
        return False
    return isinstance(
        error, errors.KafkaConnectionError | errors.KafkaProtocolError | errors.KafkaTimeoutError
    )


def explain(error: BaseException) -> Failure:
    """Return the failure of a question; it says whether the broker itself is to blame."""
    if isinstance(error, errors.IncompatibleBrokerVersion):
        named = _PROTOCOL.search(str(error))
        return Failure(
            f"it does not know {named[1]}, or only older versions" if named else str(error)
        )
    if isinstance(error, ThrottledError):
        return Failure("it throttles this client: its quota is used up")
    if isinstance(error, TooLargeError):
        return Failure("its reply is too large", too_large=True)
    if isinstance(error, LostError):
        return Failure("the reply to another question was too large", lost=True)
    if isinstance(error, Exception) and _is_ours(error):
        return Failure(f"the monitor failed to ask: {every.cause_of(error)}", fault=error)
    return Failure(
        cause_of(error), broker_down=True, refused=is_refusal(error), unclear=is_unclear(error)
    )


def _is_ours(error: Exception) -> bool:
    """Say whether it was raised in code of ours, or while one of our questions was encoded.

    The broker is not to blame then, and not down.
    """
    if isinstance(error, (errors.KafkaError, OSError, SlowNameError, TokenError)):
        return False
    files = [Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(files) and (
        _HERE in files[-1].parents or any(file.parent == _HERE / "apis" for file in files)
    )
