"""Truth against answer: what is done to a group, and the cause that has to be named.

Each scene is brought about in a shop that has run well for some minutes, on a model of a cluster and on
real brokers. `also` is the second of two causes at once: either may be named first, the other has to be
told beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from monitor.analysis.causes.finding import Cause
from monitor.pools.report import BouncerQueue, Budget, OneMore, Outcome, PoolReport, ServiceUse
from tests.support.lagging import CALM, TOPIC, Action, Script, Shop, script


class Fate(Enum):
    """What happens to one of two brokers."""

    LIVES = "lives"
    IS_SILENT = "is silent"
    IS_LOST = "is lost"


@dataclass(frozen=True)
class Scene:
    """What happens, and what is true of it."""

    truth: Cause
    variant: str
    play: Script
    also: Cause | None = None
    fate: Fate = Fate.LIVES

    @property
    def id(self) -> str:
        """Return its name in a table."""
        return f"{self.truths}: {self.variant}"

    @property
    def truths(self) -> str:
        """Return what is true, in a word."""
        return "+".join([self.truth, *([self.also] if self.also else [])])

    def is_told_by(self, told: Mapping[str, Any]) -> bool:
        """Say whether an answer of the API is right: "cannot tell" is not, nor half of two, nor one too many."""
        causes = {told["cause"], *(other["cause"] for other in told["also"])}
        return causes == {self.truth, *([self.also] if self.also else [])}


def _all(polls: int, *actions: Action, **given: Any) -> Script:
    return script((polls, *actions), **given)


# -- nobody, or not for long ----------------------------------------------------------------------


def gone(polls: int, **given: Any) -> Script:
    """All members leave."""
    return _all(polls, lambda s: s.members(0), **given)


def never_read(polls: int, **given: Any) -> Script:
    """Nobody ever reads: mirrored from another cluster, or thrown away."""
    return _all(polls, calm=0, members=0, **given)


def stops(polls: int, **given: Any) -> Script:
    """A job that commits without being a member stops."""
    return _all(polls, Shop.hang, by_assign=True, **given)


def rebalances(every: int, times: int, members: int = 3, left: int = 2, **given: Any) -> Script:
    """A member leaves and comes back again and again, and nobody reads meanwhile."""
    leave = (every, lambda s: s.members(left), Shop.hang)
    come = (every, lambda s: s.members(members), Shop.hang)
    return script(*[leave, come] * times, members=members, **given)


# -- standing -------------------------------------------------------------------------------------


def message(polls: int, *partitions: int, **given: Any) -> Script:
    """One message can't be finished; the owner goes on elsewhere."""
    return _all(polls, lambda s: s.stand(*partitions or (2,)), **given)


def hang(polls: int, *members: int, **given: Any) -> Script:
    """Members hang."""
    return _all(polls, lambda s: s.hang(*members), **given)


def wedged_alike() -> Script:
    """Two groups stand, each for itself, where the same broker leads; others read it in time."""
    return script(
        (
            0,
            lambda s: s.add_topic("u", 2, 2.0),
            lambda s: s.add_group("other", "u", 2, 20),
            *[lambda s, n=n: s.add_group(f"well-{n}", TOPIC, 1, 20) for n in (1, 2)],
        ),
        (CALM,),
        (16, lambda s: s.hang(0), lambda s: s.groups["other"].stands.add(0)),
        calm=0,
        partitions=2,
        members=2,
    )


# -- the log, the brokers, the offsets ------------------------------------------------------------


def lost(keep: int, *, comes: float = 2.0, **given: Any) -> Script:
    """A group that commits each two minutes becomes slow, and retention overtakes it."""
    return script(
        (CALM, lambda s: setattr(s.main, "commits_every", 8)),
        (10, lambda s: s.pace(0.2)),
        (4, lambda s: s.delete_unread(keep), lambda s: s.rate(comes)),
        calm=0,
        **given,
    )


def silent_leader(polls: int, *, witness: bool = False) -> Script:
    """A leader does not answer."""
    other = (0, lambda s: s.add_group("other", TOPIC, 2, 20)) if witness else (0,)
    return script(other, (CALM,), (polls, lambda s: s.silence_broker()), calm=0)


def no_leader() -> Script:
    """A broker is gone for good, with the only replica of some partitions."""
    return _all(12, lambda s: s.lose_broker())


def slow_broker(share: float, polls: int) -> Script:
    """A broker serves its partitions slowly, to all groups; it answers the monitor."""
    return script(
        (
            0,
            lambda s: s.add_topic("u", 4, 2.0),
            lambda s: s.add_group("other", TOPIC, 2, 20),
            lambda s: s.add_group("third", "u", 2, 20),
        ),
        (CALM,),
        (polls, lambda s: s.serve(share, 1)),
        calm=0,
    )


def open_transaction(polls: int, *partitions: int, reads_committed: bool = True) -> Script:
    """A producer leaves a transaction open."""
    return script(
        (CALM, lambda s: setattr(s.main, "reads_committed", reads_committed)),
        (polls, lambda s: s.open_transaction(*partitions)),
        calm=0,
    )


def rewind(messages: int, polls: int, *partitions: int, calm: int = 40) -> Script:
    """Somebody moves the commits back."""
    return _all(polls, lambda s: s.seek_back(messages, *partitions), calm=calm, pace=4.6)


# -- pace -----------------------------------------------------------------------------------------


def hot(rate: float, polls: int, *partitions: int, **given: Any) -> Script:
    """A key gets most of the messages."""
    return _all(polls, lambda s: s.rate(rate, *(partitions or (1,))), **given)


def one_slow(n: int, pace: float, polls: int, **given: Any) -> Script:
    """One member is slower than the others."""
    return _all(polls, lambda s: s.pace(pace, n), **given)


def slow(to: float, polls: int, **given: Any) -> Script:
    """All members become slower."""
    return _all(polls, lambda s: s.pace(to), **given)


def grows(rate: float, polls: int, **given: Any) -> Script:
    """More comes than the members manage, for good."""
    return _all(polls, lambda s: s.rate(rate), **given)


def fewer(left: int, polls: int, **given: Any) -> Script:
    """Members leave, and those that stay do what they did."""
    return _all(polls, lambda s: s.members(left), **given)


def burst(rate: float, lasts: int, then: int, usual: float = 2.0, **given: Any) -> Script:
    """Producers write much for a while."""
    return script(
        (lasts, lambda s: s.rate(rate)), (then, lambda s: s.rate(usual)), rate=usual, **given
    )


def in_turns(turn: int, polls: int, **given: Any) -> Script:
    """Members have a backlog, and work through it one partition after the other."""
    return _all(polls, lambda s: setattr(s.main, "turn", turn), **given)


def outage(away: int, back: int, pace: float) -> Script:
    """The members were away, and are back."""
    return script((away, lambda s: s.members(0)), (back, lambda s: s.members(3, pace)), pace=pace)


def with_pools(report: PoolReport, pace: float, polls: int = 14) -> Script:
    """The database's pool is exhausted, and its clients wait."""
    return script(
        (
            polls,
            lambda s: setattr(s, "pools", report),
            Shop.hang if pace == 0 else lambda s: s.pace(pace),
        ),
    )


_FITS: Final = OneMore(Outcome.UNKNOWN)
OWN_POOL: Final = PoolReport(
    services=(ServiceUse("g-service", 3, 10, 30, 30, 30, 12, 4, None, _FITS),)
)
BOUNCER: Final = PoolReport(queues=(BouncerQueue("orders", "app", 20, 20, 20, 60, 35, 12.5),))
NO_MORE: Final = PoolReport(budgets=(Budget("max_connections", 97, 97, 97),))


# -- by design ------------------------------------------------------------------------------------


def seldom(every: int, polls: int, **given: Any) -> Script:
    """Commits are far apart, by design."""
    return script((polls, lambda s: setattr(s.main, "commits_every", every)), calm=0, **given)


def moved_off(rate: float = 2.0, calm: int = 6, polls: int = 24) -> Script:
    """The group reads another topic now; its old commits stay."""
    return script(
        (calm, lambda s: s.add_topic("new", 6, 1.0)),
        (polls, lambda s: s.move_to("new")),
        calm=0,
        rate=rate,
    )


def deploy() -> Script:
    """Each member restarts, one after the other."""
    one = [(1, lambda s: s.members(2)), (2, lambda s: s.members(3))]
    return script(*one * 3, (2,))


def noisy() -> Script:
    """What comes goes up and down, within what the group manages."""
    return script(*[(1, lambda s, r=rate: s.rate(r)) for rate in (2.0, 4.0, 1.0, 0.5) * 10], calm=0)


_S: Final = Scene
C: Final = Cause
SCENES: Final = (
    _S(C.NO_MEMBERS, "all leave, 3 min", gone(12)),
    _S(C.NO_MEMBERS, "one consumer stops", gone(20, members=1, pace=20)),
    _S(C.NO_MEMBERS, "few messages", gone(20, rate=0.1)),
    _S(C.NO_MEMBERS, "nothing comes any more", gone(8).then((8, lambda s: s.rate(0)))),
    _S(C.REBALANCING, "one leaves and joins each poll", rebalances(1, 8)),
    _S(C.REBALANCING, "every half minute", rebalances(2, 4)),
    _S(C.REBALANCING, "the state stays PreparingRebalance", _all(12, lambda s: s.stay_rebalancing())),
    _S(C.REBALANCING, "the only member crashes again and again", rebalances(1, 7, members=1, left=0, pace=20)),
    _S(C.MESSAGE_STANDS, "one partition", message(16)),
    _S(C.MESSAGE_STANDS, "a single consumer of six", message(16, members=1, pace=20)),
    _S(C.MESSAGE_STANDS, "of two consumers", message(24, 5, members=2)),
    _S(C.MESSAGE_STANDS, "slow traffic", message(24, 0, rate=0.5)),
    _S(C.MEMBER_WEDGED, "one of three", hang(16, 1)),
    _S(C.MEMBER_WEDGED, "one of two", hang(16, 0, members=2)),
    _S(C.MEMBER_WEDGED, "two of six", hang(20, 1, 4, members=6)),
    _S(C.MEMBER_WEDGED, "the only one", hang(16, 0, members=1, pace=20)),
    _S(C.MEMBER_WEDGED, "as another group is on the same broker, whom a third reads", wedged_alike()),
    _S(C.ALL_STAND, "three", hang(16, 0, 1, 2)),
    _S(C.ALL_STAND, "two", hang(12, 0, 1, members=2)),
    _S(C.ALL_STAND, "six, for long", hang(40, *range(6), members=6)),
    _S(C.MESSAGES_LOST, "a slow group, retention overtakes it", lost(50)),
    _S(C.MESSAGES_LOST, "all is deleted", lost(0, comes=0.0)),
    _S(C.MESSAGES_LOST, "few partitions", lost(20, partitions=2, members=2)),
    _S(C.BROKER_TROUBLE, "a leader is silent", silent_leader(10), fate=Fate.IS_SILENT),
    _S(C.BROKER_TROUBLE, "the same, seen by two groups", silent_leader(10, witness=True), fate=Fate.IS_SILENT),
    _S(C.BROKER_TROUBLE, "partitions without a leader", no_leader(), fate=Fate.IS_LOST),
    _S(C.BROKER_TROUBLE, "a broker serves a tenth", slow_broker(0.05, 16)),
    _S(C.BROKER_TROUBLE, "a broker serves nothing, and answers", slow_broker(0.0, 16)),
    _S(C.OPEN_TRANSACTION, "one partition", open_transaction(12, 0)),
    _S(C.OPEN_TRANSACTION, "all partitions", open_transaction(12, *range(6))),
    _S(C.OPEN_TRANSACTION, "for long", open_transaction(40, 2, 3)),
    _S(C.REWOUND, "all partitions", rewind(400, 8)),
    _S(C.REWOUND, "one partition", rewind(600, 8, 3)),
    _S(C.REWOUND, "to the beginning", rewind(10_000, 8)),
    _S(C.HOT_PARTITION, "six times", hot(12, 24)),
    _S(C.HOT_PARTITION, "one consumer each", hot(16, 14, 3, members=6)),
    _S(C.HOT_PARTITION, "of twelve", hot(20, 14, 7, partitions=12, members=4)),
    _S(C.HOT_PARTITION, "from the start", hot(15, 20, calm=1)),
    _S(C.SLOW_MEMBER, "one of three", one_slow(0, 2, 14)),
    _S(C.SLOW_MEMBER, "one of six", one_slow(4, 1, 16, members=6)),
    _S(C.SLOW_MEMBER, "one of two", one_slow(1, 3, 14, members=2)),
    _S(C.SLOW_PROCESSING, "to a quarter", slow(1.0, 14)),
    _S(C.SLOW_PROCESSING, "to a half", slow(2.0, 20)),
    _S(C.SLOW_PROCESSING, "a single consumer", slow(4, 14, members=1, pace=20)),
    _S(C.DATABASE_EXHAUSTED, "its own pool", with_pools(OWN_POOL, 1.0)),
    _S(C.DATABASE_EXHAUSTED, "PgBouncer queues", with_pools(BOUNCER, 1.0)),
    _S(C.DATABASE_EXHAUSTED, "max_connections", with_pools(NO_MORE, 1.5)),
    _S(C.DATABASE_EXHAUSTED, "nobody commits any more", with_pools(OWN_POOL, 0.0, 18)),
    _S(C.MORE_MEMBERS_THAN_PARTITIONS, "two of three", grows(7, 50, partitions=2, members=3, pace=5)),
    _S(C.MORE_MEMBERS_THAN_PARTITIONS, "one of six", grows(4, 50, partitions=1, members=6, pace=3)),
    _S(C.MORE_MEMBERS_THAN_PARTITIONS, "the eighth", grows(3.5, 50, partitions=6, members=8, pace=3)),
    _S(C.FEWER_MEMBERS_THAN_NEEDED, "two of three leave", fewer(1, 14, pace=5)),
    _S(C.FEWER_MEMBERS_THAN_NEEDED, "half leave", fewer(3, 14, members=6, pace=2.5)),
    _S(C.FEWER_MEMBERS_THAN_NEEDED, "half as much again comes", grows(3.2, 30, pace=5)),
    _S(C.FEWER_MEMBERS_THAN_NEEDED, "three times as much, for long", grows(6, 60, pace=6)),
    _S(C.SPIKE, "it passes", burst(12, 5, 4, pace=6)),
    _S(C.SPIKE, "it has just begun", burst(12, 9, 0, pace=6)),
    _S(C.SPIKE, "a large one", burst(40, 4, 8, pace=10)),
    _S(C.CATCHING_UP, "after an outage", outage(20, 8, pace=8)),
    _S(C.CATCHING_UP, "after a longer one", outage(40, 8, pace=7)),
    _S(C.CATCHING_UP, "most of it done", outage(16, 12, pace=7)),
    _S(C.COMMITS_STOPPED, "a job by assign() stops", stops(20)),
    _S(C.COMMITS_STOPPED, "one of a single partition", stops(20, partitions=1, members=1)),
    _S(C.COMMITS_STOPPED, "little traffic", stops(30, rate=0.5)),
    _S(C.NEVER_ACTIVE, "a topic that is written", never_read(20)),
    _S(C.NEVER_ACTIVE, "a single partition", never_read(12, partitions=1)),
    _S(C.NEVER_ACTIVE, "little traffic", never_read(40, rate=0.1)),
    _S(C.SELDOM_COMMITS, "every ten minutes", seldom(40, 100)),
    _S(C.SELDOM_COMMITS, "every five minutes", seldom(20, 70)),
    _S(C.SELDOM_COMMITS, "one consumer", seldom(30, 80, members=1, pace=20)),
    _S(C.NOT_CONSUMED, "it reads another topic", moved_off()),
    _S(C.NOT_CONSUMED, "for long", moved_off(polls=50)),
    _S(C.NOT_CONSUMED, "little is written to the old one", moved_off(rate=0.2)),
    # two at once
    _S(C.NO_MEMBERS, "retention overtakes it",
       gone(14).then((6, lambda s: s.delete_unread(30))), also=C.MESSAGES_LOST),
    _S(C.MESSAGE_STANDS, "and another partition is hot",
       hot(14, 4, 1).then((16, lambda s: s.stand(2))), also=C.HOT_PARTITION),
    _S(C.MESSAGE_STANDS, "and another member hangs",
       message(4, 2).then((16, lambda s: s.hang(1))),
       also=C.MEMBER_WEDGED),
    _S(C.MEMBER_WEDGED, "and a partition of another is hot",
       hang(4, 0).then((16, lambda s: s.rate(14, 1))), also=C.HOT_PARTITION),
    _S(C.OPEN_TRANSACTION, "and a message stands",
       open_transaction(6, 0).then((16, lambda s: s.stand(2))), also=C.MESSAGE_STANDS),
    _S(C.MESSAGES_LOST, "while one member hangs",
       hang(14, 1).then((6, lambda s: s.delete_unread(30))), also=C.MEMBER_WEDGED),
    _S(C.REWOUND, "and each consumer is slower",
       rewind(500, 1).then((8, lambda s: s.pace(1.2))), also=C.SLOW_PROCESSING),
)  # fmt: skip

INNOCENT: Final = (
    _S(C.HEALTHY, "load", script(calm=30)),
    _S(C.HEALTHY, "much load", script(calm=30, rate=4.0, pace=9.0)),
    _S(C.HEALTHY, "little load", script(calm=40, rate=0.02)),
    _S(C.HEALTHY, "no load", script(calm=30, rate=0.0)),
    _S(C.HEALTHY, "a lot of members", script(calm=30, members=6)),
    _S(C.HEALTHY, "a spare member", script(calm=30, partitions=2, members=3)),
    _S(C.HEALTHY, "skewed, and kept up with", hot(6, 20, 1)),
    _S(C.HEALTHY, "commits each two minutes", seldom(8, 60)),
    _S(C.HEALTHY, "a rolling deploy", deploy()),
    _S(C.HEALTHY, "up and down", noisy()),
    _S(C.HEALTHY, "a short spike, read at once", burst(4, 2, 6)),
    _S(C.HEALTHY, "short transactions", open_transaction(3, 0)),
    _S(C.HEALTHY, "just started", script(calm=2)),
    _S(C.HEALTHY, "a job by assign()", script(calm=30, by_assign=True)),
)
"""Groups that are well, whatever it looks like."""

NO_FAULT: Final = frozenset(
    {Cause.HEALTHY, Cause.NEVER_ACTIVE, Cause.NOT_CONSUMED, Cause.SELDOM_COMMITS, Cause.CANNOT_TELL}
)
"""Causes that are no fault of anybody, or not known to be."""
