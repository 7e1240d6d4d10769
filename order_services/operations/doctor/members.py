"""Who is in which consumer group, and what each member holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

TIMEOUT_SECONDS: Final = 10.0


class GroupsError(Exception):
    """The groups could not be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member and how many partitions it holds."""

    client_id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Group:
    """A group as its coordinator tells it; members' partitions count only while it is `stable`."""

    group_id: str
    stable: bool
    members: tuple[Member, ...]


def read(admin: AdminClient) -> Mapping[str, Group]:
    """Return every group on the brokers by its id; raises `GroupsError`."""
    try:
        listed = admin.list_consumer_groups(request_timeout=TIMEOUT_SECONDS).result()
    except KafkaException as error:
        raise GroupsError(_reason(error)) from error
    if listed.errors:
        raise GroupsError(_reason(listed.errors[0]))
    return _described(admin, [group.group_id for group in listed.valid])


def read_one(admin: AdminClient, group_id: str) -> Group:
    """Return one group, without members where there is none; raises `GroupsError`."""
    return _described(admin, [group_id])[group_id]


def _described(admin: AdminClient, ids: Sequence[str]) -> dict[str, Group]:
    if not ids:
        return {}
    futures = admin.describe_consumer_groups(list(ids), request_timeout=TIMEOUT_SECONDS)
    groups = {}
    for group_id, future in futures.items():
        try:
            found = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise GroupsError(f"{group_id}: {_reason(error)}") from error
            # since Kafka 4.0 a group that nobody ever joined, or that has just been deleted
            groups[group_id] = Group(group_id, stable=False, members=())
            continue
        groups[group_id] = Group(
            group_id,
            found.state == ConsumerGroupState.STABLE,
            tuple(
                Member(member.client_id, len(member.assignment.topic_partitions))
                for member in found.members
            ),
        )
    return groups


def _reason(error: Exception) -> str:
    first = error.args[0]
    return str(first.str()) if hasattr(first, "str") else str(first)
