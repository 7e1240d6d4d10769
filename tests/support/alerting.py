"""A real Prometheus and Alertmanager with our rules and routes, and a webhook that hears of alerts.

    with Alerting(directory, targets) as alerting:
        ...                                           # break something
        alerting.wait_until_told("KafkaConsumerStuck", consumergroup="payment-service-group")
        ...                                           # repair it
        alerting.wait_until_resolved("KafkaConsumerStuck")
        alerting.settle()                             # before saying what was not told
        assert alerting.told() == {"KafkaConsumerStuck"}

What is told came through Alertmanager's routes and inhibitions; `fired` is what Prometheus thought.
Times are shortened as `alert_pace` says.
"""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from order_services.local.ports import LOOPBACK, free_port
from order_services.local.process import ManagedProcess
from tests.support.alert_pace import Pace
from tests.support.programs import program
from tests.support.waiting import wait_for

REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT_S: Final = 60.0
HTTP_TIMEOUT_S: Final = 10.0
CANARY: Final = "Canary"

Targets = Mapping[str, Sequence[Mapping[str, Any]]]
"""Groups of targets by job, as in a file of targets: {"targets": [...], "labels": {...}}."""


def targets_of(
    monitor_url: str, service_urls: Iterable[tuple[str, str]], cluster: str | None = None
) -> Targets:
    """Return the targets of a running system; `service_urls` has (service, url) of each replica.

    `cluster` is the name of the services' cluster, if it has one.
    """
    of_cluster = {} if cluster is None else {"cluster": cluster}
    return {
        "kafka-monitor": [{"targets": [_address(monitor_url)]}],
        "order-services": [
            {"targets": [_address(url)], "labels": {"service": service, **of_cluster}}
            for service, url in service_urls
        ],
    }


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert in a message to a receiver."""

    receiver: str
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Say whether this is an alert of that name that has at least these labels."""
        return self.name == name and labels.items() <= self.labels.items()


@dataclass
class Webhook:
    """Hears what Alertmanager sends to `/<receiver>`."""

    _notices: list[Notice] = field(default_factory=list)
    _messages: list[Mapping[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen on a free port."""
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook._hear(self.path.strip("/"), json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Write nothing: a test's output is for what went wrong."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def url(self) -> str:
        """Where receivers post to, without the receiver's name."""
        assert self._server is not None
        return f"http://{LOOPBACK}:{self._server.server_address[1]}"

    def notices(self) -> list[Notice]:
        """Return all that was heard, oldest first."""
        with self._lock:
            return list(self._notices)

    def messages(self) -> list[Mapping[str, Any]]:
        """Return the messages as Alertmanager sent them, oldest first."""
        with self._lock:
            return list(self._messages)

    def _hear(self, receiver: str, message: Mapping[str, Any]) -> None:
        found = [
            Notice(receiver, alert["status"], alert["labels"], alert["annotations"])
            for alert in message["alerts"]
        ]
        with self._lock:
            self._messages.append(message)
            self._notices += found


@dataclass
class Alerting:
    """Prometheus, Alertmanager and a webhook on free ports, with a directory of their own."""

    directory: Path
    targets: Targets
    pace: Pace = field(default_factory=Pace)
    webhook: Webhook = field(default_factory=Webhook)
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where dashboards and runbooks are, as external labels."""
    prometheus_port: int = field(default_factory=free_port)
    alertmanager_port: int = field(default_factory=free_port)
    _processes: list[ManagedProcess] = field(default_factory=list)
    _canaries: int = 0

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus answers."""
        return f"http://{LOOPBACK}:{self.prometheus_port}"

    @property
    def alertmanager_url(self) -> str:
        """Where Alertmanager answers."""
        return f"http://{LOOPBACK}:{self.alertmanager_port}"

    def start(self) -> Self:
        """Start all three; rules are judged once every target was scraped.

        Earlier, what has not been scraped yet would be taken for absent.
        """
        # before anything runs: a missing program is a skip
        alertmanager = program("prometheus-alertmanager", "prometheus-alertmanager")
        prometheus = program("prometheus", "prometheus")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.webhook.start()
        self.write_targets(self.targets)
        self._run(
            "alertmanager",
            alertmanager,
            f"--config.file={self._write_alertmanager_config()}",
            f"--storage.path={self.directory / 'alertmanager'}",
            f"--web.listen-address={LOOPBACK}:{self.alertmanager_port}",
            # one instance: no other to exchange silences with, and no second port
            "--cluster.listen-address=",
        )
        self._run(
            "prometheus",
            prometheus,
            f"--config.file={self._write_prometheus_config()}",
            f"--storage.tsdb.path={self.directory / 'prometheus'}",
            f"--web.listen-address={LOOPBACK}:{self.prometheus_port}",
            "--web.enable-lifecycle",
        )
        for url in (self.alertmanager_url, self.prometheus_url):
            wait_for(f"answer from {url}", partial(self._is_ready, url), START_TIMEOUT_S)
        wait_for("scrape of every target", self._all_scraped, START_TIMEOUT_S)
        self.judge(self.pace)
        return self

    def judge(self, pace: Pace) -> None:
        """Have rules judged at this pace from now on; what is active stays so."""
        self.pace = pace
        self._write_rules()
        self._post(f"{self.prometheus_url}/-/reload", None)
        # after a reload Prometheus looks for it anew; until then alerts are dropped for a minute
        wait_for("Alertmanager that Prometheus knows", self._knows_alertmanager, START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop all three; what was heard stays."""
        for process in reversed(self._processes):
            process.stop()
        self.webhook.stop()

    def wait_until_told(self, name: str, timeout_s: float = 120.0, **labels: str) -> Notice:
        """Wait until the webhook hears that an alert fires."""
        return wait_for(
            f"message that {name} {labels} fires", lambda: self._last(name, labels), timeout_s
        )

    def wait_until_resolved(self, name: str, timeout_s: float = 120.0, **labels: str) -> None:
        """Wait until the last that the webhook heard of each such alert is that it is resolved."""
        wait_for(
            f"message that {name} {labels} is resolved",
            lambda: self._last(name, labels) is None and self._heard(name, labels),
            timeout_s,
        )

    def wait_until_firing(self, name: str, timeout_s: float = 120.0, **labels: str) -> None:
        """Wait until an alert fires in Prometheus, told or not."""
        wait_for(f"{name} {labels} to fire", lambda: self._fires(name, labels), timeout_s)

    def wait_until_not_firing(self, name: str, timeout_s: float = 120.0, **labels: str) -> None:
        """Wait until no such alert fires in Prometheus, told or not."""
        wait_for(f"end of {name} {labels}", lambda: not self._fires(name, labels), timeout_s)

    def wait_until_quiet(self, timeout_s: float = 120.0) -> None:
        """Wait until no alert is firing or pending in Prometheus."""
        wait_for("time without alerts", lambda: not self.active(), timeout_s)

    def settle(self, timeout_s: float = 120.0) -> None:
        """Wait until what fires now was told, or held back for good.

        Alertmanager tells a new group's alerts after `group_wait`, a known group's after
        `group_interval`. The first canary takes at least the one, the second, which joins its
        group, the other: whatever fired before them is through when both are told.
        """
        for _ in range(2):
            self._canaries += 1
            labels = {"alertname": CANARY, "component": "canary", "number": str(self._canaries)}
            self._post(f"{self.alertmanager_url}/api/v2/alerts", [{"labels": labels}])
            self.wait_until_told(CANARY, timeout_s, number=labels["number"])

    def told(self) -> set[str]:
        """Return the names of all alerts that the webhook heard of."""
        return {notice.name for notice in self.webhook.notices()} - {CANARY}

    def fired(self) -> set[str]:
        """Return the names of all alerts that fired in Prometheus since its start."""
        found = self.query('max by (alertname) (max_over_time(ALERTS{alertstate="firing"}[1d]))')
        return {sample["metric"]["alertname"] for sample in found}

    def active(self) -> list[Mapping[str, Any]]:
        """Return the alerts that are pending or firing in Prometheus now."""
        return list(self._get("/api/v1/alerts", {})["alerts"])

    def query(self, expression: str) -> list[Mapping[str, Any]]:
        """Return the samples that an instant query finds now."""
        return list(self._get("/api/v1/query", {"query": expression})["result"])

    def write_targets(self, targets: Targets) -> None:
        """Change what is scraped; Prometheus sees it within a scrape interval."""
        for job, groups in targets.items():
            path = self.directory / f"{job}.yml"
            # at once: a reader must not find half a file
            draft = path.with_suffix(".draft")
            draft.write_text(yaml.safe_dump([dict(group) for group in groups]))
            draft.replace(path)

    def describe(self) -> str:
        """Say what is active and what was told, for the message of an assertion."""
        active = [(one["labels"]["alertname"], one["state"]) for one in self.active()]
        told = [(notice.name, notice.status) for notice in self.webhook.notices()]
        return f"active: {active}; told: {told}"

    def _last(self, name: str, labels: Mapping[str, str]) -> Notice | None:
        """Return a notice that fires and was not resolved later."""
        last: dict[tuple[tuple[str, str], ...], Notice] = {}
        for notice in self.webhook.notices():
            if notice.matches(name, labels):
                last[tuple(sorted(notice.labels.items()))] = notice
        return next((notice for notice in last.values() if notice.status == "firing"), None)

    def _heard(self, name: str, labels: Mapping[str, str]) -> bool:
        return any(notice.matches(name, labels) for notice in self.webhook.notices())

    def _fires(self, name: str, labels: Mapping[str, str]) -> bool:
        return any(
            one["state"] == "firing"
            and one["labels"]["alertname"] == name
            and labels.items() <= one["labels"].items()
            for one in self.active()
        )

    def _all_scraped(self) -> bool:
        wanted = sum(len(group["targets"]) for groups in self.targets.values() for group in groups)
        return len(self.query("up == 1")) == wanted

    def _post(self, url: str, body: object) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S):
            pass

    def _knows_alertmanager(self) -> bool:
        return bool(self._get("/api/v1/alertmanagers", {})["activeAlertmanagers"])

    def _write_rules(self) -> None:
        rules = self.directory / "rules"
        rules.mkdir(exist_ok=True)
        for path in (REPOSITORY / "alerts" / "rules").glob("*.yml"):
            content = self.pace.rules(yaml.safe_load(path.read_text()))
            (rules / path.name).write_text(yaml.safe_dump(content, sort_keys=False))

    def _write_prometheus_config(self) -> Path:
        config = yaml.safe_load((REPOSITORY / "prometheus" / "prometheus.yml").read_text())
        interval = f"{round(self.pace.scrape_interval_seconds * 1000)}ms"
        config["global"] = {
            "scrape_interval": interval,
            "evaluation_interval": interval,
            "external_labels": dict(self.addresses),
        }
        config["rule_files"] = ["rules/*.yml"]
        alertmanager = {"targets": [f"{LOOPBACK}:{self.alertmanager_port}"]}
        config["alerting"]["alertmanagers"] = [{"static_configs": [alertmanager]}]
        for job in config["scrape_configs"]:
            job["file_sd_configs"] = [{"files": [f"{job['job_name']}.yml"]}]
        return self._write("prometheus.yml", config)

    def _write_alertmanager_config(self) -> Path:
        source = REPOSITORY / "prometheus"
        config = yaml.safe_load((source / "alertmanager.yml").read_text())
        shutil.copytree(source / "templates", self.directory / "templates", dirs_exist_ok=True)
        for wait in ("group_wait", "group_interval"):
            config["route"][wait] = self.pace.wait(config["route"][wait])
            # a day's wait, which no pace makes short enough, is not what is tried here
            for route in config["route"]["routes"]:
                route.pop(wait, None)
        config["receivers"] = [
            {
                "name": receiver["name"],
                "webhook_configs": [
                    {"url": f"{self.webhook.url}/{receiver['name']}", "send_resolved": True}
                ],
            }
            for receiver in config["receivers"]
        ]
        return self._write("alertmanager.yml", config)

    def _write(self, name: str, content: Mapping[str, Any]) -> Path:
        path = self.directory / name
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def _run(self, name: str, *command: str) -> None:
        process = ManagedProcess(name, command, self.directory / f"{name}.log")
        process.start()
        self._processes.append(process)

    def _is_ready(self, url: str) -> bool:
        for process in self._processes:
            assert process.running, f"{process.name} ended: {process.log_tail()}"
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=HTTP_TIMEOUT_S):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        url = f"{self.prometheus_url}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as answer:
            return json.load(answer)["data"]


def _address(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc
