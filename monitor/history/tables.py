"""The tables of the history: SQLite and PostgreSQL take them alike."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
)

METADATA: Final = MetaData()

# What a poll found of a group, or what many polls did: `seconds` is how many one row stands for, 0 for
# one poll. A row holds until the next one of its group: nothing is written of a group that is as before.
# Unix times; NULL is not known; `behind` is the lag in seconds, the largest of the rows that were joined.
SUMMARIES: Final = Table(
    "monitor_group_summaries",
    METADATA,
    Column("cluster", String(255), nullable=False),
    Column("group_id", String, nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("lag", BigInteger),
    Column("behind", Float(53)),
    # when its oldest unread record was appended: of a group that stands still the lag grows unwritten
    Column("behind_since", Float(53)),
    Column("members", Integer),
    Column("status", Integer),
    Column("produced", Float(53)),
    Column("consumed", Float(53)),
    Column("rebalances", BigInteger),
    PrimaryKeyConstraint("cluster", "group_id", "seconds", "at"),
)

# What the analysis remembers of a cluster, as of a Unix time: the newest counts.
MEMORIES: Final = Table(
    "monitor_memories",
    METADATA,
    Column("cluster", String(255), primary_key=True),
    Column("at", Float(53), nullable=False),
    Column("content", LargeBinary, nullable=False),
)
