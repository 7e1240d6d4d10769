"""Carries questions to brokers: the one module that knows kafka-python.

It uses kafka-python's message classes and its connection manager, and none of its clients: those
raise at the first group's error, ask brokers one after the other, and hide why a connection failed.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from kafka import errors
from kafka.future import Future
from kafka.net.inet import KafkaNetSocket
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.selector import NetworkSelector
from kafka.protocol.admin import (
    DescribeConfigsRequest,
    DescribeGroupsRequest,
    DescribeLogDirsRequest,
    ListGroupsRequest,
)
from kafka.protocol.api_message import ApiMessage
from kafka.protocol.consumer import ListOffsetsRequest, OffsetFetchRequest
from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest

from monitor.kafka import binary, messages, replies
from monitor.kafka.questions import (
    Ask,
    ClusterMetadata,
    DescribeClassicGroups,
    DescribeConsumerGroups,
    DescribeLogDirs,
    DescribeShareGroups,
    DescribeStreamsGroups,
    DescribeTopicConfigs,
    Failure,
    FetchCommits,
    FetchShareOffsets,
    FindCoordinators,
    FoundOffsets,
    GroupCommits,
    ListGroups,
    ListOffsets,
    Metadata,
    Question,
    UnreachableError,
)
from monitor.settings import KafkaSettings

CLIENT_ID: Final = "kafka-lag-monitor"
# A reply larger than this is a broker gone wrong: questions are batched far below it.
MAX_REPLY_BYTES: Final = 100_000_000
# How much longer than the others a broker that failed last time may take.
GRACE_S: Final = 0.1
# A broker that is back must be seen at the next poll, not after a client's usual 30 s.
MAX_RECONNECT_BACKOFF_S: Final = 1.0
# How often a connection that a quota has paused is looked at again.
PAUSE_CHECK_S: Final = 0.02
# The share of a question's time that the look-up of a name, or a quota's pause, may take: less than
# all of it, so that the cause is told and not just that time ran out.
PREPARATION_SHARE: Final = 0.9
# The first version that takes many groups in one request (KIP-709, KIP-699).
MANY_GROUPS: Final = 8
MANY_KEYS: Final = 4
# The last version that names topics; from 10 on topics have only ids.
LAST_WITH_TOPIC_NAMES: Final = 9

# kafka-python logs every lost connection with its trace; what happened is in our own failures.
_log = logging.getLogger("kafka")
_log.addHandler(logging.NullHandler())
_log.propagate = False
_log.setLevel(logging.CRITICAL + 1)


class _ThrottledError(Exception):
    """The broker enforces a quota on this client; it is not away."""


class _SlowNameError(Exception):
    """The broker's name was not resolved in time."""

    def __init__(self) -> None:
        super().__init__("its name was not resolved in time")


class OptionsError(ValueError):
    """Settings that kafka-python refuses; the message says which."""


class ConsumerGroupDescribeRequest(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """KIP-848's description of groups, which kafka-python lacks."""


class ConsumerGroupDescribeResponse(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The reply to it; found through kafka-python's registry by its API key."""


class ShareGroupDescribeRequest(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """KIP-932's description of groups, which kafka-python lacks."""


class ShareGroupDescribeResponse(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The reply to it."""


class DescribeShareGroupOffsetsRequest(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """KIP-932's start offsets and KIP-1226's lag, which kafka-python lacks."""


class DescribeShareGroupOffsetsResponse(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The reply to it."""


class StreamsGroupDescribeRequest(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """KIP-1071's description of groups, which kafka-python lacks."""


class StreamsGroupDescribeResponse(ApiMessage, load_json=messages):  # type: ignore[misc,call-arg]  # untyped base
    """The reply to it."""


class KafkaWire:
    """Connections to the brokers of one cluster.

    All network work is done by one background thread; `ask` may be called from one thread at a time.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._counts: Counter[str] = Counter()
        self._lookups: dict[tuple[str, int], Any] = {}
        options = connection_options(settings)
        self._net = NetworkSelector(client_id=CLIENT_ID, slow_task_threshold_secs=0)
        self._manager = KafkaConnectionManager(self._net, **options)
        self._net.start()

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        """Ask all bootstrap servers for their metadata, take the first that answers.

        Raises UnreachableError naming each address and its cause.
        """
        servers = self._manager.cluster.bootstrap_brokers()
        asks = [Ask(server.node_id, Metadata()) for server in servers]
        self.ask(asks, timeout_s)
        for server in servers:
            # they are asked once; from now on brokers are known by their ids
            self._net.call_soon_threadsafe(lambda node=server.node_id: self._manager.close(node))
        for ask in asks:
            if ask.answer is not None:
                return ask.answer
        raise UnreachableError(
            {
                _address(server): ask.failure.cause if ask.failure else "no answer"
                for server, ask in zip(servers, asks, strict=True)
            }
        )

    def ask(
        self,
        asks: Sequence[Ask[Any]],
        timeout_s: float,
        not_awaited: Collection[int] = (),
    ) -> None:
        """Send all questions, then await all replies and fill in answers or failures."""
        outcomes = self._manager.run(self._exchange, asks, timeout_s, not_awaited)
        for ask, outcome in zip(asks, outcomes, strict=True):
            self._settle(ask, outcome)

    def take_request_counts(self) -> dict[str, int]:
        """Return the requests sent since the last call, by API name."""
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
        return [outcomes[index] for index in range(len(asks))]

    async def _outcome(self, future: Any, deadline: float) -> list[Any] | BaseException:
        remaining_ms = max(0.0, deadline - time.monotonic()) * 1_000
        try:
            result: list[Any] = await self._manager.wait_for(future, remaining_ms)
        except Exception as error:  # noqa: BLE001  # any fault of one broker stays with that broker
            return error
        return result

    async def _send(self, ask: Ask[Any], deadline: float) -> list[Any]:
        node = ask.broker
        # kafka-python refuses a broker for ever after one failed login; a password may be repaired
        self._manager._auth_failures.pop(node, None)  # noqa: SLF001  # it has no public way
        if all(node != known.node_id for known in self._manager.least_used_connections()):
            await self._resolve(node, deadline)
        timeout_ms = max(1.0, (deadline - time.monotonic()) * 1_000)
        connection = self._manager.get_connection(
            # its own refresh would ask for all metadata again after every lost connection
            node,
            timeout_ms=timeout_ms,
            refresh_metadata_on_err=False,
        )
        await connection  # its API versions decide how the question is put
        requests = _REQUESTS[type(ask.question)](
            ask.question, connection.broker_version_data.api_version
        )
        patience = time.monotonic() + (deadline - time.monotonic()) * PREPARATION_SHARE
        while connection.paused:
            # after a throttled reply the broker reads nothing for a while, and kafka-python refuses
            if time.monotonic() >= patience:
                raise _ThrottledError
            await self._net.sleep(PAUSE_CHECK_S)
        timeout_ms = max(1.0, (deadline - time.monotonic()) * 1_000)
        futures = [connection.send_request(r, request_timeout_ms=timeout_ms) for r in requests]
        for request in requests:
            self._counts[request.name.removesuffix("Request")] += 1
        replied = [await future for future in futures]
        ask.answered_at = time.monotonic()
        return replied

    async def _resolve(self, node: int | str, deadline: float) -> None:
        """Have the broker's name looked up on a thread of its own; one that hangs, only once."""
        broker = self._manager.cluster.broker_metadata(node)
        if broker is None:
            return
        address = broker.host, broker.port
        if address not in self._lookups:
            self._lookups[address] = future = Future()

            def look_up() -> None:
                _look_up(*address)
                with contextlib.suppress(RuntimeError):  # the wire was closed in the meantime
                    self._net.call_soon_threadsafe(found)

            def found() -> None:
                del self._lookups[address]
                future.success(None)

            threading.Thread(target=look_up, name=f"resolve-{broker.host}", daemon=True).start()
        remaining_ms = (deadline - time.monotonic()) * 1_000 * PREPARATION_SHARE
        try:
            await self._manager.wait_for(self._lookups[address], remaining_ms)
        except errors.KafkaTimeoutError:
            raise _SlowNameError from None

    # -- on the caller's thread ---------------------------------------------------------------

    def _settle(self, ask: Ask[Any], outcome: list[Any] | BaseException) -> None:
        if isinstance(outcome, BaseException):
            ask.failure = self._explain(outcome)
            return
        try:
            answer = _ANSWERS[type(ask.question)](ask.question, outcome)
        except ValueError as error:
            ask.failure = Failure(str(error))
            return
        if isinstance(answer, Failure):
            ask.failure = answer
            return
        if isinstance(ask.question, Metadata):
            self._learn_addresses(outcome[0])
        ask.answer = answer

    def _learn_addresses(self, reply: Any) -> None:
        # only the brokers: kafka-python's own index of 10,000 partitions would cost as much as a poll
        reply.topics = []
        self._manager.run(self._manager.cluster.update_metadata, reply)

    def _explain(self, error: BaseException) -> Failure:
        if isinstance(error, errors.IncompatibleBrokerVersion):
            return Failure(str(error))
        if isinstance(error, _ThrottledError):
            return Failure("it throttles this client: its quota is used up")
        return Failure(cause_of(error), broker_down=True)


# Host and port -> what getaddrinfo said last; looked up before kafka-python would do it.
_ADDRESSES: Final[dict[tuple[str, int], list[Any]]] = {}


def _look_up(host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    _ADDRESSES[host, port] = found


class _ClosingSocket(KafkaNetSocket):  # type: ignore[misc]  # untyped base
    """Closes a socket that fails to connect; kafka-python leaves it to the garbage collector.

    It resolves no names either: that would hold up the one network thread, and with it all other
    brokers. It is chosen as proxies are, by the scheme of the proxy's URL.
    """

    SCHEMES = ("direct",)

    def dns_lookup(self, host: str, port: int, raise_error: bool = False) -> list[Any]:  # noqa: FBT001, FBT002, ARG002  # its signature
        return _ADDRESSES.get((host, port), [])

    async def sock_connect(
        self, net: Any, sock: Any, sockaddr: Any, timeout_at: float | None = None
    ) -> Any:
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return kafka-python's options for these settings; raises OptionsError."""
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": CLIENT_ID,
        "proxy_url": f"{_ClosingSocket.SCHEMES[0]}://",
        "security_protocol": settings.security_protocol,
        "receive_message_max_bytes": MAX_REPLY_BYTES,
        "reconnect_backoff_max_ms": MAX_RECONNECT_BACKOFF_S * 1_000,
        # kafka-python fails a request beyond this at once: old brokers get one request per group
        "max_in_flight_requests_per_connection": 1_000_000,
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = _tls_context(settings)
    if settings.sasl_mechanism == "GSSAPI" and find_spec("gssapi") is None:
        raise OptionsError("KAFKA_SASL_MECHANISM=GSSAPI needs the Python package gssapi")
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password
            and settings.sasl_password.get_secret_value(),
            "sasl_kerberos_service_name": settings.sasl_kerberos_service_name,
        }
        if settings.sasl_oauth_token_file is not None:
            options["sasl_oauth_token_provider"] = _TokenFile(settings.sasl_oauth_token_file)
    return options


def _tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except (OSError, ssl.SSLError):
        raise OptionsError(f"KAFKA_SSL_CAFILE={settings.ssl_cafile} holds no certificate") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_certfile is not None:
        password = settings.ssl_password.get_secret_value() if settings.ssl_password else ""
        try:
            # without a password, an encrypted key would have OpenSSL ask the terminal for one
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password=password)
        except (OSError, ssl.SSLError):
            raise OptionsError(
                "KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE and KAFKA_SSL_PASSWORD do not fit together"
            ) from None
    return context


class _TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # untyped base
    """Reads the OAuth token at each login: whoever renews it writes the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def token(self) -> str:
        return self._path.read_text(encoding="utf-8").strip()


# -- questions as requests: several where a broker is too old for one ------------------------------

_VersionOf = Callable[[Any], int]
_Decode = Callable[[bytes, int], binary.Decoded[Any]]


def _metadata_requests(_question: Metadata, _version_of: _VersionOf) -> list[Any]:
    return [MetadataRequest(topics=None, allow_auto_topic_creation=False)]


def _list_groups_requests(_question: ListGroups, _version_of: _VersionOf) -> list[Any]:
    return [ListGroupsRequest(states_filter=[], types_filter=[])]


def _describe_classic_requests(
    question: DescribeClassicGroups, _version_of: _VersionOf
) -> list[Any]:
    groups = list(question.groups)
    return [DescribeGroupsRequest(groups=groups, include_authorized_operations=False)]


def _describe_consumer_requests(
    question: DescribeConsumerGroups, _version_of: _VersionOf
) -> list[Any]:
    groups = list(question.groups)
    return [ConsumerGroupDescribeRequest(group_ids=groups, include_authorized_operations=False)]


def _describe_share_requests(question: DescribeShareGroups, _version_of: _VersionOf) -> list[Any]:
    groups = list(question.groups)
    return [ShareGroupDescribeRequest(group_ids=groups, include_authorized_operations=False)]


def _describe_streams_requests(
    question: DescribeStreamsGroups, _version_of: _VersionOf
) -> list[Any]:
    groups = list(question.groups)
    return [StreamsGroupDescribeRequest(group_ids=groups, include_authorized_operations=False)]


def _share_offsets_requests(question: FetchShareOffsets, _version_of: _VersionOf) -> list[Any]:
    named = DescribeShareGroupOffsetsRequest.DescribeShareGroupOffsetsRequestGroup
    return [
        DescribeShareGroupOffsetsRequest(
            groups=[named(group_id=group, topics=None) for group in question.groups]
        )
    ]


def _coordinator_requests(question: FindCoordinators, version_of: _VersionOf) -> list[Any]:
    if version_of(FindCoordinatorRequest) >= MANY_KEYS:
        return [FindCoordinatorRequest(key_type=0, coordinator_keys=list(question.groups))]
    return [
        FindCoordinatorRequest(key=group, key_type=0, max_version=MANY_KEYS - 1)
        for group in question.groups
    ]


def _commit_requests(question: FetchCommits, version_of: _VersionOf) -> list[Any]:
    version = min(version_of(OffsetFetchRequest), LAST_WITH_TOPIC_NAMES)
    if version >= MANY_GROUPS:
        body = binary.encode_offset_fetch(question.groups, version)
        return [_EncodedRequest(OffsetFetchRequest, version, body, binary.decode_offset_fetch)]
    return [
        OffsetFetchRequest(
            group_id=g,
            topics=None,
            require_stable=False,
            min_version=2,
            max_version=MANY_GROUPS - 1,
        )
        for g in question.groups
    ]


def _offsets_requests(question: ListOffsets, version_of: _VersionOf) -> list[Any]:
    version = version_of(ListOffsetsRequest)
    if question.encoded is None or question.encoded[0] != version:
        question.encoded = (version, _offsets_request(question).encode(version=version))
    decode = (
        binary.list_offsets_decoder(with_timestamps=_asks_for_times(question))
        if version in binary.LIST_OFFSETS_VERSIONS
        else None
    )
    return [_EncodedRequest(ListOffsetsRequest, *question.encoded, decode)]


def _offsets_request(question: ListOffsets) -> Any:
    topic_of = ListOffsetsRequest.ListOffsetsTopic
    partition_of = topic_of.ListOffsetsPartition
    return ListOffsetsRequest(
        replica_id=-1,
        isolation_level=int(question.read_committed),
        topics=[
            topic_of(
                name=topic,
                partitions=[
                    partition_of(partition_index=index, current_leader_epoch=-1, timestamp=at)
                    for index, at in partitions.items()
                ],
            )
            for topic, partitions in question.wanted.items()
        ],
    )


def _topic_configs_requests(question: DescribeTopicConfigs, _version_of: _VersionOf) -> list[Any]:
    resource = DescribeConfigsRequest.DescribeConfigsResource
    keys = [replies.RETENTION_MS, replies.RETENTION_BYTES, replies.CLEANUP_POLICY]
    return [
        DescribeConfigsRequest(
            resources=[
                resource(
                    resource_type=replies.TOPIC_RESOURCE,
                    resource_name=topic,
                    configuration_keys=keys,
                )
                for topic in question.topics
            ],
            include_synonyms=False,
            include_documentation=False,
        )
    ]


def _log_dirs_requests(_question: DescribeLogDirs, _version_of: _VersionOf) -> list[Any]:
    return [DescribeLogDirsRequest(topics=None)]


class _EncodedRequest:
    """A request whose body is bytes already; kafka-python adds only its header.

    With `decode`, its reply's body is read by that, from bytes and where the body begins.
    """

    def __init__(
        self, message: Any, version: int, body: bytes, decode: _Decode | None = None
    ) -> None:
        self.name = message.name
        self.API_VERSION = version
        self.header: Any = None
        self._body = body
        self._decode = decode
        self._empty = message(version=version)
        self._flexible = message.flexible_version_q(version)

    def with_header(self, correlation_id: int, client_id: str) -> None:
        self._empty.with_header(correlation_id=correlation_id, client_id=client_id)
        header = self._empty.header
        self.header = header if self._decode is None else _Awaited(header, self._decode)

    def encode(self, *, framed: bool, header: bool) -> bytes:
        assert framed and header  # noqa: S101, PT018  # how kafka-python sends every request
        head = self._empty.encode_header(flexible=self._flexible)
        return struct.pack(">i", len(head) + len(self._body)) + bytes(head) + self._body

    def expect_response(self) -> bool:
        return True


class _Awaited:
    """What kafka-python keeps of a request that it has sent, and reads its reply with."""

    def __init__(self, header: Any, decode: _Decode) -> None:
        self.correlation_id = header.correlation_id
        self._theirs = header.get_response_class()
        self._decode = decode

    def get_response_class(self) -> _Awaited:
        return self

    def parse_header(self, buffer: Any) -> Any:
        return self._theirs.parse_header(buffer)

    def decode(self, buffer: Any) -> binary.Decoded[Any]:
        return self._decode(bytes(buffer), buffer.tell())


# -- replies as answers ----------------------------------------------------------------------------


def _commits(question: FetchCommits, found: list[Any]) -> dict[str, GroupCommits]:
    if found and isinstance(found[0], binary.Decoded):
        answer: dict[str, GroupCommits] = found[0].answer
        return answer
    return {
        group: replies.read_group_commits(reply.topics, reply.error_code)
        for group, reply in zip(question.groups, found, strict=True)
    }


def _coordinators(question: FindCoordinators, found: list[Any]) -> dict[str, int]:
    if found and found[0].API_VERSION >= MANY_KEYS:
        return replies.read_coordinators(found[0].coordinators)
    return {
        group: reply.node_id
        for group, reply in zip(question.groups, found, strict=True)
        if not reply.error_code and reply.node_id >= 0
    }


def _asks_for_times(question: ListOffsets) -> bool:
    return any(at >= 0 for times in question.wanted.values() for at in times.values())


def _offsets(question: ListOffsets, found: list[Any]) -> FoundOffsets:
    if isinstance(found[0], binary.Decoded):
        answer: FoundOffsets = found[0].answer
        return answer
    return replies.read_offsets(found, with_timestamps=_asks_for_times(question))


_REQUESTS: Final[dict[type[Question[Any]], Callable[[Any, _VersionOf], list[Any]]]] = {
    Metadata: _metadata_requests,
    ListGroups: _list_groups_requests,
    DescribeClassicGroups: _describe_classic_requests,
    DescribeConsumerGroups: _describe_consumer_requests,
    DescribeShareGroups: _describe_share_requests,
    DescribeStreamsGroups: _describe_streams_requests,
    FetchShareOffsets: _share_offsets_requests,
    FindCoordinators: _coordinator_requests,
    FetchCommits: _commit_requests,
    ListOffsets: _offsets_requests,
    DescribeTopicConfigs: _topic_configs_requests,
    DescribeLogDirs: _log_dirs_requests,
}

_ANSWERS: Final[dict[type[Question[Any]], Callable[[Any, list[Any]], Any]]] = {
    Metadata: lambda _, found: replies.read_metadata(found[0]),
    ListGroups: lambda _, found: replies.read_groups(found[0]),
    DescribeClassicGroups: lambda _, found: replies.read_classic_descriptions(found[0]),
    DescribeConsumerGroups: lambda _, found: replies.read_consumer_descriptions(found[0]),
    DescribeShareGroups: lambda _, found: replies.read_share_descriptions(found[0]),
    DescribeStreamsGroups: lambda _, found: replies.read_streams_descriptions(found[0]),
    FetchShareOffsets: lambda _, found: replies.read_share_offsets(found[0]),
    FindCoordinators: _coordinators,
    FetchCommits: _commits,
    ListOffsets: _offsets,
    DescribeTopicConfigs: lambda _, found: replies.read_topic_configs(found[0]),
    DescribeLogDirs: lambda _, found: replies.read_log_dirs(found[0]),
}


def _address(server: Any) -> str:
    return (
        f"[{server.host}]:{server.port}" if ":" in server.host else f"{server.host}:{server.port}"
    )


# -- failures in words -----------------------------------------------------------------------------

_SIGNS: Final = (
    ("ECONNREFUSED", "connection refused"),
    ("DNS", "the name does not resolve"),
    ("EHOSTUNREACH", "no route to host"),
    ("ENETUNREACH", "the network is unreachable"),
    ("Connection timed out", "timed out connecting"),
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
    for sign, meaning in _SIGNS:
        if sign in text:
            return meaning
    for kind, meaning in _KINDS:
        if isinstance(error, kind):
            return meaning
    if isinstance(error, errors.SaslAuthenticationFailedError):
        return f"the login was refused ({text.rpartition(': ')[2]})"
    if "Handshake failed" in text:
        return f"the TLS handshake failed ({text.rpartition('Handshake failed: ')[2]})"
    if isinstance(error, errors.KafkaConnectionError):
        return "it closed the connection"
    return text or type(error).__name__
