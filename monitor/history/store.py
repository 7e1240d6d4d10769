"""Writes and reads the history; every method may raise what a database raises (`SQLAlchemyError`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise
from math import inf
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Engine,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from monitor.history.claim import Claim
from monitor.history.joining import NAMES, joined
from monitor.history.kept_rows import GROUP, KeptRow
from monitor.history.not_taken import Key, NotTaken, is_of_a_value, kind_of
from monitor.history.summary import POLL, Gap, Summary
from monitor.history.tables import KEPT, METADATA, SUMMARIES, WATCHED

# Resolution in seconds -> for how long its rows are kept. Each is made of the one before.
KEPT_SECONDS: Final = {POLL: 86_400.0, 300: 30 * 86_400.0, 3_600: 366 * 86_400.0}
CONNECT_SECONDS: Final = 5
BUSY_MS: Final = 5_000
_INSERTS: Final[Mapping[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Store:
    """The history of all clusters in one database; connections belong to the thread that asks.

    `place` is a URL, or a file of SQLite.
    """

    def __init__(self, place: str | Path) -> None:
        self._engine = _engine(place)
        self._claim = _claim(self._engine.url)
        self.not_taken = NotTaken()

    def create(self) -> None:
        """Make the tables where they are not there; raises InUseError where it is another's file."""
        if self._claim:
            self._claim.take()
        METADATA.create_all(self._engine)

    def close(self) -> None:
        """Give the connections back, and let another monitor have the file."""
        self._engine.dispose()
        if self._claim:
            self._claim.release()

    def write(
        self, cluster: str, summaries: Iterable[Summary], *, at: float, patience_s: float
    ) -> None:
        """Add what a poll found at a Unix time, and that polls went on if the one before is as near."""

        def put(connection: Connection, rows: Sequence[Summary]) -> None:
            if rows:
                values = [{"cluster": cluster, **asdict(each)} for each in rows]
                connection.execute(insert(SUMMARIES), values)
            self._watch(connection, cluster, at, patience_s)

        self.not_taken.put(
            self._engine, summaries, lambda row: Key(cluster, GROUP, row.group_id), put
        )

    def _watch(self, connection: Connection, cluster: str, at: float, patience_s: float) -> None:
        table = WATCHED.c
        last = connection.execute(
            select(table.since, table.until)
            .where((table.cluster == cluster) & (table.since <= at))
            .order_by(table.since.desc())
            .limit(1)
        ).first()
        if last is None or at - last.until > patience_s:
            new = {"cluster": cluster, "since": at, "until": at}
            connection.execute(insert(WATCHED), new)
        elif at > last.until:
            connection.execute(
                update(WATCHED)
                .where((table.cluster == cluster) & (table.since == last.since))
                .values(until=at)
            )

    def gaps(self, cluster: str, since: float, until: float, patience_s: float) -> list[Gap]:
        """Return when nobody looked between two Unix times, oldest first.

        Of before the first poll of which it is known nothing is told.
        """
        table = WATCHED.c
        of_cluster = table.cluster == cluster
        first = select(func.max(table.since)).where(of_cluster & (table.since <= since))
        with self._engine.connect() as connection:
            spans = connection.execute(
                select(table.since, table.until)
                .where(
                    of_cluster
                    & (table.since >= func.coalesce(first.scalar_subquery(), since))
                    & (table.since <= until)
                )
                .order_by(table.since)
            ).all()
        # two monitors may have watched at a time
        ends = list(accumulate((span.until for span in spans), max))
        found = [
            Gap(end, span.since)
            for end, span in zip(ends, spans[1:], strict=False)
            if span.since > end
        ]
        if ends and until - ends[-1] > patience_s:
            found.append(Gap(ends[-1], inf))
        return found

    def keep(self, cluster: str, rows: Iterable[KeptRow], *, anew: bool) -> None:
        """Put rows in place of those of their kinds and names; of all of the cluster with `anew`."""

        def put(connection: Connection, rows: Sequence[KeptRow]) -> None:
            self._replace(connection, cluster, rows, anew=anew)

        self.not_taken.put(self._engine, rows, lambda row: Key(cluster, row.kind, row.name), put)

    def _replace(
        self, connection: Connection, cluster: str, rows: Sequence[KeptRow], *, anew: bool
    ) -> None:
        gone, there = [], []
        for row in rows:
            key = {"cluster": cluster, "kind": row.kind, "name": row.name}
            if row.data is None:
                gone.append({f"the_{name}": value for name, value in key.items()})
            else:
                there.append({**key, "data": row.data})
        table = KEPT.c
        put = _INSERTS[self._engine.dialect.name](KEPT)
        if anew:
            connection.execute(delete(KEPT).where(table.cluster == cluster))
        if gone:
            connection.execute(
                delete(KEPT).where(
                    (table.cluster == bindparam("the_cluster"))
                    & (table.kind == bindparam("the_kind"))
                    & (table.name == bindparam("the_name"))
                ),
                gone,
            )
        if there:
            connection.execute(
                put.on_conflict_do_update(
                    index_elements=[table.cluster, table.kind, table.name],
                    set_={"data": put.excluded.data},
                ),
                there,
            )

    def kept(self, cluster: str) -> list[KeptRow]:
        """Return the rows of a cluster."""
        table = KEPT.c
        wanted = select(table.kind, table.name, table.data).where(table.cluster == cluster)
        with self._engine.connect() as connection:
            return [KeptRow(*row) for row in connection.execute(wanted)]

    def read(self, cluster: str, group_id: str, since: float, until: float) -> Sequence[Summary]:
        """Return a group's rows between two Unix times, oldest first, and the last one before them.

        Of each moment the finest resolution that is kept: rows of several never overlap. There are
        none of a name that the database does not even take in a question.
        """
        try:
            return self._read(cluster, group_id, since, until)
        except Exception as error:
            if not is_of_a_value(error):
                raise
            return []

    def _read(self, cluster: str, group_id: str, since: float, until: float) -> Sequence[Summary]:
        table = SUMMARIES.c
        of_group = (table.cluster == cluster) & (table.group_id == group_id)
        columns = [table[name] for name in Summary.__dataclass_fields__]
        found: list[Summary] = []
        is_wanted = table.at <= until
        with self._engine.connect() as connection:
            for seconds in KEPT_SECONDS:
                mine = of_group & (table.seconds == seconds) & is_wanted
                start = (
                    select(func.max(table.at)).where(mine & (table.at <= since)).scalar_subquery()
                )
                rows = connection.execute(
                    select(*columns)
                    .where(mine & (table.at >= func.coalesce(start, since)))
                    .order_by(table.at)
                )
                found = [*(Summary(**row) for row in rows.mappings()), *found]
                if found and found[0].at <= since:
                    break
                if found:
                    is_wanted = table.at + table.seconds <= found[0].at
        return found

    def condense(self, now: float) -> None:
        """Join the rows of each resolution to the next, and delete those that are too old.

        `now` is a Unix time until which all polls are written, and it is known when nobody looked.
        """
        table, coarsest = SUMMARIES.c, max(KEPT_SECONDS)
        with self._engine.begin() as connection:
            for fine, coarse in pairwise(KEPT_SECONDS):
                new = joined(fine, coarse, now)
                connection.execute(insert(SUMMARIES).from_select(NAMES, new))
            for fine, coarse in pairwise([*KEPT_SECONDS, coarsest]):
                # whole spans: a coarse row is told of those without a finer one
                oldest = (now - KEPT_SECONDS[fine]) // coarse * coarse
                connection.execute(
                    delete(SUMMARIES).where((table.seconds == fine) & (table.at < oldest))
                )
            connection.execute(
                delete(WATCHED).where(WATCHED.c.until < now - KEPT_SECONDS[coarsest])
            )


def why_failed(error: Exception) -> str:
    """Say why the history failed, without what may hold an address or what was written."""
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    # what SQLite says names no file and no value
    origin = getattr(error, "orig", None)
    return str(origin) if isinstance(origin, sqlite3.Error) else kind_of(error)


def _claim(url: URL) -> Claim | None:
    """Return what keeps others from a file; a server has none."""
    return Claim(Path(str(url.database))) if url.get_backend_name() == "sqlite" else None


def _engine(place: str | Path) -> Engine:
    """Return an engine; raises ValueError with what is allowed, and without the URL: it has a password."""
    try:
        # a file may be called as no URL can say
        is_file = isinstance(place, Path)
        parsed = URL.create("sqlite", database=str(place)) if is_file else make_url(str(place))
    except (ArgumentError, ValueError):  # the one of no URL, the other of a port that is no number
        raise ValueError(_ALLOWED) from None
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in {None, "", ":memory:"}:  # each thread would have one of its own
            raise ValueError(_ALLOWED)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_MS / 1000})
        event.listen(engine, "connect", _tune_sqlite)
        return engine
    if parsed.get_backend_name() == "postgresql" and "[" not in (parsed.host or ""):
        return create_engine(
            parsed.set(drivername="postgresql+psycopg2"),
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "application_name": "kafka-lag-monitor-history",
                "options": f"-c statement_timeout={BUSY_MS}",
            },
            pool_size=2,
            max_overflow=2,
            pool_pre_ping=True,
        )
    raise ValueError(_ALLOWED)


_ALLOWED: Final = "say sqlite:///FILE, postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or off"


def _tune_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # the driver's own
    # readers and the writer don't wait for each other; a power cut may cost the last polls
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
