"""The query that joins the rows of groups to those of a coarser resolution."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import CTE, ColumnElement, Select, case, func, literal, select, union_all

from monitor.history.tables import SUMMARIES, WATCHED

NAMES: Final = [column.name for column in SUMMARIES.columns]
"""Of the columns that the query has, in this order."""
_VALUES: Final = [name for name in NAMES if name not in {"cluster", "group_id", "seconds", "at"}]


def joined(fine: int, coarse: int, now: float) -> Select[Any]:
    """Return the query of the rows that whole spans of the coarse resolution make, and lack yet.

    A span's row is made of the rows in it and of what held when it began: the worst counts, rates are
    the means. After a span with rows there is a row even of a span without: of what held alone, and it
    holds on. So when a group has ended, or what was worst, no row goes on to say it.
    """
    rows = _rows(fine, coarse, now)
    row = rows.c
    in_span = select(
        row.cluster, row.group_id, row.newest, row.begin, *(row[name] for name in _VALUES)
    ).where(row.seconds == fine)
    part = union_all(in_span, _held(rows, fine, coarse)).subquery("part").c
    # where there are several, no lag in seconds grows as of one of them
    is_one_record = (func.count() == func.count(part.behind_since)) & (
        func.min(part.behind_since) == func.max(part.behind_since)
    )
    return (
        select(
            part.cluster,
            part.group_id,
            literal(coarse).label("seconds"),
            part.begin.label("at"),
            func.max(part.lag),
            func.max(part.behind),
            case((is_one_record, func.min(part.behind_since))),
            func.max(part.members),
            func.max(part.status),
            func.avg(part.produced),
            func.avg(part.consumed),
            func.max(part.rebalances),
        )
        .where((part.begin + coarse <= now) & (part.begin > part.newest))
        .group_by(part.cluster, part.group_id, part.begin)
    )


def _rows(fine: int, coarse: int, now: float) -> CTE:
    """Return the query of the rows since the newest coarse one of their group began, and that one.

    `newest` is when that began, `begin` when the span of a row does; both are told of the next row, too.
    """
    table = SUMMARIES.c
    there = SUMMARIES.alias("there")
    newest = (
        select(func.coalesce(func.max(there.c.at), 0.0))
        .where(
            (there.c.cluster == table.cluster)
            & (there.c.group_id == table.group_id)
            & (there.c.seconds == coarse)
        )
        .correlate(SUMMARIES)
        .scalar_subquery()
    )
    begin = func.floor(table.at / coarse) * coarse
    group, in_order = (table.cluster, table.group_id), (table.at, table.seconds.desc())
    is_new = (table.seconds == fine) & (table.at >= newest)
    # what it was made of may be deleted since
    is_newest = (table.seconds == coarse) & (table.at == newest)
    return (
        select(
            SUMMARIES,
            newest.label("newest"),
            begin.label("begin"),
            func.lead(table.at).over(partition_by=group, order_by=in_order).label("next_at"),
            func.lead(begin).over(partition_by=group, order_by=in_order).label("next_begin"),
        )
        .where((table.at < now) & (is_new | is_newest))
        .cte("found")
    )


def _held(rows: CTE, fine: int, coarse: int) -> Select[Any]:
    """Return the query of what held when a span began: the one after a row's, and its next row's.

    It is nothing where nobody looked on from the row until then.
    """
    row = rows.c
    following = row.begin + coarse
    is_fine = row.seconds == fine
    is_until_following = row.next_at.is_(None) | (row.next_at > following)
    is_until_next = (row.next_begin > row.begin) & (row.next_at > row.next_begin)
    begun = union_all(
        select(rows, following.label("held_at")).where(is_fine & is_until_following),
        select(rows, row.next_begin.label("held_at")).where(
            is_until_next & ~(is_fine & (row.next_begin == following))
        ),
    ).subquery("begun")
    held, watched = begun.c, WATCHED.c
    looked_on = (
        (watched.cluster == held.cluster)
        & (watched.since <= held.at)
        & (watched.until >= held.held_at)
    )
    values: dict[str, ColumnElement[Any]] = {name: held[name] for name in _VALUES}
    # what is unread grows older
    is_older = held.behind_since < held.held_at
    values["behind"] = case((is_older, held.held_at - held.behind_since), else_=held.behind)
    known = (
        case((watched.since.is_not(None), value)).label(name) for name, value in values.items()
    )
    return select(
        held.cluster, held.group_id, held.newest, held.held_at.label("begin"), *known
    ).select_from(begun.outerjoin(WATCHED, looked_on))
