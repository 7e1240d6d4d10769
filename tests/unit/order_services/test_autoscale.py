"""`order-services autoscale`: follows the monitor, within bounds, and does nothing without an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from order_services.operations.autoscale import Advice, Autoscaler, Monitor, UnknownError


class Programs:
    """Stands in for a running system: it starts at once what it is asked for."""

    def __init__(self) -> None:
        self.counts = {"payment": 2, "inventory": 1}
        self.asked: list[Mapping[str, int]] = []

    def running(self) -> Mapping[str, int]:
        return dict(self.counts)

    def ask(self, counts: Mapping[str, int]) -> None:
        self.asked.append(counts)
        self.counts.update(counts)


class Scaled:
    def __init__(self, least: int = 1, most: int = 9) -> None:
        self.programs = Programs()
        self.said: list[str] = []
        self.advice: dict[str, Advice | str] = {
            "payment-service-group": Advice(2, "all is well"),
            "inventory-service-group": Advice(1, "all is well"),
        }
        self.autoscaler = Autoscaler(
            ("payment", "inventory"), self.ask, self.programs, self.said.append,
            least=least, most=most,
        )  # fmt: skip

    def ask(self, group: str) -> Advice:
        found = self.advice[group]
        if isinstance(found, str):
            raise UnknownError(found)
        return found


def test_replicas_follow_the_advice_and_the_reason_is_told() -> None:
    scaled = Scaled()
    scaled.autoscaler.step()
    assert scaled.programs.asked == []
    scaled.advice["payment-service-group"] = Advice(5, "480.0 messages/s come")
    scaled.autoscaler.step()
    scaled.autoscaler.step()
    assert scaled.programs.asked == [{"payment": 5}]
    assert scaled.said == ["payment 2 -> 5: 480.0 messages/s come"]


@pytest.mark.parametrize(("advised", "had"), [(0, 2), (1, 2), (3, 3), (9, 4), (100, 4)])
def test_replicas_stay_within_their_bounds(advised: int, had: int) -> None:
    scaled = Scaled(least=2, most=4)
    scaled.advice["payment-service-group"] = Advice(advised, "so it is")
    scaled.autoscaler.step()
    assert scaled.programs.counts["payment"] == had
    if had not in (advised, 2):
        assert f"({advised} are advised)" in scaled.said[0]


def test_without_an_answer_nothing_is_changed_and_that_is_told_once() -> None:
    scaled = Scaled()
    scaled.advice["payment-service-group"] = "the monitor does not answer"
    scaled.advice["inventory-service-group"] = Advice(3, "messages wait")
    scaled.autoscaler.step()
    scaled.autoscaler.step()
    assert scaled.programs.counts == {"payment": 2, "inventory": 3}
    assert scaled.said == [
        "payment stays as it is: the monitor does not answer",
        "inventory 1 -> 3: messages wait",
    ]
    scaled.advice["payment-service-group"] = Advice(4, "messages wait")
    scaled.autoscaler.step()
    assert scaled.programs.counts["payment"] == 4


# -- over HTTP ----------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Yield the URL of a server, and what it answers by path."""
    answers: dict[str, tuple[int, bytes]] = {}

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b"no"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    serving = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}/", answers
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_the_monitor_is_asked_for_the_group(
    server: tuple[str, dict[str, tuple[int, bytes]]],
) -> None:
    url, answers = server
    body = json.dumps({"replicas": 3, "reason": "messages wait", "more": 1}).encode()
    answers["/api/v1/scaling/a%2Fb"] = (200, body)
    assert Monitor(url)("a/b") == Advice(3, "messages wait")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b'{"error": {"message": "not known: no poll", "field": null}}', "not known: no poll"),
        (500, b"<html>", "answers 500"),
        (200, b"<html>", "is no answer of the monitor"),
        (200, b'{"replicas": null, "reason": ""}', "is no answer of the monitor"),
        (200, b"[]", "is no answer of the monitor"),
    ],
)
def test_what_is_no_number_is_told(
    server: tuple[str, dict[str, tuple[int, bytes]]], status: int, body: bytes, said: str
) -> None:
    url, answers = server
    answers["/api/v1/scaling/g"] = (status, body)
    with pytest.raises(UnknownError, match=said):
        Monitor(url)("g")


def test_a_monitor_that_is_away_is_told() -> None:
    with pytest.raises(UnknownError, match="does not answer"):
        Monitor("http://127.0.0.1:1")("g")
