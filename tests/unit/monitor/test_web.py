from __future__ import annotations

import socket

import pytest
from flask import Flask

from monitor.exposition.series import Block
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import GroupCommits, ListedGroup
from monitor.model import CLASSIC
from monitor.poller import Poller
from monitor.web.app import create_app
from monitor.web.server import AddressError, WebServer
from tests.unit.monitor.fake_brokers import FakeBrokers


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def make(group: str = "g") -> tuple[FakeBrokers, Poller, Clock]:
    brokers = FakeBrokers(
        groups={1: [ListedGroup(group, CLASSIC, "Empty", "consumer")]},
        commits={group: GroupCommits({"t": {0: 4}})},
    )
    clock = Clock()
    collector = Collector(brokers, Intervals(), clock=clock, monotonic=clock)
    return brokers, Poller(collector, stale_after_s=45, clock=clock, monotonic=clock), clock


def test_ready_is_503_with_the_reason_until_the_first_poll_and_when_data_is_stale() -> None:
    brokers, poller, clock = make()
    client = create_app(poller).test_client()
    waiting = client.get("/ready")
    assert waiting.status_code == 503
    assert "first poll" in waiting.get_json()["reason"]
    assert b"kafka_monitor_up" in client.get("/metrics").data
    poller.poll()
    assert client.get("/ready").status_code == 200
    brokers.down = {1, 2}
    for _ in range(4):
        clock.now += 15
        poller.poll()
    stale = client.get("/ready")
    assert stale.status_code == 503
    assert "60 s old" in stale.get_json()["reason"]
    assert b'kafka_monitor_up{cluster="cluster"} 0' in client.get("/metrics").data
    brokers.down = set()
    poller.poll()
    assert client.get("/ready").status_code == 200
    assert client.get("/health").status_code == 200


def test_a_scrape_asks_no_broker_and_renders_nothing() -> None:
    brokers, poller, _ = make()
    client = create_app(poller).test_client()
    poller.poll()
    brokers.asked.clear()
    page = poller.latest.page
    for encoding in ("identity", "gzip") * 5:
        assert client.get("/metrics", headers={"Accept-Encoding": encoding}).status_code == 200
    assert brokers.asked == []
    assert poller.latest.page is page


def test_nobody_is_told_ready_before_the_page_of_that_poll_is_served() -> None:
    _, poller, _ = make()
    while_rendering = []

    def more_blocks() -> tuple[Block, ...]:
        while_rendering.append(poller.unready_reason())
        return ()

    poller._more_blocks = more_blocks
    poller.poll()
    assert while_rendering == ["the first poll has not ended"]
    assert poller.unready_reason() is None


def test_metrics_are_the_same_bytes_plain_and_compressed() -> None:
    _, poller, _ = make()
    poller.poll()
    client = create_app(poller).test_client()
    plain = client.get("/metrics")
    gzipped = client.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert plain.data == poller.latest.page.plain
    assert gzipped.data == poller.latest.page.gzipped
    assert gzipped.headers["Content-Encoding"] == "gzip"
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    refusing = client.get("/metrics", headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in refusing.headers


def test_the_page_shows_lag_and_escapes_names() -> None:
    _, poller, _ = make("<script>alert(1)</script>")
    client = create_app(poller).test_client()
    assert client.get("/").status_code == 200
    poller.poll()
    html = client.get("/").get_data(as_text=True)
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert '<span class="n">6 <small>unread</small></span>' in html
    assert "http://" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in client.get("/").headers["Content-Security-Policy"]


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/no", 404), ("POST", "/ready", 405)])
def test_errors_are_json(method: str, path: str, code: int) -> None:
    _, poller, _ = make()
    answer = create_app(poller).test_client().open(path, method=method)
    assert answer.status_code == code
    assert answer.get_json()["error"]["message"]


def test_a_taken_port_says_which_setting_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match="--port or MONITOR_PORT"):
            WebServer(Flask("x"), "127.0.0.1", port).bind()
