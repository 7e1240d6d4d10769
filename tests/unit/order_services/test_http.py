from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.responses import Response
from starlette.websockets import WebSocket

from order_services.web.answers import Call, json_response
from order_services.web.app import ServiceApp
from order_services.web.limits import MAX_BODY_BYTES
from order_services.web.websocket import Hub
from tests.support.serving import ask, serving

JSON = {"Content-Type": "application/json"}


@dataclass
class StatedHealth:
    alive_reasons: list[str] = field(default_factory=list)
    ready_reasons: list[str] = field(default_factory=list)
    degraded_reasons: list[str] = field(default_factory=list)

    def alive(self) -> Sequence[str]:
        return self.alive_reasons

    def ready(self) -> Sequence[str]:
        return self.ready_reasons

    def degraded(self) -> Sequence[str]:
        return self.degraded_reasons


@pytest.fixture
def health() -> StatedHealth:
    return StatedHealth()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def app(health: StatedHealth, registry: CollectorRegistry) -> ServiceApp:
    app = ServiceApp("payment-service", health, registry=registry)

    async def echo(call: Call) -> Response:
        return json_response(call.json())

    app.add_on_loop("POST", "/echo", echo)
    app.add(
        "GET", "/number", lambda call: json_response(call.integer("limit", 50, low=1, high=200))
    )
    return app


@pytest.fixture
def client(app: ServiceApp) -> Iterator[httpx.Client]:
    with serving(app) as client:
        yield client


def test_health_and_readiness_are_separate(client: httpx.Client, health: StatedHealth) -> None:
    health.ready_reasons.append("no partition assigned")
    assert client.get("/health").status_code == HTTPStatus.OK
    answer = client.get("/ready")
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.json() == {
        "service": "payment-service",
        "status": "not ready",
        "reasons": ["no partition assigned"],
    }
    health.ready_reasons.clear()
    health.degraded_reasons.append("consumer: stopped")
    answer = client.get("/ready")
    assert answer.status_code == HTTPStatus.OK
    assert answer.json()["status"] == "degraded"
    assert answer.json()["reasons"] == ["consumer: stopped"]
    health.alive_reasons.append("consume loop silent for 70 s")
    assert client.get("/health").status_code == HTTPStatus.SERVICE_UNAVAILABLE


def test_exemplars_are_shown_under_openmetrics_only(
    client: httpx.Client, registry: CollectorRegistry
) -> None:
    counter = Counter("orders", "Orders seen", registry=registry)
    counter.inc(1, exemplar={"correlation_id": "c-1"})
    plain = client.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert b"orders_total 1.0" in plain.content
    assert b"c-1" not in plain.content
    opened = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text")
    assert b'# {correlation_id="c-1"}' in opened.content


def test_a_correlation_id_is_passed_through(client: httpx.Client) -> None:
    answer = client.get("/health", headers={"X-Correlation-Id": "order-7:a.b_c"})
    assert answer.headers["X-Correlation-Id"] == "order-7:a.b_c"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'a"b', "ä"])
def test_a_correlation_id_of_another_shape_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/health", headers=[(b"X-Correlation-Id", given.encode())])
    returned = answer.headers["X-Correlation-Id"]
    assert returned != given
    assert len(returned) == 36


@pytest.mark.parametrize("body", [b"", b"{", b'{"a":1}x', b"\xff"])
def test_what_is_not_json_is_refused_with_the_place(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/echo", content=body, headers=JSON)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json()["error"]["field"] == "body"
    assert "not valid JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("given", ["", "text/xml", "text/plain", "application/jsonp"])
def test_another_content_type_is_refused(client: httpx.Client, given: str) -> None:
    answer = client.post("/echo", content=b"{}", headers={"Content-Type": given})
    assert answer.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


def test_an_oversized_body_is_refused(client: httpx.Client) -> None:
    answer = client.post("/echo", content=b'"' + b"x" * MAX_BODY_BYTES + b'"', headers=JSON)
    assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert answer.json()["error"]["field"] == "body"
    assert str(MAX_BODY_BYTES) in answer.json()["error"]["message"]


def test_a_body_within_the_limit_is_taken(client: httpx.Client) -> None:
    text = "x" * (MAX_BODY_BYTES - 2)
    answer = client.post("/echo", content=f'"{text}"', headers=JSON)
    assert answer.status_code == HTTPStatus.OK
    assert answer.json() == text


@pytest.mark.parametrize("text", ["0", "201", "1e2", "", "1_0", " 5", "\u0665", "9" * 30])
def test_a_query_integer_out_of_bounds_is_named(client: httpx.Client, text: str) -> None:
    answer = client.get("/number", params={"limit": text})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json() == {
        "error": {"message": "limit must be an integer from 1 to 200", "field": "limit"}
    }


def test_a_query_integer_has_a_default(client: httpx.Client) -> None:
    assert client.get("/number").json() == 50
    assert client.get("/number?limit=7").json() == 7


def test_requests_are_counted_by_route_pattern_with_the_correlation_id_as_exemplar(
    health: StatedHealth,
) -> None:
    app = ServiceApp("payment-service", health)
    app.add("GET", "/things/{name}", lambda call: json_response(call.path["name"]))
    labels = {"method": "GET", "route": "/things/{name}"}

    def count() -> float:
        return REGISTRY.get_sample_value("http_requests_total", {**labels, "status": "200"}) or 0

    before = count()
    with serving(app) as client:
        for name in "abc":
            client.get(f"/things/{name}", headers={"X-Correlation-Id": "c" * 64})
        client.get("/nowhere/else")
        assert count() - before == 3
        text = client.get("/metrics", headers={"Accept": "application/openmetrics-text"}).text
    assert 'correlation_id="' + "c" * 64 in text
    assert "/nowhere" not in text


def test_head_is_answered_as_get_without_the_body(client: httpx.Client) -> None:
    got = client.get("/number?limit=7")
    head = client.head("/number?limit=7")
    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers["Content-Length"] == got.headers["Content-Length"] == "1"
    assert client.get("/number").json() == 50  # and the connection goes on


def test_an_app_answers_any_server(app: ServiceApp) -> None:
    answer = ask(app, "POST", "/echo", {"a": 1})
    assert (answer.status_code, answer.json()) == (HTTPStatus.OK, {"a": 1})
    assert ask(app, "DELETE", "/echo").json() == {
        "error": {"message": "DELETE is not allowed here"}
    }


def test_an_unknown_address_is_json(client: httpx.Client) -> None:
    answer = client.get("/nowhere")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.json() == {"error": {"message": "there is nothing at /nowhere"}}


def test_a_wrong_method_says_what_is_allowed(client: httpx.Client) -> None:
    answer = client.delete("/echo")
    assert answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert answer.json() == {"error": {"message": "DELETE is not allowed here"}}
    assert "POST" in answer.headers["Allow"]


def test_an_unexpected_error_shows_nothing_of_its_inside(app: ServiceApp) -> None:
    def broken(_call: Call) -> Response:
        raise RuntimeError("password=hunter2")

    app.add("GET", "/broken", broken)
    with serving(app) as client:
        answer = client.get("/broken")
    assert answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert b"hunter2" not in answer.content
    assert b"Traceback" not in answer.content
    assert set(answer.json()) == {"error"}
    assert "X-Correlation-Id" in answer.headers


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT 1", {}, Exception("connection to host db.internal refused")),
        PoolTimeoutError("QueuePool limit of size 1 overflow 4 reached"),
    ],
)
def test_a_database_that_is_away_asks_to_retry(app: ServiceApp, error: Exception) -> None:
    def data(_call: Call) -> Response:
        raise error

    app.add("GET", "/data", data)
    with serving(app) as client:
        answer = client.get("/data")
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(answer.headers["Retry-After"]) > 0
    assert b"db.internal" not in answer.content


HANDSHAKE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
def websocket_client(app: ServiceApp) -> Iterator[httpx.Client]:
    async def connected(websocket: WebSocket) -> None:
        hub.check(websocket)
        await websocket.accept()
        await websocket.close()

    hub = Hub()
    app.add_websocket("/ws", connected)
    with serving(app) as client:
        yield client


def test_a_websocket_handshake_is_answered_as_the_rfc_says(websocket_client: httpx.Client) -> None:
    answer = websocket_client.get("/ws", headers=HANDSHAKE)
    assert answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS
    assert answer.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Upgrade": "h2c"}, HTTPStatus.UPGRADE_REQUIRED),
        ({"Connection": "close"}, HTTPStatus.UPGRADE_REQUIRED),
        ({"Sec-WebSocket-Version": "8"}, HTTPStatus.UPGRADE_REQUIRED),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, HTTPStatus.BAD_REQUEST),
        ({"Sec-WebSocket-Key": "no base64!"}, HTTPStatus.BAD_REQUEST),
        ({"Origin": "https://elsewhere.example"}, HTTPStatus.FORBIDDEN),
    ],
)
def test_an_improper_websocket_handshake_is_refused(
    websocket_client: httpx.Client, changes: dict[str, str], status: HTTPStatus
) -> None:
    answer = websocket_client.get("/ws", headers={**HANDSHAKE, **changes})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_websocket_at_another_address_is_refused(websocket_client: httpx.Client) -> None:
    for path in ("/health", "/nothing"):
        answer = websocket_client.get(path, headers=HANDSHAKE)
        assert answer.status_code == HTTPStatus.NOT_FOUND
        assert answer.json() == {"error": {"message": f"there is no WebSocket at {path}"}}


def test_a_websocket_from_the_own_page_is_let_in(websocket_client: httpx.Client) -> None:
    answer = websocket_client.get(
        "/ws", headers={**HANDSHAKE, "Origin": str(websocket_client.base_url)}
    )
    assert answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS
