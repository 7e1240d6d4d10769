"""Carries what one replica has committed to the clients of every replica.

With REDIS_URL the replicas tell each other over Redis' publish and subscribe, and it does not matter
which of them a client is connected to. Without it a client sees the events of its own replica only:
run one replica, or accept that (the totals are everybody's either way: they come from the database).
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final, Protocol

import orjson
import structlog

from order_services.domain.events import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

CHANNEL: Final = "order-services.events"
# About ten seconds of batches at full load; Redis was away for longer when they are lost.
MAX_WAITING: Final = 1_000
SOCKET_TIMEOUT_SECONDS: Final = 2.0
HEALTH_CHECK_SECONDS: Final = 10
LISTEN_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 1.0
STOP_SECONDS: Final = 3.0

_log = structlog.get_logger(__name__)


class EventBus(Protocol):
    """Delivers each published message to every subscriber of every replica.

    Delivery is best effort: a client that missed something reads the numbers from the database.
    `reaches_others` says whether other replicas are told, whose clients nobody here knows of.
    """

    reaches_others: bool

    def publish(self, messages: Sequence[str]) -> None:
        """Hand over messages (JSON texts) whose events are committed; does not wait."""

    def subscribe(self, receive: Callable[[Sequence[str]], None]) -> None:
        """Call `receive` with the messages of each publication, in order; it must not block."""

    def close(self) -> None:
        """Deliver nothing more."""


class LocalBus:
    """The bus within one process: enough where clients stick to the only replica."""

    reaches_others = False

    def __init__(self) -> None:
        self._receivers: list[Callable[[Sequence[str]], None]] = []

    def publish(self, messages: Sequence[str]) -> None:
        """Hand the messages to each subscriber on the caller's thread."""
        for receive in self._receivers:
            receive(messages)

    def subscribe(self, receive: Callable[[Sequence[str]], None]) -> None:
        """Add a subscriber."""
        self._receivers.append(receive)

    def close(self) -> None:
        """Forget all subscribers."""
        self._receivers.clear()


class RedisBus:
    """The bus between replicas.

    A replica's own messages take the short way and are passed over when they come back, so clients
    see them once, also while Redis is away; then those of the other replicas are missed. Neither a
    slow nor an absent Redis holds up the caller.
    """

    reaches_others = True

    def __init__(self, url: str, channel: str = CHANNEL) -> None:
        self._channel = channel
        self._origin = new_id()
        self._local = LocalBus()
        self._waiting: queue.Queue[bytes] = queue.Queue(MAX_WAITING)
        self._closed = threading.Event()
        self._connected = threading.Event()
        # one connection for each thread: a subscription occupies its own
        self._sender, self._listener = _client(url), _client(url)
        self._threads = [
            threading.Thread(target=self._send, name="bus-send", daemon=True),
            threading.Thread(target=self._listen, name="bus-listen", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def publish(self, messages: Sequence[str]) -> None:
        """Hand the messages to this replica's subscribers, and to the thread that sends them."""
        if not messages or self._closed.is_set():
            return
        self._local.publish(messages)
        try:
            self._waiting.put_nowait(orjson.dumps({"origin": self._origin, "messages": messages}))
        except queue.Full:
            # the newest are dropped: those that wait are in order
            _log.warning("bus full", dropped_messages=len(messages))

    def subscribe(self, receive: Callable[[Sequence[str]], None]) -> None:
        """Add a subscriber."""
        self._local.subscribe(receive)

    def wait_until_connected(self, timeout_seconds: float) -> bool:
        """Wait until other replicas' messages are received; False when that took too long."""
        return self._connected.wait(timeout_seconds)

    def close(self) -> None:
        """End both threads and forget all subscribers; what was not sent is lost."""
        self._closed.set()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        self._local.close()
        self._sender.close()
        self._listener.close()

    def _send(self) -> None:
        while not self._closed.is_set():
            try:
                data = self._waiting.get(timeout=LISTEN_SECONDS)
            except queue.Empty:
                continue
            try:
                self._sender.publish(self._channel, data)
            except _errors() as error:
                self._wait_for_redis("send", error)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                subscriptions = self._listener.pubsub()  # type: ignore[no-untyped-call]  # has no types
                with subscriptions as subscription:
                    subscription.subscribe(self._channel)
                    while not self._closed.is_set():
                        received = subscription.get_message(timeout=LISTEN_SECONDS)
                        if received is None:
                            continue
                        if received["type"] == "subscribe":
                            self._connected.set()
                        elif received["type"] == "message":
                            self._deliver(received["data"])
            except _errors() as error:
                self._connected.clear()
                self._wait_for_redis("listen", error)

    def _deliver(self, data: bytes) -> None:
        try:
            body = orjson.loads(data)
            origin, messages = body["origin"], [str(message) for message in body["messages"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            _log.warning("bus carries what is none of ours", channel=self._channel)
            return
        if origin != self._origin:
            self._local.publish(messages)

    def _wait_for_redis(self, doing: str, error: Exception) -> None:
        # the error's text may name host and user
        _log.warning("redis away", doing=doing, error=type(error).__name__)
        self._closed.wait(RETRY_SECONDS)


def make_bus(redis_url: str) -> EventBus:
    """Return the bus that the settings ask for."""
    return RedisBus(redis_url) if redis_url else LocalBus()


def _client(url: str) -> Redis:
    from redis import Redis  # noqa: PLC0415  # optional: the settings refuse REDIS_URL without it

    return Redis.from_url(
        url,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        # a listener whose Redis vanished without a word would wait for ever
        health_check_interval=HEALTH_CHECK_SECONDS,
    )


def _errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError  # noqa: PLC0415  # see _client

    return (RedisError, OSError)
