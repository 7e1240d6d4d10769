from __future__ import annotations

from monitor.analysis.losses import Losses


def test_what_was_deleted_unread_is_counted_once_and_stays_counted() -> None:
    losses = Losses()
    losses.see("g", "t", 0, committed=10, log_start=0)
    assert losses.of("g") == {"t": {0: 0}}  # a series at 0, so that an increase can be seen
    losses.see("g", "t", 0, committed=10, log_start=15)
    losses.see("g", "t", 0, committed=10, log_start=15)
    assert losses.of("g") == {"t": {0: 5}}
    losses.see("g", "t", 0, committed=10, log_start=18)
    losses.see("g", "t", 0, committed=18, log_start=18)
    assert losses.of("g") == {"t": {0: 8}}


def test_a_rewind_into_what_was_counted_loses_nothing_twice() -> None:
    losses = Losses()
    losses.see("g", "t", 0, committed=10, log_start=15)
    losses.see("g", "t", 0, committed=0, log_start=15)
    assert losses.of("g") == {"t": {0: 5}}


def test_gone_groups_and_topics_created_anew_are_forgotten() -> None:
    losses = Losses()
    losses.see("g", "t", 0, committed=10, log_start=15)
    losses.forget("t")
    assert losses.of("g") == {}
    losses.see("g", "u", 0, committed=10, log_start=15)
    losses.retain(["other"])
    assert losses.of("g") == {}
