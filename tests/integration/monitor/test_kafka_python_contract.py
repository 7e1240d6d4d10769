"""What the wire relies on in kafka-python: an upgrade that changes it must fail here first."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import zipfile
from importlib.resources import files
from typing import Any

import pytest
from kafka.net.connection import KafkaConnection
from kafka.net.inet import KafkaNetSocket
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.api_header import ResponseClassRegistry
from kafka.protocol.consumer import ListOffsetsRequest, OffsetFetchRequest
from kafka.protocol.metadata import FindCoordinatorRequest

from monitor.kafka.apis import messages
from monitor.kafka.apis.describe_groups import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
)
from monitor.kafka.apis.list_offsets import EARLIEST, LATEST, ListOffsets
from monitor.kafka.connecting import ClosingSocket
from monitor.kafka.encoded import EncodedRequest
from order_services.local.kafka import classpath

OUR_MESSAGES = sorted(
    path.name for path in files(messages).iterdir() if path.name.endswith(".json")
)
# what a schema says beyond the bytes
REMARKS = {"about", "entityType", "listeners", "ignorable", "latestVersionUnstable"}


def _bytes_of(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _bytes_of(value) for name, value in schema.items() if name not in REMARKS}
    return [_bytes_of(part) for part in schema] if isinstance(schema, list) else str(schema)


@pytest.mark.parametrize("name", OUR_MESSAGES)
def test_the_messages_that_we_declare_are_those_of_the_broker(name: str) -> None:
    (jar,) = (path for path in classpath().split(os.pathsep) if "/kafka-clients-" in path)
    with zipfile.ZipFile(jar) as archive:
        theirs = archive.read(f"common/message/{name}").decode()
    ours = (files(messages) / name).read_text(encoding="utf-8")
    assert _bytes_of(json.loads(ours)) == _bytes_of(
        json.loads(re.sub(r"^\s*//.*$", "", theirs, flags=re.MULTILINE))
    )


def test_messages_that_it_lacks_can_be_declared_and_are_found_by_their_api_key() -> None:
    assert ConsumerGroupDescribeRequest.API_KEY == 69
    assert ResponseClassRegistry._response_class_registry[69].name == (
        ConsumerGroupDescribeResponse.name
    )
    request = ConsumerGroupDescribeRequest(
        group_ids=["g"], include_authorized_operations=False, version=0
    )
    assert ConsumerGroupDescribeRequest.decode(request.encode(), version=0).group_ids == ["g"]


def test_an_encoded_request_is_byte_for_byte_what_kafka_python_would_send() -> None:
    question = ListOffsets({"t": {0: LATEST, 1: EARLIEST}, "ü": {7: 1_700_000_000_000}})
    for version in range(1, ListOffsetsRequest.max_version + 1):
        theirs = question.message()
        theirs.API_VERSION = version
        theirs.with_header(correlation_id=5, client_id="c")
        body = question.message().encode(version=version)
        ours = EncodedRequest(ListOffsetsRequest, version, body)
        ours.with_header(correlation_id=5, client_id="c")
        assert ours.encode(framed=True, header=True) == theirs.encode(framed=True, header=True)
        assert ours.header.get_response_class()[version] is not None


def test_offset_fetch_takes_many_groups_and_names_topics_up_to_version_nine() -> None:
    group = OffsetFetchRequest.OffsetFetchRequestGroup
    request = OffsetFetchRequest(
        groups=[group(group_id="g", member_id=None, member_epoch=-1, topics=None)],
        require_stable=False,
        max_version=9,
        version=9,
    )
    assert OffsetFetchRequest.decode(request.encode(), version=9).groups[0].topics is None
    keys = FindCoordinatorRequest(key_type=0, coordinator_keys=["a", "b"], version=4)
    assert FindCoordinatorRequest.decode(keys.encode(), version=4).coordinator_keys == ["a", "b"]


def test_the_manager_has_what_the_wire_calls() -> None:
    parameters = inspect.signature(KafkaConnectionManager.get_connection).parameters
    assert {"node_id", "timeout_ms", "refresh_metadata_on_err"} <= parameters.keys()
    assert {"request", "request_timeout_ms"} <= inspect.signature(
        KafkaConnection.send_request
    ).parameters.keys()
    net = NetworkSelector()
    manager = KafkaConnectionManager(net, bootstrap_servers=["127.0.0.1:1"])
    assert manager._auth_failures == {}
    assert callable(manager.wait_for)
    assert [b.node_id for b in manager.cluster.bootstrap_brokers()] == ["bootstrap-0"]
    manager.close()
    net.close()


def test_our_sockets_are_the_ones_it_connects_with() -> None:
    assert isinstance(KafkaNetSocket("direct://"), ClosingSocket)
    assert "sock_connect" in vars(KafkaNetSocket)


def test_its_logs_reach_nobody() -> None:
    assert not logging.getLogger("kafka").propagate
    assert not logging.getLogger("kafka.net.connection").isEnabledFor(logging.CRITICAL)
