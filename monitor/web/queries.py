"""The parameters of the API: read strictly, and told in its document from the same models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from monitor.answers.models import Fault

Q = TypeVar("Q", bound="Query")

MAX_LIMIT: Final = 10_000
_WHOLE: Final = re.compile(r"[0-9]{1,9}")


class RefusedError(Exception):
    """A request that gets another answer than it hoped for: an HTTP status and why."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.fault = Fault(message=message, field=field)


def _whole(value: Any) -> Any:
    """Take digits only: pydantic takes 5.0, 1_000 and blanks as well, which the document denies."""
    if isinstance(value, str):
        if not _WHOLE.fullmatch(value):
            raise ValueError("a whole number is needed")
        return int(value)
    return value


def _truth(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("true or false is needed")
        return value == "true"
    return value


# the limits come before the validator, or the document does not have them
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(_whole)]
Start = Annotated[int, Field(ge=0, le=999_999_999), BeforeValidator(_whole)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Name = Annotated[str, Field(max_length=500)]


class Query(BaseModel):
    """No parameters; one that is not known is refused: a filter with no effect misleads."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class OfCluster(Query):
    """Which cluster is meant."""

    cluster: Name | None = None
    """Only this cluster; needed for a single group or topic where several clusters are watched."""


class Paged(OfCluster):
    """Which part of a list is meant."""

    limit: Limit = 100
    """How many to return at most."""
    offset: Start = 0
    """How many to pass over."""


class GroupsQuery(Paged):
    """Which groups are meant."""

    name: Name | None = None
    """A pattern for their ids, as of file names: `orders-*`. Not a regular expression: some of those take for ever."""
    topic: Name | None = None
    """Only groups that committed this topic or hold partitions of it."""
    state: Annotated[list[Name], Field(max_length=20)] = []
    """Only groups in this state, in any case; repeatable."""
    status: Annotated[list[Literal["OK", "WARN", "ERR", "new"]], Field(max_length=4)] = []
    """Only groups of this status; repeatable."""
    lag_over: Annotated[str, Field(pattern=r"^[0-9]{1,15}(s|m|h)?$")] | None = None
    """Only groups further behind: `1000` (messages), `90s`, `5m`, `2h`."""
    only_behind: Truth = False
    """Only groups with unread messages."""
    sort: Literal["need", "behind", "lag", "name"] = "need"
    """By what: who needs somebody most, seconds, messages (the worst first), or the id."""


class TopicsQuery(Paged):
    """Which topics are meant."""

    name: Name | None = None
    """A pattern for their names, as of file names: `orders*`."""


class AdviceQuery(Paged):
    """Which advice is meant."""

    name: Name | None = None
    """A pattern for the groups' ids, as of file names: `orders-*`."""
    severity: Literal["info", "warning", "critical"] = "info"
    """Only advice that is at least as urgent."""


def read(query: type[Q], given: Mapping[str, Sequence[str]]) -> Q:
    """Return the parameters of a request; raises RefusedError (400) with the first that is wrong."""
    values: dict[str, object] = {}
    for name, said in given.items():
        field = query.model_fields.get(name)
        if field is None:
            known = ", ".join(sorted(query.model_fields)) or "none"
            raise RefusedError(400, f"there is no such parameter; there are {known}", name)
        if get_origin(field.annotation) is list:
            values[name] = list(said)
        elif len(said) > 1:
            raise RefusedError(400, "said more than once", name)
        else:
            values[name] = said[0]
    try:
        return query(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise RefusedError(400, message, str(first["loc"][0])) from None
