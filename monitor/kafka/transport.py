"""Sends questions over the connections to all brokers, and awaits their replies.

It uses kafka-python's message classes and its connection manager, and none of its clients: those
raise at the first group's error, ask brokers one after the other, and hide why a connection failed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from kafka import errors
from kafka.future import Future
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.metadata import MetadataResponse

from monitor.every import cause_of
from monitor.kafka.apis.metadata import ClusterMetadata, Metadata
from monitor.kafka.brokers import GRACE_S, UnreachableError
from monitor.kafka.connecting import CLIENT_ID, connection_options, resolve
from monitor.kafka.diagnose import Diagnoses
from monitor.kafka.failures import (
    LostError,
    SlowNameError,
    ThrottledError,
    TooLargeError,
    explain,
)
from monitor.kafka.logins import Logins
from monitor.kafka.questions import Ask, Failure
from monitor.kafka.tokens import TokenError, of_settings
from monitor.settings import KafkaSettings

# kafka-python logs every lost connection with its trace; what happened is in our own failures.
_log = logging.getLogger("kafka")
_log.addHandler(logging.NullHandler())
_log.propagate = False
_log.setLevel(logging.CRITICAL + 1)

# How often a connection that a quota has paused is looked at again.
PAUSE_CHECK_S: Final = 0.02
# The share of a question's time that the look-up of a name, or a quota's pause, may take: less than
# all of it, so that the cause is told and not just that time ran out.
PREPARATION_SHARE: Final = 0.9


class KafkaWire:
    """Connections to the brokers of one cluster.

    All network work is done by one background thread; `ask` may be called from one thread at a time.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        # both threads use these two
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._recovered: set[int] = set()
        self._logins = Logins()
        self._failed: dict[tuple[str, int], Exception] = {}
        self._under_way: dict[str, Any] = {}
        # a connection that was closed for one reply fails all its questions with that error
        self._blamed: BaseException | None = None
        self._tokens = of_settings(settings)
        options = connection_options(settings, self._tokens)
        self._diagnoses = Diagnoses(options.get("ssl_context"), logs_in="sasl_mechanism" in options)
        self._net = NetworkSelector(client_id=CLIENT_ID, slow_task_threshold_secs=0)
        self._manager = KafkaConnectionManager(self._net, **options)
        self._net.start()

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        """Ask all bootstrap servers for their metadata, return with the first that answers.

        Raises UnreachableError naming each address and its cause.
        """
        servers = self._manager.cluster.bootstrap_brokers()
        asks = [Ask(server.node_id, Metadata()) for server in servers]
        self._manager.run(self._first_answer, asks, timeout_s)
        for server in servers:
            # they are asked once; from now on brokers are known by their ids
            self._net.call_soon_threadsafe(lambda node=server.node_id: self._manager.close(node))
        for server, ask in zip(servers, asks, strict=True):
            if ask.answer is not None:
                self._learn_addresses(ask.answer)
                return replace(ask.answer, bootstrap=_address(server))
        failures = {
            _address(server): ask.failure or Failure("no answer")
            for server, ask in zip(servers, asks, strict=True)
        }
        raise UnreachableError(self._diagnoses.causes(failures))

    def ask(
        self,
        asks: Sequence[Ask[Any]],
        timeout_s: float,
        not_awaited: Collection[int] = (),
    ) -> None:
        """Send all questions, then await all replies and fill in answers or failures."""
        if self._tokens is not None and self._tokens.is_due:
            # before it ends: brokers ask those who are connected to log in anew
            threading.Thread(target=self._renew, name="token", daemon=True).start()
        outcomes = self._manager.run(self._exchange, asks, timeout_s, not_awaited)
        for ask, outcome in zip(asks, outcomes, strict=True):
            self._settle(ask, outcome)
            if isinstance(ask.answer, ClusterMetadata):
                self._learn_addresses(ask.answer)

    def take_recovered(self) -> frozenset[int]:
        """Return the brokers whose answer came when nobody waited any longer, since the last call."""
        with self._lock:
            recovered, self._recovered = self._recovered, set()
        return frozenset(recovered)

    def take_request_counts(self) -> dict[str, int]:
        """Return the requests sent since the last call, by API name."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(counts)

    def close(self) -> None:
        """Close all connections and end the network thread."""
        with contextlib.suppress(RuntimeError, errors.KafkaError):
            self._manager.run(self._manager.close)
        self._net.stop(timeout_ms=1_000)
        self._net.close()

    # -- on the network thread ----------------------------------------------------------------

    async def _exchange(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int]
    ) -> list[list[Any] | BaseException]:
        deadline = time.monotonic() + timeout_s
        sent = [self._manager.call_soon(self._send, ask, deadline) for ask in asks]
        outcomes: dict[int, list[Any] | BaseException] = {}
        patient = [i for i, ask in enumerate(asks) if ask.broker not in not_awaited]
        hurried = [i for i, ask in enumerate(asks) if ask.broker in not_awaited]
        for index in patient:
            outcomes[index] = await self._outcome(sent[index], deadline)
        if patient:
            deadline = min(deadline, time.monotonic() + GRACE_S)
        for index in hurried:
            outcomes[index] = await self._outcome(sent[index], deadline)
            if not sent[index].is_done:
                sent[index].add_callback(self._note_recovery, asks[index].broker)
        return [outcomes[index] for index in range(len(asks))]

    def _note_recovery(self, broker: int, _outcome: Any) -> None:
        with self._lock:
            self._recovered.add(broker)

    async def _first_answer(self, asks: Sequence[Ask[Any]], timeout_s: float) -> None:
        """Send all, and return when one has an answer or all have failed."""
        ended = Future()
        left = set(range(len(asks)))

        async def follow(index: int) -> None:
            deadline = time.monotonic() + timeout_s
            sent = self._manager.call_soon(self._send, asks[index], deadline)
            outcome = await self._outcome(sent, deadline)
            if ended.is_done:
                return
            self._settle(asks[index], outcome)
            left.discard(index)
            if asks[index].answer is not None or not left:
                ended.success(None)

        for index in range(len(asks)):
            self._manager.call_soon(follow, index)
        await ended

    async def _outcome(self, future: Any, deadline: float) -> list[Any] | BaseException:
        remaining_ms = max(0.0, deadline - time.monotonic()) * 1_000
        try:
            result: list[Any] = await self._manager.wait_for(future, remaining_ms)
        except Exception as error:  # noqa: BLE001  # any fault of one broker stays with that broker
            return error
        return result

    async def _send(self, ask: Ask[Any], deadline: float) -> list[Any]:
        connection = await self._connection(ask.broker, deadline)
        # its API versions decide how the question is put
        requests = ask.question.requests(connection.broker_version_data.api_version)
        patience = time.monotonic() + (deadline - time.monotonic()) * PREPARATION_SHARE
        while connection.paused:
            # after a throttled reply the broker reads nothing for a while, and kafka-python refuses
            if time.monotonic() >= patience:
                raise ThrottledError
            await self._net.sleep(PAUSE_CHECK_S)
        timeout_ms = max(1.0, (deadline - time.monotonic()) * 1_000)
        futures = [connection.send_request(r, request_timeout_ms=timeout_ms) for r in requests]
        with self._lock:
            self._counts.update(request.name.removesuffix("Request") for request in requests)
        try:
            replied = [await future for future in futures]
        except errors.InvalidReceiveError as error:
            # all questions of the connection fail with it, the one that it was the reply to first
            blamed, self._blamed = self._blamed, error
            raise (LostError if blamed is error else TooLargeError) from error
        ask.answered_at = time.monotonic()
        return replied

    async def _connection(self, node: int | str, deadline: float) -> Any:
        broker = self._manager.cluster.broker_metadata(node)
        address: tuple[str, int] = (broker.host, broker.port) if broker is not None else ("", 0)
        self._logins.check(address)
        # kafka-python refuses a broker for ever after one failed login; a password may be repaired
        self._manager._auth_failures.pop(node, None)  # noqa: SLF001  # it has no public way
        if all(node != known.node_id for known in self._manager.least_used_connections()):
            await self._resolve(address, deadline)
            if self._tokens is not None and not self._tokens.is_good:
                await self._aside("token", self._renew, deadline, TokenError("it takes too long"))
                if (failure := self._tokens.failure) is not None:
                    raise failure
        timeout_ms = max(1.0, (deadline - time.monotonic()) * 1_000)
        connection = self._manager.get_connection(
            # its own refresh would ask for all metadata again after every lost connection
            node,
            timeout_ms=timeout_ms,
            refresh_metadata_on_err=False,
        )
        try:
            await connection
        except errors.NodeNotReadyError as error:
            # kafka-python waits a moment before it connects anew: why is as it was
            raise self._failed.get(address, error) from None
        except Exception as error:
            self._failed[address] = error
            self._logins.failed(address, error)
            raise
        self._failed.pop(address, None)
        self._logins.succeeded(address)
        return connection

    async def _resolve(self, address: tuple[str, int], deadline: float) -> None:
        """Have the broker's name looked up."""
        await self._aside(
            f"resolve-{address}", lambda: resolve(*address), deadline, SlowNameError()
        )

    async def _aside(
        self, name: str, work: Callable[[], None], deadline: float, too_slow: Exception
    ) -> None:
        """Have work that waits done on a thread of its own; what hangs is begun only once."""
        if name not in self._under_way:
            self._under_way[name] = future = Future()

            def run() -> None:
                try:
                    work()
                finally:
                    with contextlib.suppress(RuntimeError):  # the wire was closed in the meantime
                        self._net.call_soon_threadsafe(done)

            def done() -> None:
                del self._under_way[name]
                future.success(None)

            threading.Thread(target=run, name=name, daemon=True).start()
        remaining_ms = (deadline - time.monotonic()) * 1_000 * PREPARATION_SHARE
        try:
            await self._manager.wait_for(self._under_way[name], remaining_ms)
        except errors.KafkaTimeoutError:
            raise too_slow from None

    def _renew(self) -> None:
        if self._tokens is not None:
            self._tokens.renew()

    # -- on either thread ---------------------------------------------------------------------

    def _settle(self, ask: Ask[Any], outcome: list[Any] | BaseException) -> None:
        if isinstance(outcome, BaseException):
            ask.failure = explain(outcome)
            return
        try:
            answer = ask.question.read(outcome)
        except ValueError as error:
            ask.failure = Failure(str(error))
            return
        except Exception as error:  # noqa: BLE001  # one answer must not cost the whole poll
            cause = f"its answer was not understood: {cause_of(error)}"
            ask.failure = Failure(cause, fault=error)
            return
        if isinstance(answer, Failure):
            ask.failure = answer
            return
        ask.answer = answer

    # -- on the caller's thread ---------------------------------------------------------------

    def _learn_addresses(self, found: ClusterMetadata) -> None:
        # only the brokers: kafka-python's own index of 10,000 partitions would cost as much as a poll
        broker, version = MetadataResponse.MetadataResponseBroker, MetadataResponse.max_version
        told = MetadataResponse(
            brokers=[
                broker(b.id, b.host, b.port, b.rack, version=version)
                for b in found.brokers.values()
            ],
            cluster_id=found.cluster_id,
            controller_id=-1 if found.controller is None else found.controller,
            topics=[],
            version=version,
        )
        self._manager.run(self._manager.cluster.update_metadata, told)


def _address(server: Any) -> str:
    return (
        f"[{server.host}]:{server.port}" if ":" in server.host else f"{server.host}:{server.port}"
    )
