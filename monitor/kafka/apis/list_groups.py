"""ListGroups: the groups that a broker coordinates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kafka.protocol.admin import ListGroupsRequest

from monitor.kafka.apis.error_codes import error_name
from monitor.kafka.questions import Failure, Question, VersionOf
from monitor.model import CLASSIC


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group in a coordinator's list; `state` is None where the broker is too old to tell."""

    id: str
    type: str
    state: str | None
    protocol_type: str


@dataclass(frozen=True, slots=True)
class ListGroups(Question[list[ListedGroup]]):
    """The groups that the broker coordinates."""

    def requests(self, version_of: VersionOf) -> list[Any]:  # noqa: ARG002  # any version will do
        """Ask for groups of all states and types."""
        return [ListGroupsRequest(states_filter=[], types_filter=[])]

    def read(self, replies: Sequence[Any]) -> list[ListedGroup] | Failure:
        """Read the list; a coordinator that is still loading is a failure of it."""
        (reply,) = replies
        if reply.error_code:
            return Failure(f"ListGroups: {error_name(reply.error_code)}")
        return [
            ListedGroup(
                id=sys.intern(group.group_id),
                type=(group.group_type or CLASSIC).lower(),  # brokers before 3.8 do not say
                state=group.group_state or None,  # nor the state before 2.6
                protocol_type=group.protocol_type or "",
            )
            for group in reply.groups
        ]
