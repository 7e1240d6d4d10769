"""The harness of end-to-end tests: a fake target stands for the monitor and the services."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from order_services.domain.services import SERVICES
from tests.support import anger
from tests.support.alert_pace import Pace
from tests.support.alerting import Alerting, targets_of
from tests.support.anger import Fault, of

ADDRESSES = {"dashboards": "https://grafana.example", "runbooks": "https://git.example/main"}
GROUPS = [f"group-{number}" for number in range(40)]
HEALTHY = [
    'kafka_monitor_up{cluster="test"} 1',
    'kafka_monitor_broker_up{broker="1"} 1',
    *(f'kafka_consumergroup_members{{consumergroup="{group}"}} 1' for group in GROUPS),
    *(f'kafka_consumergroup_active{{consumergroup="{group}",by="members"}} 1' for group in GROUPS),
]


def lag(messages: int, *groups: str) -> list[str]:
    return [
        f'kafka_consumergroup_readable_lag{{consumergroup="{group}",topic="t"}} {messages}'
        for group in groups
    ]


def wedged(messages: int, *groups: str) -> list[str]:
    """Lag at a committed offset that does not move."""
    return [
        *lag(messages, *groups),
        *(
            f'kafka_consumergroup_stuck_partitions{{consumergroup="{group}",topic="t"}} '
            f"{int(messages > 0)}"
            for group in groups
        ),
    ]


def in_cluster(name: str, samples: list[str]) -> list[str]:
    """Return the same of a cluster with a name."""
    without = [line.replace('cluster="test"', "").replace("{,", "{") for line in samples]
    return [line.replace("{", f'{{cluster="{name}",', 1) for line in without]


class FakeTarget:
    """Serves whatever samples a test gives it."""

    def __init__(self) -> None:
        self.show([])
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(target.page)

            def log_message(self, *_: Any) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def show(self, samples: list[str]) -> None:
        self.page = "".join(f"{line}\n" for line in samples).encode()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def target() -> Iterator[FakeTarget]:
    fake = FakeTarget()
    fake.show(HEALTHY + wedged(0, *GROUPS))
    yield fake
    fake.stop()


@pytest.fixture
def services() -> Iterator[list[tuple[str, str]]]:
    fake = FakeTarget()
    yield [(service, fake.url) for service in SERVICES]
    fake.stop()


@pytest.fixture
def alerting(
    target: FakeTarget, services: list[tuple[str, str]], tmp_path: Path
) -> Iterator[Alerting]:
    pace = Pace(factor=100.0, scrape_interval_seconds=0.5, shortest_window_seconds=3.0)
    targets = targets_of(target.url, services)
    with Alerting(tmp_path / "alerting", targets, pace, addresses=ADDRESSES) as running:
        yield running


def test_an_alert_is_told_when_it_fires_and_when_it_is_resolved(
    alerting: Alerting, target: FakeTarget
) -> None:
    target.show(HEALTHY + wedged(0, *GROUPS[1:]) + lag(1500, "group-0"))
    notice = alerting.wait_until_told("KafkaConsumerLagHigh", consumergroup="group-0")
    assert notice.receiver == "chat"
    # it can be clicked, and where it leads is no label that others group by
    assert notice.annotations["runbook_url"] == (
        "https://git.example/main/alerts/runbooks/KafkaConsumerLagHigh.md"
    )
    assert notice.annotations["dashboard_url"] == (
        "https://grafana.example/d/consumer-groups?var-group=group-0&var-topic=t"
    )
    assert not notice.labels.keys() & ADDRESSES.keys()
    assert "group-0 has 1.5k unread" in notice.annotations["description"]
    target.show(HEALTHY + wedged(0, *GROUPS))
    alerting.wait_until_resolved("KafkaConsumerLagHigh", consumergroup="group-0")
    alerting.wait_until_quiet()
    assert alerting.fired() == alerting.told() == {"KafkaConsumerLagHigh"}, alerting.describe()


def test_a_wedged_group_pages(alerting: Alerting, target: FakeTarget) -> None:
    target.show(HEALTHY + wedged(0, *GROUPS[1:]) + wedged(5000, "group-0"))
    notice = alerting.wait_until_told("KafkaConsumerStuck", consumergroup="group-0")
    assert notice.receiver == "pager"
    alerting.wait_until_firing("KafkaConsumerLagHigh")
    target.show(HEALTHY + wedged(0, *GROUPS))
    alerting.wait_until_resolved("KafkaConsumerStuck")
    alerting.wait_until_quiet()
    assert alerting.fired() == {"KafkaConsumerLagHigh", "KafkaConsumerStuck"}


@pytest.mark.heavy
def test_a_dead_broker_pages_once_and_not_for_each_of_forty_groups(
    alerting: Alerting, target: FakeTarget
) -> None:
    broken = [line.replace('broker="1"} 1', 'broker="1"} 0') for line in HEALTHY]
    target.show(broken + wedged(0, *GROUPS))
    alerting.wait_until_told("KafkaBrokerDown", broker="1")
    target.show(broken + wedged(5000, *GROUPS))
    alerting.wait_until_firing("KafkaConsumerStuck", consumergroup="group-39")
    alerting.wait_until_firing("KafkaConsumerLagHigh", consumergroup="group-39")
    alerting.settle()
    # first the groups, then the broker: what was held back must not be told at the end
    target.show(broken + wedged(0, *GROUPS))
    alerting.wait_until_not_firing("KafkaConsumerStuck")
    alerting.wait_until_not_firing("KafkaConsumerLagHigh")
    target.show(HEALTHY + wedged(0, *GROUPS))
    alerting.wait_until_resolved("KafkaBrokerDown")
    alerting.settle()
    assert alerting.told() == {"KafkaBrokerDown"}, alerting.describe()
    pages = [
        message
        for message in alerting.webhook.messages()
        if message["status"] == "firing" and message["groupLabels"]["component"] != "canary"
    ]
    assert len(pages) == 1


@pytest.mark.heavy  # the routes without a real Prometheus: test_inhibitions
def test_a_dead_broker_of_one_cluster_mutes_nothing_of_the_other(
    alerting: Alerting, target: FakeTarget
) -> None:
    healthy = HEALTHY + wedged(0, *GROUPS)
    both = [*in_cluster("a", healthy), *in_cluster("b", healthy)]
    target.show(both)
    alerting.wait_until_quiet()
    broken = [line.replace('broker="1"} 1', 'broker="1"} 0') for line in HEALTHY]
    ill = [*in_cluster("a", broken), *in_cluster("b", HEALTHY)]
    target.show([*ill, *in_cluster("a", wedged(0, *GROUPS)), *in_cluster("b", wedged(0, *GROUPS))])
    alerting.wait_until_told("KafkaBrokerDown", broker="1", cluster="a")
    stuck = [*wedged(90, "group-0"), *wedged(0, *GROUPS[1:])]
    target.show([*ill, *in_cluster("a", stuck), *in_cluster("b", stuck)])
    alerting.wait_until_told("KafkaConsumerStuck", consumergroup="group-0", cluster="b")
    alerting.wait_until_firing("KafkaConsumerStuck", consumergroup="group-0", cluster="a")
    alerting.settle()
    told = {
        (notice.name, notice.labels["cluster"])
        for notice in alerting.webhook.notices()
        if "cluster" in notice.labels
    }
    assert told == {("KafkaBrokerDown", "a"), ("KafkaConsumerStuck", "b")}, alerting.describe()


def test_the_monitors_own_fault_and_settings_are_told_to_the_chat(
    alerting: Alerting, target: FakeTarget
) -> None:
    errors = [
        f'kafka_monitor_internal_errors{{cluster="test",step="retention",subject="{group}"}} 1'
        for group in GROUPS[:2]
    ]
    unread = ["kafka_monitor_config_last_reload_successful 0"]
    target.show(HEALTHY + wedged(0, *GROUPS) + errors + unread)
    notice = alerting.wait_until_told("KafkaMonitorInternalError", step="retention")
    assert notice.receiver == "chat"
    assert "retention for 2 groups" in notice.annotations["description"]
    notice = alerting.wait_until_told("KafkaMonitorConfigReloadFailed")
    assert notice.receiver == "chat"
    read = ["kafka_monitor_config_last_reload_successful 1"]
    target.show(HEALTHY + wedged(0, *GROUPS) + read)
    alerting.wait_until_resolved("KafkaMonitorInternalError")
    alerting.wait_until_resolved("KafkaMonitorConfigReloadFailed")
    assert alerting.told() == {"KafkaMonitorInternalError", "KafkaMonitorConfigReloadFailed"}


@pytest.mark.heavy
def test_a_target_that_goes_away_is_told_with_its_service(
    alerting: Alerting, target: FakeTarget, services: list[tuple[str, str]]
) -> None:
    gone = "http://127.0.0.1:9"  # the discard port: nobody answers
    alerting.write_targets(targets_of(target.url, [("gateway", gone), *services[1:]]))
    notice = alerting.wait_until_told("OrderServiceDown", service="gateway")
    assert notice.receiver == "pager"
    alerting.write_targets(targets_of(target.url, services))
    alerting.wait_until_resolved("OrderServiceDown", service="gateway")
    alerting.settle()
    assert alerting.told() == {"OrderServiceDown"}, alerting.describe()


@pytest.mark.heavy
def test_a_fault_that_is_not_told_alone_is_noticed(
    alerting: Alerting, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anger, "TIMEOUT_S", 15.0)
    scene: Any = SimpleNamespace(alerting=alerting)
    lag_high = of("KafkaConsumerLagHigh", consumergroup="group-1")
    stuck = of("KafkaConsumerStuck", consumergroup="group-0")

    def showing(samples: list[str]) -> Callable[[Any], AbstractContextManager[None]]:
        @contextmanager
        def shown(_: Any) -> Iterator[None]:
            target.show(HEALTHY + samples)
            yield
            target.show(HEALTHY + wedged(0, *GROUPS))

        return shown

    lagging = showing(wedged(0, "group-0", *GROUPS[2:]) + lag(1500, "group-1"))
    both = showing(wedged(90, "group-0") + lag(1500, "group-1") + wedged(0, *GROUPS[2:]))
    outcome = anger.check(scene, Fault("as it should be", lagging, told=(lag_high,)))
    assert outcome.told == {"KafkaConsumerLagHigh": 1}
    with pytest.raises(AssertionError, match="no message that KafkaConsumerStuck"):
        anger.check(scene, Fault("the wrong one", lagging, told=(stuck,)))
    target.show(HEALTHY + wedged(0, *GROUPS))
    alerting.wait_until_quiet()
    with pytest.raises(AssertionError, match=r"LagHigh.* fired"):
        anger.check(scene, Fault("one too many", both, told=(stuck,)))
    with pytest.raises(AssertionError, match=r"LagHigh.* were told"):
        anger.check(
            scene,
            Fault("not held back", both, told=(stuck,), fires=(lag_high,), silent=(lag_high,)),
        )


@pytest.mark.heavy
def test_a_fault_that_does_not_clear_is_noticed(
    alerting: Alerting, target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anger, "TIMEOUT_S", 15.0)

    @contextmanager
    def left(_: Any) -> Iterator[None]:
        target.show(HEALTHY + wedged(0, *GROUPS[1:]) + lag(1500, "group-0"))
        yield

    scene: Any = SimpleNamespace(alerting=alerting)
    with pytest.raises(AssertionError, match=r"KafkaConsumerLagHigh .* is resolved"):
        anger.check(scene, Fault("not repaired", left, told=(of("KafkaConsumerLagHigh"),)))
