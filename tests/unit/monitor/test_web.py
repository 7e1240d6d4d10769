from __future__ import annotations

import os
import signal
import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

import monitor.web.overview
import monitor.web.pages
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC
from monitor.poller import Poller
from monitor.state import State
from monitor.web.app import create_app
from monitor.web.overview import Overview, overview
from monitor.web.server import AddressError, WebServer
from tests.support.asgi import Client
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
    client = Client(create_app(poller))
    waiting = client.get("/ready")
    assert waiting.status_code == 503
    assert "first poll" in waiting.json()["reason"]
    assert b"kafka_monitor_up" in client.get("/metrics").content
    poller.poll()
    assert client.get("/ready").status_code == 200
    brokers.down = {1, 2}
    for _ in range(4):
        clock.now += 15
        poller.poll()
    stale = client.get("/ready")
    assert stale.status_code == 503
    assert "60 s old" in stale.json()["reason"]
    assert b'kafka_monitor_up{cluster="cluster"} 0' in client.get("/metrics").content
    brokers.down = set()
    poller.poll()
    assert client.get("/ready").status_code == 200
    assert client.get("/health").status_code == 200


def test_a_scrape_asks_no_broker_and_renders_nothing() -> None:
    brokers, poller, _ = make()
    client = Client(create_app(poller))
    poller.poll()
    brokers.asked.clear()
    page = poller.latest.page
    for encoding in ("identity", "gzip") * 5:
        assert client.get("/metrics", headers={"Accept-Encoding": encoding}).status_code == 200
    assert brokers.asked == []
    assert poller.latest.page is page


def test_nobody_is_told_ready_before_the_page_of_that_poll_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, poller, _ = make()
    while_rendering = []
    render = poller._renderer.parts

    def parts(*arguments: Any) -> Any:
        while_rendering.append(poller.unready_reason())
        return render(*arguments)

    monkeypatch.setattr(poller._renderer, "parts", parts)
    poller.poll()
    assert while_rendering == ["the first poll has not ended"]
    assert poller.unready_reason() is None


def test_metrics_are_the_same_bytes_plain_and_compressed() -> None:
    _, poller, _ = make()
    poller.poll()
    client = Client(create_app(poller))
    plain = client.get("/metrics", headers={"Accept-Encoding": "identity"})
    gzipped = client.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert plain.content == poller.page().plain
    assert gzipped.content == poller.page().plain
    assert gzipped.headers["Content-Encoding"] == "gzip"
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    refusing = client.get("/metrics", headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in refusing.headers


def test_the_page_shows_lag_and_escapes_names() -> None:
    _, poller, _ = make("<script>alert(1)</script>")
    client = Client(create_app(poller))
    assert client.get("/").status_code == 200
    poller.poll()
    html = client.get("/").text
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert '<td class="n">6</td>' in html
    assert "http://" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in client.get("/").headers["Content-Security-Policy"]


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/no", 404), ("POST", "/ready", 405)])
def test_errors_are_json(method: str, path: str, code: int) -> None:
    _, poller, _ = make()
    answer = Client(create_app(poller)).request(method, path)
    assert answer.status_code == code
    assert answer.json()["error"]["message"]


def test_a_taken_port_says_which_setting_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match="--port or MONITOR_PORT"):
            WebServer(create_app(make()[1]), "127.0.0.1", port).bind()


def test_the_status_page_is_rendered_once_a_poll_and_not_once_a_visitor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str | None] = []

    def count(state: State) -> Overview:
        made.append(state.cluster)
        return overview(state)

    monkeypatch.setattr(monitor.web.pages, "overview", count)
    brokers, poller, clock = make()
    poller.poll()
    client = Client(create_app(poller))
    pages = {client.get("/").text for _ in range(5)}
    assert (len(pages), len(made)) == (1, 1)
    brokers.commits["g"] = GroupCommits({"t": {0: 3}})
    clock.now += 15
    poller.poll()
    assert '<td class="n">7</td>' in client.get("/").text
    assert len(made) == 2
    clock.now += 60  # nothing polls any more: the page says so, without a poll
    assert "the data is 60 s old" in client.get("/").text


def test_an_error_of_ours_is_json_without_a_trace_and_the_log_has_its_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("secret")

    _, poller, _ = make()
    client = Client(create_app(poller))
    monkeypatch.setattr(poller, "page", fail)
    monkeypatch.setattr(monitor.web.pages, "overview", fail)
    with capture_logs() as logs:
        for path in ("/metrics", "/"):
            answer = client.get(path)
            assert answer.status_code == 500
            assert "secret" not in answer.text
            assert answer.json()["error"]["message"]
    assert logs
    assert client.get("/health").status_code == 200


def test_a_stop_in_the_middle_of_the_start_is_an_orderly_one() -> None:
    server = WebServer(create_app(make()[1]), "127.0.0.1", 0)
    server.bind()
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in stops}
    hung_up: list[int] = []

    def begin() -> None:
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)

    try:
        server.serve_until_stopped(begin, on_hangup=lambda: hung_up.append(1))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert hung_up == [1]
