"""HTTPS and basic auth of the monitor's pages, through real sockets."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

import monitor.web.app
from monitor.commands import main
from monitor.web.app import App, create_app
from monitor.web.login import WrongLogins
from monitor.web.server import WebServer
from monitor.web.tls import Certificate
from order_services.local.ports import free_port
from tests.support.asgi import Client
from tests.support.waiting import wait_for
from tests.unit.monitor.test_web import make

TLS = Path(__file__).parents[2] / "support" / "tls"
LOGIN = ("prometheus", "a secret: 'ü'")


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor.web.app, "WRONG_LOGIN_DELAY_S", 0.01)


@contextlib.contextmanager
def serving(app: App, certificate: Path) -> Iterator[int]:
    """Serve until the block ends; yield the port."""
    server = WebServer(app, "127.0.0.1", 0, Certificate(certificate, certificate))
    port = server.bind()
    server.start()
    try:
        yield port
    finally:
        server.stop()


def get(port: int, path: str, trusted: Path, auth: tuple[str, str] | None = None) -> httpx.Response:
    context = ssl.create_default_context(cafile=trusted)
    return httpx.get(f"https://127.0.0.1:{port}{path}", verify=context, timeout=5, auth=auth)


def test_pages_are_served_over_tls() -> None:
    _, poller, _ = make()
    poller.poll()
    with serving(create_app(poller), TLS / "one.pem") as port:
        page = get(port, "/metrics", TLS / "one.pem")
        assert page.status_code == 200
        assert "kafka_monitor_up" in page.text
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).raise_for_status()


def test_clients_that_connect_and_say_nothing_hold_nobody_up() -> None:
    _, poller, _ = make()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(create_app(poller), TLS / "one.pem"))
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        time.sleep(0.2)
        began = time.monotonic()
        assert get(port, "/health", TLS / "one.pem").status_code == 200
        assert time.monotonic() - began < 5


def test_a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not(
    tmp_path: Path,
) -> None:
    _, poller, _ = make()
    certificate = tmp_path / "certificate.pem"
    shutil.copy(TLS / "one.pem", certificate)
    with serving(create_app(poller), certificate) as port:
        assert get(port, "/health", TLS / "one.pem").status_code == 200
        new, old = ((TLS / name).read_text() for name in ("two.pem", "one.pem"))
        key_at = "-----BEGIN PRIVATE KEY-----"
        certificate.write_text(new.partition(key_at)[0] + key_at + old.partition(key_at)[2])
        assert get(port, "/health", TLS / "one.pem").status_code == 200
        shutil.copy(TLS / "two.pem", certificate)
        os.utime(certificate, ns=(1, 1))
        assert get(port, "/health", TLS / "two.pem").status_code == 200
        with pytest.raises(httpx.ConnectError):
            get(port, "/health", TLS / "one.pem")


@pytest.mark.parametrize("path", ["/", "/metrics", "/no-such-page"])
@pytest.mark.parametrize("auth", [None, ("prometheus", "wrong"), ("other", LOGIN[1]), ("", "")])
def test_all_pages_are_refused_without_the_login(path: str, auth: tuple[str, str] | None) -> None:
    client = Client(create_app(make()[1], LOGIN))
    refused = client.get(path, auth=auth)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="Kafka lag monitor"'
    assert "basic auth" in refused.json()["error"]["message"]
    assert b"kafka" not in refused.content


@pytest.mark.parametrize(
    "header", ["Basic", "Basic %%%", "Bearer prometheus", "Basic bm8tY29sb24=", "Digest username=x"]
)
def test_a_malformed_login_is_none(header: str) -> None:
    client = Client(create_app(make()[1], LOGIN))
    assert client.get("/metrics", headers={"Authorization": header}).status_code == 401


def test_the_login_opens_all_pages() -> None:
    _, poller, _ = make()
    poller.poll()
    client = Client(create_app(poller, LOGIN))
    assert client.get("/", auth=LOGIN).status_code == 200
    assert b"kafka_monitor_up" in client.get("/metrics", auth=LOGIN).content
    assert client.get("/no-such-page", auth=LOGIN).status_code == 404


def test_who_restarts_programs_needs_no_login_and_learns_no_addresses() -> None:
    client = Client(create_app(make()[1], LOGIN))
    assert client.get("/health").status_code == 200
    unready = client.get("/ready")
    assert (unready.status_code, unready.json()) == (503, {"status": "not ready"})
    assert "first poll" in client.get("/ready", auth=LOGIN).json()["reason"]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"MONITOR_TLS_CERTFILE": str(TLS / "one.pem")}, "MONITOR_TLS_KEYFILE"),
        (
            {"MONITOR_TLS_CERTFILE": "/no/such", "MONITOR_TLS_KEYFILE": "/no/such"},
            "MONITOR_TLS_CERTFILE: there is no file /no/such",
        ),
        (
            {"MONITOR_TLS_CERTFILE": __file__, "MONITOR_TLS_KEYFILE": __file__},
            "MONITOR_TLS_CERTFILE",
        ),
        (
            {
                "MONITOR_TLS_CERTFILE": str(TLS / "two.pem"),
                "MONITOR_TLS_KEYFILE": str(TLS / "encrypted-key.pem"),
            },
            "can't be used",
        ),
        ({"MONITOR_USERNAME": "prometheus"}, "MONITOR_USERNAME and MONITOR_PASSWORD"),
        ({"MONITOR_PASSWORD": "s3cr3t-word"}, "MONITOR_USERNAME and MONITOR_PASSWORD"),
        ({"MONITOR_USERNAME": "a:b", "MONITOR_PASSWORD": "s3cr3t-word"}, "colon"),
        (
            {
                "MONITOR_USERNAME": "prometheus",
                "MONITOR_PASSWORD": "s3cr3t-word",
                "MONITOR_HOST": "0.0.0.0",
            },
            "clear text",
        ),
    ],
)
def test_unusable_settings_are_told_with_exit_code_two_and_without_the_secret(
    environment: dict[str, str], reason: str
) -> None:
    arguments = ["serve", "--wait", "--port", "0", "--bootstrap-servers", "127.0.0.1:1"]
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == 2
    assert reason in result.output
    assert "s3cr3t-word" not in result.output


def test_the_program_serves_https_to_those_with_the_login() -> None:
    port = free_port()
    environment = {
        **os.environ,
        "MONITOR_TLS_CERTFILE": str(TLS / "one.pem"),
        "MONITOR_TLS_KEYFILE": str(TLS / "one.pem"),
        "MONITOR_USERNAME": LOGIN[0],
        "MONITOR_PASSWORD": LOGIN[1],
    }
    command = [sys.executable, "-m", "monitor", "serve", "--wait", "--port", str(port)]
    program = subprocess.Popen(
        [*command, "--bootstrap-servers", "127.0.0.1:1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def status() -> int | None:
        with contextlib.suppress(httpx.TransportError):
            return get(port, "/metrics", TLS / "one.pem").status_code
        return None

    try:
        assert wait_for("answer", status) == 401
        page = get(port, "/metrics", TLS / "one.pem", auth=LOGIN)
        assert "kafka_monitor_up" in page.text
        assert get(port, "/health", TLS / "one.pem").status_code == 200
    finally:
        program.terminate()
        output, _ = program.communicate(timeout=30)
    assert f"serving https://127.0.0.1:{port}/" in output
    assert LOGIN[1] not in output


def test_wrong_logins_are_slow_and_logged_once_a_minute_for_each_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor.web.app, "WRONG_LOGIN_DELAY_S", 0.2)
    client = Client(create_app(make()[1], LOGIN))
    began = time.monotonic()
    with capture_logs() as logs:
        for _ in range(3):
            assert client.get("/metrics", auth=("prometheus", "guess")).status_code == 401
    assert time.monotonic() - began > 0.6
    assert [(line["event"], line["client"]) for line in logs] == [
        ("wrong login to the pages", "127.0.0.1")
    ]
    assert "guess" not in str(logs)


def test_a_flood_of_clients_with_wrong_logins_is_remembered_in_part() -> None:
    logins = WrongLogins(monotonic=lambda: 0.0)
    with capture_logs():
        for number in range(2_000):
            logins.note(f"10.0.{number >> 8}.{number & 255}")
    assert len(logins._told_at) == 1_000


def test_with_authorities_of_clients_all_but_two_pages_ask_for_a_certificate() -> None:
    _, poller, _ = make()
    poller.poll()
    one = TLS / "one.pem"
    server = WebServer(
        create_app(poller, client_certificates=True), "127.0.0.1", 0, Certificate(one, one, one)
    )
    port = server.bind()
    server.start()
    try:
        for path, status in (("/health", 200), ("/ready", 200), ("/metrics", 403), ("/", 403)):
            assert get(port, path, one).status_code == status
        context = ssl.create_default_context(cafile=one)
        context.load_cert_chain(one)
        own = httpx.get(f"https://127.0.0.1:{port}/metrics", verify=context, timeout=5)
        assert own.status_code == 200
        context = ssl.create_default_context(cafile=one)
        context.load_cert_chain(TLS / "two.pem")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://127.0.0.1:{port}/metrics", verify=context, timeout=5)
    finally:
        server.stop()
