from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from order_services.domain.events import Event, EventType, new_id
from order_services.inventory.rules import take
from order_services.payment.rules import REASON_REFUSED, Rules
from order_services.shipping.handler import HANDLES, reported_facts


def test_a_refusal_depends_on_the_order_alone_and_hits_its_share() -> None:
    rules = Rules(refusal_rate=0.2)
    ids = [new_id() for _ in range(5000)]
    refused = [rules.refusal(each, 1) for each in ids]
    assert refused == [rules.refusal(each, 1) for each in ids]
    assert 0.15 < refused.count(REASON_REFUSED) / len(ids) < 0.25


def test_without_a_rate_nothing_is_refused() -> None:
    assert all(Rules().refusal(new_id(), 1) is None for _ in range(100))


quantities = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5), min_size=1)


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 10)), st.lists(quantities))
def test_stock_is_taken_whole_or_not_at_all_and_never_below_zero(
    available: dict[str, int], orders: list[dict[str, int]]
) -> None:
    before = dict(available)
    given_out = [wanted for wanted in orders if not take(available, wanted)]
    assert all(pieces >= 0 for pieces in available.values())
    for product, pieces in before.items():
        assert pieces - available[product] == sum(each.get(product, 0) for each in given_out)


@given(st.lists(st.sampled_from(sorted(HANDLES)), min_size=1), st.randoms())
def test_reported_facts_do_not_depend_on_order_or_repetition(
    types: list[EventType], shuffler: random.Random
) -> None:
    order_id = new_id()
    events = [Event(each, order_id, {"acceptedAt": "t"}, "s", "c") for each in types]
    again = [*events, *events]
    shuffler.shuffle(again)
    assert reported_facts(events) == reported_facts(again)
