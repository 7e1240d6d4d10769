"""The tables of the history: SQLite and PostgreSQL take them alike."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

METADATA: Final = MetaData()

# What a poll found of a group, or what many polls did: `seconds` is how many from `at` on one row stands
# for, 0 for one poll. A row holds until the next one of its group: nothing is written of a group that is
# as before. Unix times; NULL is not known; `behind` is the lag in seconds, the largest of what was joined.
SUMMARIES: Final = Table(
    "monitor_group_summaries",
    METADATA,
    Column("cluster", String(255), nullable=False),
    Column("group_id", String, nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("lag", BigInteger),
    Column("behind", Float(53)),
    # when its oldest unread record was appended: of a group that stands still the lag grows unwritten;
    # of many polls only if it was the same in all
    Column("behind_since", Float(53)),
    Column("members", Integer),
    Column("status", Integer),
    Column("produced", Float(53)),
    Column("consumed", Float(53)),
    Column("rebalances", BigInteger),
    PrimaryKeyConstraint("cluster", "group_id", "seconds", "at"),
)

# From when to when polls followed each other: between two of them nobody looked, and no row holds on.
WATCHED: Final = Table(
    "monitor_watched",
    METADATA,
    Column("cluster", String(255), nullable=False),
    Column("since", Float(53), nullable=False),
    Column("until", Float(53), nullable=False),
    PrimaryKeyConstraint("cluster", "since"),
)

# What a restart takes up, see `kept_rows`: the last of each.
KEPT: Final = Table(
    "monitor_kept",
    METADATA,
    Column("cluster", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", String, nullable=False),
    Column("data", Text, nullable=False),
    PrimaryKeyConstraint("cluster", "kind", "name"),
)
