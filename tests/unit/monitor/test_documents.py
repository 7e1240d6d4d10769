"""Documents are made once a poll and shared by all who look."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import monitor.web.pages
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.web.app import create_app
from monitor.web.documents import Document, Documents
from monitor.web.live import MAX_LISTENERS
from tests.support.asgi import Client
from tests.unit.monitor.test_web import make


def counted(made: list[str], text: str = "found") -> Callable[[], Document]:
    def make_it() -> Document:
        made.append(text)
        return Document.of(text)

    return make_it


@pytest.mark.parametrize(
    ("path", "maker"),
    [
        ("/page/groups", "overview_document"),
        ("/page/group?group=g", "group_document"),
        ("/page/topic?topic=t", "topic_document"),
    ],
)
def test_a_document_is_made_once_a_poll_and_not_once_a_viewer(
    monkeypatch: pytest.MonkeyPatch, path: str, maker: str
) -> None:
    made: list[Any] = []
    original = getattr(monitor.web.pages, maker)

    def count(*given: Any, **named: Any) -> Any:
        made.append(given)
        return original(*given, **named)

    monkeypatch.setattr(monitor.web.pages, maker, count)
    brokers, poller, clock = make()
    poller.poll()
    client = Client(create_app(poller))
    first = {client.get(path).content for _ in range(5)}
    assert (len(first), len(made)) == (1, 1)
    brokers.commits["g"] = GroupCommits({"t": {0: 3}})
    clock.now += 15
    poller.poll()
    assert client.get(path).content not in first
    assert len(made) == 2


def test_those_who_ask_at_once_wait_for_the_one_that_is_made() -> None:
    _, poller, _ = make()
    poller.poll()
    documents, made, may_end = Documents(), list[str](), threading.Event()

    def slowly() -> Document:
        made.append("group")
        may_end.wait(60)
        return Document.of("group")

    found: list[Document | None] = []
    askers = [
        threading.Thread(target=lambda: found.append(documents.get(poller, ("g",), slowly)))
        for _ in range(4)
    ]
    for asker in askers:
        asker.start()
    # another document is not held up by it
    assert documents.get(poller, ("other",), counted(made, "other")) == Document.of("other")
    may_end.set()
    for asker in askers:
        asker.join(60)
    assert made.count("group") == 1
    assert found == [Document.of("group")] * 4


def test_what_is_not_there_is_asked_for_again() -> None:
    _, poller, _ = make()
    poller.poll()
    documents, made = Documents(), list[str]()
    assert documents.get(poller, ("g",), lambda: None) is None
    assert documents.get(poller, ("g",), counted(made)) == Document.of("found")


def test_what_has_become_too_old_is_not_kept() -> None:
    """Nothing polls any more: what is left out grows by the second."""
    _, poller, clock = make()
    poller.poll()
    documents, made = Documents(), list[str]()
    clock.now += 60
    for _ in range(2):
        documents.get(poller, ("g",), counted(made))
    assert len(made) == 2


def test_who_asks_for_all_in_turn_does_not_fill_the_memory() -> None:
    _, poller, _ = make()
    poller.poll()
    documents, made = Documents(), list[str]()
    for number in range(3 * MAX_LISTENERS):
        documents.get(poller, ("group", str(number)), counted(made))
    documents.get(poller, ("group", str(3 * MAX_LISTENERS - 1)), counted(made))
    assert len(made) == 3 * MAX_LISTENERS
    (of_poll,) = documents._made.values()
    assert len(of_poll.entries) == MAX_LISTENERS
