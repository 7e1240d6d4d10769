"""ListGroups: the groups that a broker coordinates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kafka.protocol.admin import ListGroupsRequest, ListGroupsResponse

from monitor.kafka.apis.error_codes import error_name
from monitor.kafka.encoded import EncodedRequest, LastAnswer, Reply
from monitor.kafka.questions import Failure, Question, VersionOf
from monitor.model import CLASSIC

# The first version whose reply begins with the throttle time, as `Reply` takes it.
THROTTLE_TIME: Final = 1


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group in a coordinator's list; `state` is None where the broker is too old to tell."""

    id: str
    type: str
    state: str | None
    protocol_type: str


@dataclass(eq=False, slots=True)
class ListGroups(Question[list[ListedGroup]]):
    """The groups that the broker coordinates; the same question is asked at every poll."""

    last: LastAnswer[list[ListedGroup]] = field(default_factory=LastAnswer, repr=False)

    def requests(self, version_of: VersionOf) -> list[Any]:
        """Ask for groups of all states and types."""
        request = ListGroupsRequest(states_filter=[], types_filter=[])
        version = version_of(ListGroupsRequest)
        if version < THROTTLE_TIME:
            return [request]
        body = request.encode(version=version)
        return [EncodedRequest(ListGroupsRequest, version, body, raw=True)]

    def read(self, replies: Sequence[Any]) -> list[ListedGroup] | Failure:
        """Read the list; a coordinator that is still loading is a failure of it."""
        (reply,) = replies
        if not isinstance(reply, Reply):
            return _read(reply)
        return self.last.read(
            reply, lambda body: _read(ListGroupsResponse.decode(body, version=reply.version))
        )


def _read(reply: Any) -> list[ListedGroup] | Failure:
    if reply.error_code:
        return Failure(f"ListGroups: {error_name(reply.error_code)}")
    return [
        ListedGroup(
            id=sys.intern(group.group_id),
            type=(group.group_type or CLASSIC).lower(),  # brokers before 3.8 do not say
            state=group.group_state or None,  # nor the state before 2.6
            protocol_type=sys.intern(group.protocol_type or ""),
        )
        for group in reply.groups
    ]
