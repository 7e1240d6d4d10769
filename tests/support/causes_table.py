"""Truth against answer: what is done to a group, and the cause that has to be named.

Each scene is brought about in a shop that has run well for some minutes. `also` is the second of two
causes at once: either may be named first, the other has to be told beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from monitor.analysis.causes.finding import Cause
from monitor.pools.report import BouncerQueue, Budget, OneMore, Outcome, PoolReport, ServiceUse
from tests.support.lagging import CALM, GROUP, TOPIC, Consumer, Shop


@dataclass(frozen=True)
class Scene:
    """What happens (`do` brings a shop there) and what is true of it."""

    truth: Cause
    variant: str
    do: Callable[[], Shop]
    also: Cause | None = None

    @property
    def id(self) -> str:
        """Return its name in a table."""
        return f"{self.truth}{f'+{self.also}' if self.also else ''}: {self.variant}"


def _shop(calm: int = CALM, **given: Any) -> Shop:
    return Shop(**given).run(calm)


def _then(shop: Shop, polls: int, *do: Callable[[Shop], object]) -> Shop:
    for each in do:
        each(shop)
    return shop.run(polls)


# -- nobody, or not for long ----------------------------------------------------------------------


def gone(polls: int, **given: Any) -> Shop:
    """All members leave."""
    return _then(_shop(**given), polls, lambda s: s.members(0))


def rebalances(every: int, polls: int = 16, **given: Any) -> Shop:
    """A member leaves and comes back again and again, and nobody reads meanwhile."""
    shop = _shop(**given)
    count = len(shop.main.consumers)

    def go_on(poll: int) -> None:
        shop.members(count - 1 if poll % (2 * every) < every and count > 1 else count)
        for consumer in shop.main.consumers:
            consumer.hangs = True

    shop.each_poll.append(go_on)
    return shop.run(polls)


def stays_rebalancing() -> Shop:
    """A member never answers: the group does not come out of the rebalance."""
    shop = _shop()
    shop.cluster.groups[GROUP].says = "PreparingRebalance"
    shop.main.stands = set(range(6))
    return shop.run(12)


def crash_loop() -> Shop:
    """The only member restarts every half minute and commits nothing."""
    shop = _shop(members=1, pace=20)

    def go_on(poll: int) -> None:
        shop.members(poll % 2)
        for consumer in shop.main.consumers:
            consumer.hangs = True

    shop.each_poll.append(go_on)
    return shop.run(15)


# -- standing -------------------------------------------------------------------------------------


def message(polls: int, *partitions: int, **given: Any) -> Shop:
    """One message can't be finished; the owner goes on elsewhere."""
    return _then(_shop(**given), polls, lambda s: s.main.stands.update(partitions or (2,)))


def hang(polls: int, *members: int, **given: Any) -> Shop:
    """Members hang."""

    def do(shop: Shop) -> None:
        for n in members:
            shop.main.consumers[n].hangs = True

    return _then(_shop(**given), polls, do)


# -- the log, the brokers, the offsets ------------------------------------------------------------


def lost(keep: int, polls: int, *, comes: float = 2.0, **given: Any) -> Shop:
    """The group commits slowly, and retention overtakes it."""
    shop = _shop(**given)
    shop.main.commits_every = 100
    _then(shop, 6, lambda s: s.pace(0.2))
    shop.delete_unread(keep)
    return _then(shop, polls, lambda s: s.rate(comes))


def silent_leader(polls: int, *, witness: bool = False) -> Shop:
    """A leader does not answer."""
    shop = _shop()
    if witness:
        shop.add_group("other", TOPIC, 2, 20)
    broker = 3 - (shop.cluster.coordinator(GROUP) or 1)
    shop.cluster.silent.add(broker)
    for readers in shop.groups.values():
        readers.stands = {p for p in range(6) if p % 2 + 1 == broker}
    return shop.run(polls)


def no_leader() -> Shop:
    """A broker is gone for good, with the only replica of some partitions."""
    shop = _shop()
    broker = 3 - (shop.cluster.coordinator(GROUP) or 1)
    shop.cluster.fenced.add(broker)
    shop.main.stands = {p for p in range(6) if p % 2 + 1 == broker}
    return shop.run(12)


def slow_broker(share: float, polls: int) -> Shop:
    """A broker serves its partitions slowly, to all groups; it answers the monitor."""
    shop = Shop()
    shop.add_topic("u", 4, 2.0)
    shop.add_group("other", TOPIC, 2, 20)
    shop.add_group("third", "u", 2, 20)
    shop.run(CALM)
    for readers in shop.groups.values():
        readers.served = dict.fromkeys(range(0, 6, 2), share)
    return shop.run(polls)


def open_transaction(polls: int, *partitions: int, reads_committed: bool = True) -> Shop:
    """A producer leaves a transaction open."""
    shop = Shop()
    shop.main.reads_committed = reads_committed
    shop.run(CALM)
    shop.open_transaction(*partitions)
    return shop.run(polls)


def rewind(messages: int, polls: int, *partitions: int, **given: Any) -> Shop:
    """Somebody moves the commits back."""
    return _then(
        _shop(**{"calm": 40, "pace": 4.6, **given}),
        polls,
        lambda s: s.seek_back(messages, *partitions),
    )


# -- pace -----------------------------------------------------------------------------------------


def hot(rate: float, polls: int, *partitions: int, **given: Any) -> Shop:
    """A key gets most of the messages."""
    return _then(_shop(**given), polls, lambda s: s.rate(rate, *(partitions or (1,))))


def one_slow(n: int, pace: float, polls: int, **given: Any) -> Shop:
    """One member is slower than the others."""
    return _then(_shop(**given), polls, lambda s: setattr(s.main.consumers[n], "pace", pace))


def slow(to: float, polls: int, **given: Any) -> Shop:
    """All members become slower."""
    return _then(_shop(**given), polls, lambda s: s.pace(to))


def grows(rate: float, polls: int, **given: Any) -> Shop:
    """More comes than the members manage, for good."""
    return _then(_shop(**given), polls, lambda s: s.rate(rate))


def fewer(left: int, polls: int, **given: Any) -> Shop:
    """Members leave, and those that stay do what they did."""
    return _then(_shop(**given), polls, lambda s: s.members(left))


def burst(rate: float, lasts: int, then: int, **given: Any) -> Shop:
    """Producers write much for a while."""
    shop = _shop(**given)
    usual = shop.rates[TOPIC][0]
    _then(shop, lasts, lambda s: s.rate(rate))
    return _then(shop, then, lambda s: s.rate(usual))


def outage(away: int, back: int, **given: Any) -> Shop:
    """The members were away, and are back."""
    shop = gone(away, **given)
    shop.members(3, given.get("pace", 10.0))
    return shop.run(back)


def with_pools(report: PoolReport, pace: float, polls: int = 14) -> Shop:
    """The database's pool is exhausted, and its clients wait."""
    found: list[PoolReport] = [PoolReport()]
    shop = Shop(pools=lambda: found[0]).run(CALM)
    found[0] = report
    return _then(shop, polls, lambda s: s.pace(pace))


_FITS: Final = OneMore(Outcome.UNKNOWN)
OWN_POOL: Final = PoolReport(
    services=(ServiceUse("g-service", 3, 10, 30, 30, 30, 12, 4, None, _FITS),)
)
BOUNCER: Final = PoolReport(queues=(BouncerQueue("orders", "app", 20, 20, 20, 60, 35, 12.5),))
NO_MORE: Final = PoolReport(budgets=(Budget("max_connections", 97, 97, 97),))


def two(first: Callable[[], Shop], polls: int, *do: Callable[[Shop], object]) -> Shop:
    """Bring about something else as well."""
    return _then(first(), polls, *do)


_S: Final = Scene
C: Final = Cause
SCENES: Final = (
    _S(C.NO_MEMBERS, "all leave, 3 min", lambda: gone(12)),
    _S(C.NO_MEMBERS, "one consumer stops", lambda: gone(20, members=1, pace=20)),
    _S(C.NO_MEMBERS, "few messages", lambda: gone(20, rate=0.1)),
    _S(C.NO_MEMBERS, "nothing comes any more", lambda: _then(gone(8), 8, lambda s: s.rate(0))),
    _S(C.REBALANCING, "one leaves and joins each poll", lambda: rebalances(1)),
    _S(C.REBALANCING, "every half minute", lambda: rebalances(2)),
    _S(C.REBALANCING, "the state stays PreparingRebalance", stays_rebalancing),
    _S(C.REBALANCING, "the only member crashes again and again", crash_loop),
    _S(C.MESSAGE_STANDS, "one partition", lambda: message(16)),
    _S(C.MESSAGE_STANDS, "a single consumer of six", lambda: message(16, members=1, pace=20)),
    _S(C.MESSAGE_STANDS, "of two consumers", lambda: message(24, 5, members=2)),
    _S(C.MESSAGE_STANDS, "slow traffic", lambda: message(24, 0, rate=0.5)),
    _S(C.MEMBER_WEDGED, "one of three", lambda: hang(16, 1)),
    _S(C.MEMBER_WEDGED, "one of two", lambda: hang(16, 0, members=2)),
    _S(C.MEMBER_WEDGED, "two of six", lambda: hang(20, 1, 4, members=6)),
    _S(C.MEMBER_WEDGED, "the only one", lambda: hang(16, 0, members=1, pace=20)),
    _S(C.ALL_STAND, "three", lambda: hang(16, 0, 1, 2)),
    _S(C.ALL_STAND, "two", lambda: hang(12, 0, 1, members=2)),
    _S(C.ALL_STAND, "six, for long", lambda: hang(40, *range(6), members=6)),
    _S(C.MESSAGES_LOST, "a slow group, retention overtakes it", lambda: lost(50, 6)),
    _S(C.MESSAGES_LOST, "all is deleted", lambda: lost(0, 6, comes=0.0)),
    _S(C.MESSAGES_LOST, "few partitions", lambda: lost(20, 6, partitions=2, members=2)),
    _S(C.BROKER_TROUBLE, "a leader is silent", lambda: silent_leader(10)),
    _S(C.BROKER_TROUBLE, "the same, seen by two groups", lambda: silent_leader(10, witness=True)),
    _S(C.BROKER_TROUBLE, "partitions without a leader", no_leader),
    _S(C.BROKER_TROUBLE, "a broker serves a tenth", lambda: slow_broker(0.05, 16)),
    _S(C.BROKER_TROUBLE, "a broker serves nothing, and answers", lambda: slow_broker(0.0, 16)),
    _S(C.OPEN_TRANSACTION, "one partition", lambda: open_transaction(12, 0)),
    _S(C.OPEN_TRANSACTION, "all partitions", lambda: open_transaction(12, *range(6))),
    _S(C.OPEN_TRANSACTION, "for long", lambda: open_transaction(40, 2, 3)),
    _S(C.REWOUND, "all partitions", lambda: rewind(400, 8)),
    _S(C.REWOUND, "one partition", lambda: rewind(600, 8, 3)),
    _S(C.REWOUND, "to the beginning", lambda: rewind(10_000, 8)),
    _S(C.HOT_PARTITION, "six times", lambda: hot(12, 24)),
    _S(C.HOT_PARTITION, "one consumer each", lambda: hot(16, 14, 3, members=6)),
    _S(C.HOT_PARTITION, "of twelve", lambda: hot(20, 14, 7, partitions=12, members=4)),
    _S(C.HOT_PARTITION, "from the start", lambda: hot(15, 20, calm=1)),
    _S(C.SLOW_MEMBER, "one of three", lambda: one_slow(0, 2, 14)),
    _S(C.SLOW_MEMBER, "one of six", lambda: one_slow(4, 1, 16, members=6)),
    _S(C.SLOW_MEMBER, "one of two", lambda: one_slow(1, 3, 14, members=2)),
    _S(C.SLOW_PROCESSING, "to a quarter", lambda: slow(1.0, 14)),
    _S(C.SLOW_PROCESSING, "to a half", lambda: slow(2.0, 20)),
    _S(C.SLOW_PROCESSING, "a single consumer", lambda: slow(4, 14, members=1, pace=20)),
    _S(C.DATABASE_EXHAUSTED, "its own pool", lambda: with_pools(OWN_POOL, 1.0)),
    _S(C.DATABASE_EXHAUSTED, "PgBouncer queues", lambda: with_pools(BOUNCER, 1.0)),
    _S(C.DATABASE_EXHAUSTED, "max_connections", lambda: with_pools(NO_MORE, 1.5)),
    _S(C.DATABASE_EXHAUSTED, "nobody commits any more", lambda: with_pools(OWN_POOL, 0.0, 18)),
    _S(C.MORE_MEMBERS_THAN_PARTITIONS, "two of three", lambda: grows(7, 50, partitions=2, members=3, pace=5)),
    _S(C.MORE_MEMBERS_THAN_PARTITIONS, "one of six", lambda: grows(4, 50, partitions=1, members=6, pace=3)),
    _S(C.MORE_MEMBERS_THAN_PARTITIONS, "the eighth", lambda: grows(3.5, 50, partitions=6, members=8, pace=3)),
    _S(C.FEWER_MEMBERS_THAN_NEEDED, "two of three leave", lambda: fewer(1, 14, pace=5)),
    _S(C.FEWER_MEMBERS_THAN_NEEDED, "half leave", lambda: fewer(3, 14, members=6, pace=2.5)),
    _S(C.FEWER_MEMBERS_THAN_NEEDED, "half as much again comes", lambda: grows(3.2, 30, pace=5)),
    _S(C.FEWER_MEMBERS_THAN_NEEDED, "three times as much, for long", lambda: grows(6, 60, pace=6)),
    _S(C.SPIKE, "it passes", lambda: burst(12, 5, 4, pace=6)),
    _S(C.SPIKE, "it has just begun", lambda: burst(12, 9, 0, pace=6)),
    _S(C.SPIKE, "a large one", lambda: burst(40, 4, 8, pace=10)),
    _S(C.CATCHING_UP, "after an outage", lambda: outage(20, 8, pace=8)),
    _S(C.CATCHING_UP, "after a longer one", lambda: outage(40, 8, pace=7)),
    _S(C.CATCHING_UP, "most of it done", lambda: outage(16, 12, pace=7)),
    # two at once
    _S(C.NO_MEMBERS, "retention overtakes it",
       lambda: two(lambda: gone(14), 6, lambda s: s.delete_unread(30)), also=C.MESSAGES_LOST),
    _S(C.MESSAGE_STANDS, "and another partition is hot",
       lambda: two(lambda: hot(14, 4, 1), 16, lambda s: s.main.stands.add(2)), also=C.HOT_PARTITION),
    _S(C.MESSAGE_STANDS, "and another member hangs",
       lambda: two(lambda: message(4, 2), 16, lambda s: setattr(s.main.consumers[1], "hangs", True)),
       also=C.MEMBER_WEDGED),
    _S(C.MEMBER_WEDGED, "and a partition of another is hot",
       lambda: two(lambda: hang(4, 0), 16, lambda s: s.rate(14, 1)), also=C.HOT_PARTITION),
    _S(C.OPEN_TRANSACTION, "and a message stands",
       lambda: two(lambda: open_transaction(6, 0), 16, lambda s: s.main.stands.add(2)), also=C.MESSAGE_STANDS),
    _S(C.MESSAGES_LOST, "while one member hangs",
       lambda: two(lambda: hang(14, 1), 6, lambda s: s.delete_unread(30)), also=C.MEMBER_WEDGED),
    _S(C.REWOUND, "and each consumer is slower",
       lambda: two(lambda: rewind(500, 1), 8, lambda s: s.pace(1.2)), also=C.SLOW_PROCESSING),
)  # fmt: skip


# -- innocent -------------------------------------------------------------------------------------


def calm(polls: int = 30, **given: Any) -> Shop:
    """Nothing happens."""
    return Shop(**given).run(polls)


def seldom(every: int, polls: int) -> Shop:
    """Commits are far apart, by design."""
    shop = Shop()
    shop.main.commits_every = every
    return shop.run(polls)


def moved_off() -> Shop:
    """The group reads another topic now; its old commits stay."""
    shop = Shop()
    shop.add_topic("new", 6, 1.0)
    shop.run(6)
    shop.cluster.commit(GROUP, "new", *[log.end for log in shop.cluster.topics["new"].logs])
    old = shop.groups.pop(GROUP)
    shop.groups[GROUP] = readers = type(old)(GROUP, "new", [Consumer("g-0", 20.0)])
    readers.done = {p: float(log.end) for p, log in enumerate(shop.cluster.topics["new"].logs)}
    shop.assign()
    return shop.run(24)


def retired() -> Shop:
    """Nobody ever reads: mirrored from another cluster, or thrown away."""
    shop = Shop()
    shop.members(0)
    return shop.run(20)


def deploy() -> Shop:
    """Each member restarts, one after the other."""
    shop = _shop()
    for _ in range(3):
        _then(shop, 1, lambda s: s.members(2))
        _then(shop, 2, lambda s: s.members(3))
    return shop.run(2)


def noisy() -> Shop:
    """What comes goes up and down, within what the group manages."""
    shop = Shop()
    shop.each_poll.append(lambda poll: shop.rate((0.5, 2.0, 4.0, 1.0)[poll % 4]))
    return shop.run(40)


def idle_members() -> Shop:
    """A spare member is no fault where nothing waits."""
    return calm(partitions=2, members=3)


NO_FAULT: Final = frozenset(
    {Cause.HEALTHY, Cause.NEVER_ACTIVE, Cause.NOT_CONSUMED, Cause.SELDOM_COMMITS, Cause.CANNOT_TELL}
)
"""Causes that are no fault of anybody, or not known to be."""

INNOCENT: Final[tuple[tuple[str, Callable[[], Shop]], ...]] = (
    ("load", calm),
    ("much load", lambda: calm(rate=4.0, pace=9.0)),
    ("little load", lambda: calm(rate=0.02, polls=40)),
    ("no load", lambda: calm(rate=0)),
    ("a lot of members", lambda: calm(members=6)),
    ("a spare member", idle_members),
    ("skewed, and kept up with", lambda: hot(6, 20, 1)),
    ("seldom commits", lambda: seldom(40, 100)),
    ("commits each two minutes", lambda: seldom(8, 60)),
    ("topic left", moved_off),
    ("nobody ever reads", retired),
    ("a rolling deploy", deploy),
    ("up and down", noisy),
    ("a short spike, read at once", lambda: burst(4, 2, 6)),
    ("short transactions", lambda: open_transaction(3, 0)),
    ("just started", lambda: calm(polls=2)),
)
