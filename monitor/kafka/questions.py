"""A question to a broker, what comes of it, and what puts it: the seam between collector and wire.

What can be asked is in `apis`, one Kafka API a file. The collector builds questions and reads answers;
the transport alone knows how they travel. A test puts a fake in the place of the transport.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

Answer = TypeVar("Answer")

VersionOf: TypeAlias = Callable[..., int]
"""What version of a request the broker and kafka-python both know, from a lowest one on."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a question has no answer; `broker_down` when the broker itself did not answer.

    `refused` says that it could be reached, and refused our login or our certificate; `unclear` that
    something listens there, and may want to be spoken to otherwise. `too_large` is a reply that is larger than one may be: less is to be asked for at once. It costs the connection,
    and so the questions that were under way on it: they are `lost`. `fault` is what was raised where
    the broker is not to blame: a fault of our own.
    """

    cause: str
    broker_down: bool = False
    refused: bool = False
    unclear: bool = False
    too_large: bool = False
    lost: bool = False
    fault: Exception | None = None


class Question(ABC, Generic[Answer]):
    """One question of one API to one broker; the type parameter is its answer's type."""

    __slots__ = ()

    @abstractmethod
    def requests(self, version_of: VersionOf) -> list[Any]:
        """Return the requests to send: several where a broker is too old for one.

        They are kafka-python's messages, or `EncodedRequest`s.
        """

    @abstractmethod
    def read(self, replies: Sequence[Any]) -> Answer | Failure:
        """Return what the replies to `requests` say, in their order; raises ValueError.

        They are kafka-python's messages, or `Reply`s.
        """


@dataclass(slots=True)
class Ask(Generic[Answer]):
    """A question to a broker, and after the exchange its answer or its failure.

    `answered_at` is when the answer came, in seconds of the monotonic clock.
    """

    broker: int
    question: Question[Answer]
    answer: Answer | None = None
    failure: Failure | None = None
    answered_at: float = 0.0
