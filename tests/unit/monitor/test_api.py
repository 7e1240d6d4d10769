from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask
from openapi_spec_validator import validate

from monitor.commands import report
from monitor.kafka.coordinators import partition_of
from monitor.pools.services import ServiceTarget
from monitor.web.api import Api
from monitor.web.api_routes import MAX_KEPT, RestOfPath, api_routes
from monitor.web.app import create_app
from scripts.api import markdown
from tests.support.asgi import Client
from tests.unit.monitor.watched_cluster import WatchedCluster


def of_broker(broker: int, wanted: int = 1) -> list[str]:
    """Return names of groups that a broker of two coordinates."""
    names = (f"group-{number}" for number in range(1_000))
    return [name for name in names if partition_of(name, 2) + 1 == broker][:wanted]


@pytest.fixture
def watched() -> WatchedCluster:
    """A cluster with a group that lags on two partitions, and one that has read all."""
    watched = WatchedCluster()
    cluster = watched.cluster
    cluster.create("orders", 3)
    cluster.append_to_all("orders", 10)
    cluster.commit("behind", "orders", 4, None, 9)
    cluster.join("behind", "orders")
    cluster.commit("done", "orders", 10, 10, 10)
    watched.poll(2)
    return watched


def test_lists_are_worst_first_and_say_what_they_are_made_of(watched: WatchedCluster) -> None:
    page = watched.get("/groups")
    assert [group["group"] for group in page["groups"]] == ["behind", "done"]
    assert (page["total"], page["limit"], page["offset"]) == (2, 100, 0)
    seen_at = watched.clock.wall()
    assert page["clusters"] == [
        {
            "cluster": "model",
            "up": True,
            "seen_at": seen_at,
            "complete": True,
            "error": None,
            "hidden": 0,
        }
    ]
    behind, done = page["groups"]
    assert behind["total_lag"] == 7
    assert behind["max_lag_seconds"] == pytest.approx(30, abs=1)
    assert behind["members"] == 1
    assert behind["seen_at"] == seen_at
    assert (done["total_lag"], done["max_lag_seconds"], done["members"]) == (0, 0.0, 0)
    assert watched.get("/groups?limit=1&offset=1")["groups"] == [done]
    assert watched.get("/groups?offset=2") == {**page, "groups": [], "offset": 2}


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("name=b*", ["behind"]),
        ("name=*n?", ["behind", "done"]),
        ("name=B*", []),
        ("name=[bd]*", ["behind", "done"]),
        ("state=stable", ["behind"]),
        ("state=Stable&state=EMPTY", ["behind", "done"]),
        ("status=new", ["behind", "done"]),
        ("status=ERR", []),
        ("lag_over=6", ["behind"]),
        ("lag_over=7", []),
        ("lag_over=10s", ["behind"]),
        ("lag_over=5m", []),
        ("only_behind=true", ["behind"]),
        ("topic=orders", ["behind", "done"]),
        ("topic=other", []),
        ("cluster=model", ["behind", "done"]),
        ("sort=name", ["behind", "done"]),
        ("sort=lag", ["behind", "done"]),
        ("sort=behind", ["behind", "done"]),
    ],
)
def test_groups_are_filtered(watched: WatchedCluster, query: str, shown: list[str]) -> None:
    page = watched.get(f"/groups?{query}")
    assert [group["group"] for group in page["groups"]] == shown
    assert page["total"] == len(shown)


def test_a_group_has_its_partitions_members_topics_and_advice(watched: WatchedCluster) -> None:
    group = watched.get("/groups/behind")
    assert [(p["current_offset"], p["lag"]) for p in group["partitions"]] == [
        (4, 6),
        (None, None),
        (9, 1),
    ]
    assert group["partitions"][0]["lag_seconds"] == pytest.approx(30, abs=1)
    assert group["partitions"][1]["lag_seconds"] is None
    (member,) = group["member_list"]
    assert member["assignment"] == {"orders": [0, 1, 2]}
    (topic,) = group["topics"]
    assert (topic["lag"], topic["uncommitted_partitions"]) == (7, 1)
    assert topic["committed_at"] == pytest.approx(group["seen_at"] - 15, abs=1)
    assert [advice["cause"] for advice in group["advice"]] == ["held_without_commit"]
    assert watched.get("/advice")["advice"] == [
        {**group["advice"][0], "cluster": "model", "group": "behind"}
    ]
    assert watched.get("/advice?severity=critical")["advice"] == []


def test_the_command_prints_what_the_api_answers(watched: WatchedCluster) -> None:
    state = watched.poller.latest.state
    assert state.snapshot is not None
    printed = json.loads(report.as_json("model", state.snapshot, state.groups))["groups"]
    answered = [watched.get(f"/groups/{name}") for name in ("behind", "done")]
    # one look, as the command's, tells no cause
    assert all(each["cause"] for each in answered)
    assert printed == [{**each, "cause": None, "cause_word": None} for each in answered]
    listed = json.loads(report.list_as_json("model", state.snapshot, state.groups))["groups"]
    groups = watched.get("/groups")["groups"]
    assert listed == [{**each, "cause": None, "cause_word": None} for each in groups]


def test_a_topic_tells_who_reads_it_and_how_far_each_is(watched: WatchedCluster) -> None:
    topic = watched.get("/topics/orders")
    assert [(g["group"], g["lag"]) for g in topic["group_list"]] == [("behind", 7), ("done", 0)]
    assert [p["log_end_offset"] for p in topic["partition_list"]] == [10, 10, 10]
    assert topic["max_lag"] == 7
    listed = {each["topic"]: each for each in watched.get("/topics")["topics"]}
    assert listed["orders"] == {name: topic[name] for name in listed["orders"]}
    assert [each["topic"] for each in watched.get("/topics?name=ord*")["topics"]] == ["orders"]


def test_what_is_not_known_is_null_and_told_apart_from_what_was_refused(
    watched: WatchedCluster,
) -> None:
    watched.cluster.errors["orders", 0] = "KAFKA_STORAGE_ERROR"
    watched.cluster.silent = {2}
    watched.poll()
    refused, silent, answered = watched.get("/topics/orders")["partition_list"]
    assert (refused["heard"], refused["error"]) == ("refused", "KAFKA_STORAGE_ERROR")
    assert (refused["log_end_offset"], refused["seen_at"]) == (None, None)
    assert (silent["heard"], silent["log_end_offset"]) == ("silent", 10)
    assert silent["seen_at"] < answered["seen_at"]
    assert answered["heard"] == "answered"
    group = watched.get("/groups/behind")
    if group["heard"] == "answered":
        assert group["partitions"][0]["lag"] is None
        assert (group["total_lag"], group["lag_complete"]) == (1, False)
    watched.poll(4)  # too old by now
    silent = watched.get("/topics/orders")["partition_list"][1]
    assert (silent["log_end_offset"], silent["heard"]) == (None, "silent")


def test_a_group_that_nobody_could_list_is_not_said_to_be_missing(watched: WatchedCluster) -> None:
    error = watched.get("/groups/nobody", 404)["error"]
    assert error == {
        "message": "the cluster has no group 'nobody', or it is not watched",
        "field": "group",
    }
    (name,) = of_broker(2)
    watched.cluster.silent = {2}
    watched.poll()
    error = watched.get(f"/groups/{name}", 503)["error"]
    assert error["message"].startswith(f"not known whether the cluster has a group '{name}': ")
    page = watched.get("/groups")
    assert page["clusters"][0]["complete"] is False
    assert "two:9092" in page["clusters"][0]["error"]


def test_before_the_first_poll_and_after_the_last_nothing_passes_for_an_answer() -> None:
    watched = WatchedCluster()
    for path in ("/groups/g", "/topics/t"):
        assert "the first poll has not ended" in watched.get(path, 503)["error"]["message"]
    (told,) = watched.get("/groups")["clusters"]
    assert (told["up"], told["complete"], told["seen_at"]) == (False, False, None)
    (cluster,) = watched.get("/clusters")["clusters"]
    assert (cluster["groups"], cluster["topics"], cluster["ready"]) == (None, None, False)
    watched.cluster.create("t")
    watched.cluster.commit("g", "t", 0)
    watched.poll()
    assert watched.get("/groups/g")["stale"] is False
    assert watched.get("/clusters/model")["ready"] is True
    watched.cluster.silent = {1, 2}
    watched.poll(4)
    assert watched.get("/groups/g", 503)
    assert watched.get("/groups")["clusters"][0]["complete"] is False
    assert watched.get("/clusters/model")["groups"] is None


def test_what_is_too_old_to_be_shown_is_not_said_to_be_missing(watched: WatchedCluster) -> None:
    assert watched.get("/groups/behind")
    watched.clock.go_on(60)  # a poll hangs
    for path in ("/groups/behind", "/explain/behind", "/topics/gone", "/scaling/behind"):
        assert "the data is 60 s old" in watched.get(path, 503)["error"]["message"]
    (told,) = watched.get("/groups")["clusters"]
    assert (told["complete"], told["error"]) == (False, "the data is 60 s old")


@pytest.mark.parametrize("name", ["a/b", "//", "..", "a%2F", "ü\n", "", "a?b#c", "\x1b[2J", " "])
def test_any_name_is_found_by_its_path(name: str) -> None:
    watched = WatchedCluster()
    watched.cluster.create("t")
    watched.cluster.commit(name, "t", 0)
    watched.poll()
    path = "/groups/" + quote(name, safe="").replace(".", "%2E")
    assert watched.get(path)["group"] == name
    assert watched.get("/groups")["groups"][0]["group"] == name


@pytest.mark.parametrize(
    ("path", "field", "status"),
    [
        ("/groups?limit=0", "limit", 400),
        ("/groups?limit=ten", "limit", 400),
        ("/groups?limit=5.0", "limit", 400),
        ("/groups?limit=5&limit=6", "limit", 400),
        ("/groups?offset=-1", "offset", 400),
        ("/groups?only_behind=1", "only_behind", 400),
        ("/groups?lag_over=much", "lag_over", 400),
        ("/groups?status=bad", "status", 400),
        ("/groups?sort=", "sort", 400),
        ("/groups?nmae=a", "nmae", 400),
        ("/groups/behind?limit=1", "limit", 400),
        ("/clusters?a=b", "a", 400),
        ("/sd?a=b", "a", 400),
        ("/advice?severity=bad", "severity", 400),
        ("/groups?cluster=west", "cluster", 404),
        ("/clusters/west", "cluster", 404),
        ("/topics/nothing", "topic", 404),
        ("/nothing", None, 404),
    ],
)
def test_a_bad_request_is_told_which_part_is_wrong(
    watched: WatchedCluster, path: str, field: str | None, status: int
) -> None:
    error = watched.get(path, status)["error"]
    assert error["field"] == field
    assert error["message"]


def test_a_query_that_is_not_encoded_is_refused(watched: WatchedCluster) -> None:
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/groups",
        "query_string": b"name=\xfc",
        "headers": [],
    }
    asyncio.run(watched.app(scope, receive, send))
    assert sent[0]["status"] == 400


def test_several_clusters_are_only_more_entries() -> None:
    east, west = WatchedCluster(cluster="east"), WatchedCluster(cluster="west")
    for watched, commit in ((east, 0), (west, 5)):
        watched.cluster.create("t")
        watched.cluster.append("t", 9)
        watched.cluster.commit("g", "t", commit)
        watched.poll()
    app = Flask(__name__)
    app.url_map.converters["rest"] = RestOfPath
    app.register_blueprint(api_routes(Api(lambda: [east.poller, west.poller])))
    client = app.test_client()
    page = client.get("/api/v1/groups").json
    assert page is not None
    assert [(g["cluster"], g["total_lag"]) for g in page["groups"]] == [("east", 9), ("west", 4)]
    refused = client.get("/api/v1/groups/g")
    assert refused.status_code == 400
    assert refused.json == {
        "error": {
            "message": "there are several clusters: say one of east, west",
            "field": "cluster",
        }
    }
    found = client.get("/api/v1/groups/g?cluster=west").json
    assert found is not None
    assert found["total_lag"] == 4
    targets = client.get("/api/v1/sd").json
    assert targets is not None
    assert [t["labels"]["__param_target"] for t in targets] == ["east", "west"]
    west.cluster.silent = {1, 2}  # a cluster that is away costs only itself
    west.poll(5)
    page = client.get("/api/v1/groups").json
    assert page is not None
    assert [g["cluster"] for g in page["groups"]] == ["east"]
    assert [c["complete"] for c in page["clusters"]] == [True, False]


def test_hidden_groups_are_counted_and_shown_when_they_are_named() -> None:
    watched = WatchedCluster(hide_empty_groups=True)
    watched.cluster.create("t")
    watched.cluster.commit("g", "t", 0)
    watched.poll(2)
    page = watched.get("/groups")
    assert (page["groups"], page["clusters"][0]["hidden"]) == ([], 1)
    assert watched.get("/groups/g")["group"] == "g"


def test_a_list_is_made_once_a_poll_and_never_kept_beyond_it(watched: WatchedCluster) -> None:
    first = watched.get("/groups")
    watched.clock.go_on(1)
    assert watched.get("/groups") == first
    watched.cluster.commit("behind", "orders", 10, 10, 10)
    watched.poll()
    assert watched.get("/groups?sort=name")["groups"][0]["total_lag"] == 0
    assert watched.get("/groups") != first
    watched.clock.go_on(60)  # nobody polls any more: what was kept is too old
    assert watched.get("/groups")["groups"] == []
    for number in range(2 * MAX_KEPT):
        watched.get(f"/groups?offset={number}")


def test_prometheus_finds_this_monitor_and_the_services() -> None:
    watched = WatchedCluster()
    watched.poll()
    services = [
        ServiceTarget.parse("payment-2=http://[::1]:4011"),
        ServiceTarget.parse("http://a:1/m"),
    ]
    client = Client(create_app(watched.poller, services=services))
    answer = client.get("/api/v1/sd", headers={"host": "monitor:9308"})
    assert answer.json() == [
        {
            "targets": ["monitor:9308"],
            "labels": {
                "__scheme__": "http",
                "__metrics_path__": "/metrics",
                "__meta_kafka_cluster": "model",
            },
        },
        {
            "targets": ["[::1]:4011"],
            "labels": {
                "__scheme__": "http",
                "__metrics_path__": "/metrics",
                "service": "payment",
            },
        },
        {"targets": ["a:1"], "labels": {"__scheme__": "http", "__metrics_path__": "/m"}},
    ]
    assert client.get("/api/v1/sd").json()[0]["targets"] == ["monitor:80"]


def test_the_document_is_valid_and_complete(watched: WatchedCluster) -> None:
    document = watched.get("/openapi.json")
    validate(document)
    paths = {path.removeprefix("/api/v1") for path in document["paths"]}
    assert paths == {
        "/clusters",
        "/clusters/{cluster}",
        "/groups",
        "/groups/{group}",
        "/topics",
        "/topics/{topic}",
        "/advice",
        "/history/{group}",
        "/scaling/{group}",
        "/sd",
        "/explain/{group}",
    }
    parameters = document["paths"]["/api/v1/groups"]["get"]["parameters"]
    assert all(parameter["description"] for parameter in parameters)


def test_the_page_about_it_is_made_from_it() -> None:
    written = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == f"{markdown()}\n", "run: make docs"


def test_no_pattern_takes_for_ever(watched: WatchedCluster) -> None:
    watched.cluster.commit("a" * 200 + "!", "orders", 0)
    watched.poll()
    began = time.monotonic()
    assert watched.get(f"/groups?name={'*a' * 200}")["groups"] == []
    assert watched.get(f"/groups?name={quote('[z-a](((')}")["groups"] == []
    assert time.monotonic() - began < 5


def test_it_is_behind_the_login_of_the_pages(watched: WatchedCluster) -> None:
    client = Client(create_app(watched.poller, ("user", "secret")))
    assert client.get("/api/v1/groups").status_code == 401
    assert client.get("/api/v1/groups", auth=("user", "secret")).status_code == 200
    asks = Client(create_app(watched.poller, client_certificates=True))
    assert asks.get("/api/v1/groups").status_code == 403
