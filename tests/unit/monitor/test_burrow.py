"""Burrow's API: keys in the order of its structs, its messages, and what is not there."""

from __future__ import annotations

import json
import socket
from typing import Any, Final

import pytest

from monitor.configuration import Configuration, Watched
from monitor.fleet import Fleet, Watch
from monitor.pools.settings import DatabaseSettings
from monitor.settings import KafkaSettings, MonitorSettings
from monitor.web.app import create_app
from tests.support.asgi import Client
from tests.unit.monitor.watched_cluster import WatchedCluster

HOST: Final = socket.gethostname()
OFFSET: Final = ["offset", "timestamp", "observedAt", "lag"]
PARTITION: Final = [
    "topic", "partition", "owner", "client_id", "status", "start", "end", "current_lag", "complete",
]  # fmt: skip
STATUS: Final = [
    "cluster", "group", "status", "complete", "partitions", "partition_count", "maxlag", "totallag",
]  # fmt: skip


@pytest.fixture
def watched() -> WatchedCluster:
    """A group that commits every poll, and falls behind on partition 1, where nobody commits."""
    watched = WatchedCluster()
    cluster = watched.cluster
    cluster.create("orders", 2)
    cluster.create("other")
    cluster.append_to_all("orders", 10)
    cluster.commit("g", "orders", 10, 4)
    cluster.join("g", "orders")
    watched.poll()
    for number in range(1, 14):
        cluster.append_to_all("orders", 10)
        cluster.commit("g", "orders", 10 * number, 4)
        watched.poll()
    return watched


def ask(watched: WatchedCluster, path: str, status: int = 200) -> Any:
    answer = watched.client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    # as Go's encoder writes it, with nothing between
    told = json.loads(answer.text)
    assert answer.text == json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    assert told["request"] == {"url": path, "host": HOST}
    return told


@pytest.mark.parametrize(
    ("path", "message", "key", "payload"),
    [
        ("/v3/kafka", "cluster list returned", "clusters", ["model"]),
        (
            "/v3/kafka/model/topic",
            "topic list returned",
            "topics",
            ["__consumer_offsets", "orders", "other"],
        ),
        ("/v3/kafka/model/topic/orders", "topic offsets returned", "offsets", [140, 140]),
        (
            "/v3/kafka/model/topic/orders/consumers",
            "consumers of topic returned",
            "consumers",
            ["g"],
        ),
        ("/v3/kafka/model/topic/other/consumers", "consumers of topic returned", "consumers", []),
        ("/v3/kafka/model/consumer", "consumer list returned", "consumers", ["g"]),
        ("/v3/admin/loglevel", "log level returned", "level", "info"),
    ],
)
def test_lists(watched: WatchedCluster, path: str, message: str, key: str, payload: Any) -> None:
    told = ask(watched, path)
    assert list(told) == ["error", "message", key, "request"]
    assert (told["error"], told["message"], told[key]) == (False, message, payload)


def test_a_consumer_has_its_last_commits_behind_nulls(watched: WatchedCluster) -> None:
    told = ask(watched, "/v3/kafka/model/consumer/g")
    assert list(told) == ["error", "message", "topics", "request"]
    assert told["message"] == "consumer detail returned"
    (moving, standing) = told["topics"]["orders"]
    assert list(moving) == ["offsets", "owner", "client_id", "current-lag"]
    assert [len(each["offsets"]) for each in (moving, standing)] == [10, 10]
    assert standing["offsets"][:9] == [None] * 9
    last = moving["offsets"][-1]
    assert list(last) == OFFSET
    now_ms = int(watched.clock.wall() * 1000)
    assert last == {"offset": 130, "timestamp": now_ms, "observedAt": now_ms, "lag": 10}
    assert [each["offset"] for each in moving["offsets"]] == list(range(40, 131, 10))
    assert (moving["owner"], moving["client_id"], moving["current-lag"]) == ("/host", "client", 10)
    assert standing["current-lag"] == 136


def test_a_status_has_what_is_worse_than_ok_and_lag_has_all(watched: WatchedCluster) -> None:
    told = ask(watched, "/v3/kafka/model/consumer/g/status")
    assert list(told) == ["error", "message", "status", "request"]
    status = told["status"]
    assert list(status) == STATUS
    assert (status["cluster"], status["group"], status["status"]) == ("model", "g", "ERR")
    assert (status["complete"], status["partition_count"], status["totallag"]) == (1, 2, 146)
    every = ask(watched, "/v3/kafka/model/consumer/g/lag")["status"]
    assert [list(each) for each in every["partitions"]] == [PARTITION] * 2
    assert [each["partition"] for each in every["partitions"]] == [0, 1]
    assert status["maxlag"] == every["partitions"][1]
    assert status["maxlag"]["current_lag"] == 136
    assert [each for each in every["partitions"] if each["status"] != "OK"] == status["partitions"]
    assert list(every["partitions"][0]["start"]) == OFFSET
    assert every["partitions"][0]["end"]["offset"] == 130


def test_what_is_not_there_is_404_and_a_status_of_it_is_no_error(watched: WatchedCluster) -> None:
    for path in ("/v3/kafka/model/consumer/x/status", "/v3/kafka/x/consumer/g/lag"):
        told = ask(watched, path, 404)
        cluster, group = path.split("/")[3], path.split("/")[5]
        assert told["error"] is False
        assert told["message"] == "consumer status returned"
        assert told["status"] == {
            "cluster": cluster,
            "group": group,
            "status": "NOTFOUND",
            "complete": 1,
            "partitions": [],
            "partition_count": 0,
            "maxlag": None,
            "totallag": 0,
        }
    for path, message in (
        ("/v3/kafka/x", "cluster module not found"),
        ("/v3/kafka/x/topic", "cluster not found"),
        ("/v3/kafka/x/consumer", "cluster not found"),
        ("/v3/kafka/x/topic/orders", "cluster or topic not found"),
        ("/v3/kafka/model/topic/x", "cluster or topic not found"),
        ("/v3/kafka/model/consumer/x", "cluster or consumer not found"),
        ("/v3/config/storage/x", "storage module not found"),
        ("/v3/config/evaluator/x", "evaluator module not found"),
        ("/v3/config/consumer/x", "consumer module not found"),
        ("/v3/config/notifier/x", "notifier module not found"),
        ("/v3/config/cluster/x", "cluster module not found"),
    ):
        told = ask(watched, path, 404)
        assert list(told) == ["error", "message", "request"]
        assert (told["error"], told["message"]) == (True, message)


def test_an_unknown_path_is_plain_text_as_burrow_has_it(watched: WatchedCluster) -> None:
    for path in ("/v3/nothing", "/v3/kafka/model/nothing", "/burrow/nothing"):
        answer = watched.client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text == '{"error":true,"message":"invalid request type","result":{}}\n'


def test_settings_are_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "geheim")
    kafka = KafkaSettings(
        bootstrap_servers=("one:9093",),
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="monitor",
    )
    settings = MonitorSettings(username="u", password="p", log_level="WARNING")  # type: ignore[arg-type]
    watched = WatchedCluster()
    watched.poll()
    fleet = Fleet(
        Configuration(settings, (Watched(kafka, settings),), DatabaseSettings()),
        lambda each, _published: Watch(each, watched.poller, lambda: None),
    )
    watched.client = Client(create_app(fleet))
    module = ask(watched, "/v3/kafka/model")["module"]
    assert module == ask(watched, "/v3/config/cluster/model")["module"]
    assert list(module) == [
        "class-name", "servers", "client-profile", "topic-refresh", "offset-refresh",
    ]  # fmt: skip
    assert module["servers"] == ["one:9093"]
    profile = module["client-profile"]
    assert list(profile) == ["name", "client-id", "kafka-version", "tls", "sasl"]
    assert list(profile["tls"]) == ["name", "noverify", "certfile", "keyfile", "cafile"]
    assert profile["sasl"] == {"name": "default", "handshake-first": True, "username": "monitor"}
    main = ask(watched, "/v3/config")
    assert list(main) == [
        "error", "message", "request", "general", "logging", "zookeeper", "httpserver",
    ]  # fmt: skip
    assert main["logging"]["level"] == "warn"
    for kind in ("storage", "evaluator", "cluster", "consumer", "notifier"):
        told = ask(watched, f"/v3/config/{kind}")
        assert list(told) == ["error", "message", "request", "coordinator", "modules"]
        assert (told["message"], told["coordinator"]) == ("module list returned", kind)
        for name in told["modules"]:
            answer = ask(watched, f"/v3/config/{kind}/{name}")
            assert answer["message"] == f"{kind} module detail returned"
    assert "geheim" not in json.dumps([main, module])


def test_nothing_can_be_changed_by_it(watched: WatchedCluster) -> None:
    for method, path in (
        ("DELETE", "/v3/kafka/model/consumer/g"),
        ("DELETE", "/v3/kafka/model/consumer/g/topic/orders"),
        ("POST", "/v3/admin/loglevel"),
    ):
        answer = watched.client.request(method, path, json={"level": "debug"})
        assert answer.status_code == 403
        assert answer.json()["error"] is True
        assert list(answer.json()) == ["error", "message", "request"]
    assert ask(watched, "/v3/kafka/model/consumer")["consumers"] == ["g"]


def test_its_health_checks_need_no_login(watched: WatchedCluster) -> None:
    client = Client(create_app(watched.poller, ("user", "secret")))
    assert client.get("/v3/kafka").status_code == 401
    assert client.get("/burrow/admin").text == "GOOD"
    assert client.get("/burrow/admin/ready").text == "READY"
    watched.clock.go_on(60)
    starting = client.get("/burrow/admin/ready")
    assert (starting.status_code, starting.text) == (503, "STARTING")


def test_what_is_not_known_is_null_and_never_zero(watched: WatchedCluster) -> None:
    watched.cluster.errors["orders", 0] = "KAFKA_STORAGE_ERROR"
    watched.poll()
    assert ask(watched, "/v3/kafka/model/topic/orders")["offsets"] == [-1, 140]
    (unknown, known) = ask(watched, "/v3/kafka/model/consumer/g")["topics"]["orders"]
    assert (unknown["current-lag"], known["current-lag"]) == (None, 136)
    status = ask(watched, "/v3/kafka/model/consumer/g/lag")["status"]
    assert [each["partition"] for each in status["partitions"]] == [1]


@pytest.mark.parametrize("name", ["a/b", "a/status", "<b>&", "ü\u2028", "\x1b"])
def test_any_name_is_found(name: str) -> None:
    watched = WatchedCluster()
    watched.cluster.create("t")
    watched.cluster.commit(name, "t", 0)
    watched.poll()
    listed = watched.client.get("/v3/kafka/model/consumer")
    assert listed.json()["consumers"] == [name]
    assert not set("<>&\u2028") & set(listed.text)  # Go escapes them
    from urllib.parse import quote  # noqa: PLC0415

    path = f"/v3/kafka/model/consumer/{quote(name, safe='')}"
    assert watched.client.get(f"{path}/lag").json()["status"]["group"] == name


@pytest.mark.parametrize(
    ("share", "told"), [(1.0, "1"), (0.0, "0"), (0.5, "0.5"), (1 / 3, "0.33333334")]
)
def test_shares_are_written_as_go_writes_them(share: float, told: str) -> None:
    from monitor.web.burrow import _float32  # noqa: PLC0415

    assert json.dumps(_float32(share)) == told
