"""Messages that kafka-python lacks, declared from the broker's own schemas."""

from __future__ import annotations

from kafka.protocol.api_message import ApiMessage

from monitor.kafka.apis import messages


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
