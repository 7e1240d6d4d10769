from __future__ import annotations

import pytest
from kafka import errors

from monitor.kafka.logins import FIRST_WAIT_S, MAX_WAIT_S, Logins

ADDRESS = ("one", 9092)


class Broker:
    """Refuses logins until it does not; counts those that were tried, one try a second."""

    def __init__(self, refusal: Exception) -> None:
        self.now = 0.0
        self.logins = Logins(lambda: self.now)
        self.refusal: Exception | None = refusal
        self.tried: list[float] = []

    def ask(self, questions: int = 4) -> BaseException | None:
        """Connect, for several questions at once, and return why that failed."""
        try:
            self.logins.check(ADDRESS)
        except Exception as known:  # noqa: BLE001  # whatever it was
            return known
        self.tried.append(self.now)
        if self.refusal is None:
            self.logins.succeeded(ADDRESS)
            return None
        error = type(self.refusal)(*self.refusal.args)
        for _ in range(questions):
            self.logins.failed(ADDRESS, error)
        return error


REFUSALS = [
    errors.SaslAuthenticationFailedError("SaslAuthenticationFailed: Invalid username or password"),
    errors.UnsupportedSaslMechanismError(),
    errors.ClusterAuthorizationFailedError(),
    errors.KafkaConnectionError(
        "Handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda r: type(r).__name__)
def test_a_refused_login_is_tried_again_after_waits_that_double_up_to_five_minutes(
    refusal: Exception,
) -> None:
    broker = Broker(refusal)
    for second in range(3_600):
        broker.now = float(second)
        assert isinstance(broker.ask(), type(refusal))  # the cause is told every time
    waits = [later - tried for tried, later in zip(broker.tried, broker.tried[1:], strict=False)]
    assert waits[:6] == [FIRST_WAIT_S * 2**n for n in range(5)] + [MAX_WAIT_S]
    assert set(waits[5:]) == {MAX_WAIT_S}


def test_a_login_that_works_again_starts_anew() -> None:
    broker = Broker(REFUSALS[0])
    for second in range(100):
        broker.now = float(second)
        broker.ask()
    broker.refusal = None
    broker.now += MAX_WAIT_S
    assert broker.ask() is None
    broker.refusal = REFUSALS[0]
    broker.ask()
    broker.now += FIRST_WAIT_S
    tried = len(broker.tried)
    broker.ask()
    assert len(broker.tried) == tried + 1


@pytest.mark.parametrize(
    "failure",
    [
        errors.KafkaConnectionError("ECONNREFUSED"),
        errors.KafkaTimeoutError("timed out"),
        errors.KafkaConnectionError("Handshake failed: connection reset"),
    ],
)
def test_a_broker_that_is_away_is_tried_at_every_poll(failure: Exception) -> None:
    broker = Broker(failure)
    for _ in range(5):
        assert broker.ask() is not None
    assert len(broker.tried) == 5
