"""Prometheus' web.config.yml, as exporter-toolkit has it, through real sockets."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import httpx
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

import monitor.web.app
from monitor.commands import main
from monitor.web.app import create_app
from monitor.web.server import WebServer
from monitor.web.web_config import WebConfigError, WebConfigFile, read_web_config
from tests.support.asgi import Client
from tests.support.listeners import Certificates
from tests.unit.monitor.test_web import make

HOST = "127.0.0.1"
PASSWORD = "a secret: 'ü'"
# the hash that exporter-toolkit's own example has, of a password that nobody tells
EXAMPLE = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze"


def hashed(password: str) -> str:
    """Hash as `htpasswd -nBC 4` does."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor.web.app, "WRONG_LOGIN_DELAY_S", 0.01)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "tls")


def write(tmp_path: Path, text: str) -> Path:
    """Write the file anew, later than it was before."""
    file = tmp_path / "web.config.yml"
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))
    return file


@contextlib.contextmanager
def serving(config: WebConfigFile) -> Iterator[int]:
    _, poller, _ = make()
    poller.poll()
    app = create_app(poller, web_config=config)
    server = WebServer(app, HOST, 0, config if config.has_tls else None)
    port = server.bind()
    server.start()
    try:
        yield port
    finally:
        server.stop()


def tls(certificates: Certificates, more: str = "") -> str:
    served = certificates.issue(HOST)
    return f"tls_server_config:\n  cert_file: {served}\n  key_file: {served}\n{more}"


def get(
    port: int, path: str, certificates: Certificates, client: Path | None = None
) -> httpx.Response:
    context = ssl.create_default_context(cafile=certificates.authority)
    if client is not None:
        context.load_cert_chain(client)
    return httpx.get(f"https://{HOST}:{port}{path}", verify=context, timeout=5)


def test_users_with_hashes_of_bcrypt_see_the_pages_and_nobody_else(tmp_path: Path) -> None:
    file = write(tmp_path, f"basic_auth_users:\n  alice: {hashed(PASSWORD)}\n  bob: {EXAMPLE}\n")
    client = Client(create_app(make()[1], web_config=WebConfigFile(file)))
    for _ in range(2):
        assert client.get("/metrics", auth=("alice", PASSWORD)).status_code == 200
    for user, password in (
        ("alice", "wrong"), ("bob", PASSWORD), ("nobody", PASSWORD), ("", ""), ("alice", "x" * 100),
    ):  # fmt: skip
        refused = client.get("/metrics", auth=(user, password))
        assert refused.status_code == 401
        assert b"kafka" not in refused.content
    assert client.get("/metrics").status_code == 401
    assert client.get("/health").status_code == 200
    assert client.get("/ready").json() == {"status": "not ready"}


def test_a_password_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, f"basic_auth_users: {{alice: {hashed(PASSWORD)}}}")
    client = Client(create_app(make()[1], web_config=WebConfigFile(file)))
    assert client.get("/", auth=("alice", PASSWORD)).status_code == 200
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: pytest.fail("hashed again"))
    assert client.get("/", auth=("alice", PASSWORD)).status_code == 200


def test_a_changed_file_counts_at_once_and_one_with_a_mistake_does_not(tmp_path: Path) -> None:
    file = write(tmp_path, f"basic_auth_users:\n  alice: {hashed(PASSWORD)}\n")
    client = Client(create_app(make()[1], web_config=WebConfigFile(file)))
    write(tmp_path, f"basic_auth_users:\n  bob: {hashed(PASSWORD)}\n")
    assert client.get("/metrics", auth=("alice", PASSWORD)).status_code == 401
    assert client.get("/metrics", auth=("bob", PASSWORD)).status_code == 200
    with capture_logs() as logs:
        write(tmp_path, "basic_auth_users:\n  bob: plain-text\n")
        for _ in range(3):
            assert client.get("/metrics", auth=("bob", PASSWORD)).status_code == 200
        file.unlink()
        assert client.get("/metrics", auth=("bob", PASSWORD)).status_code == 200
    causes = [line["cause"] for line in logs if "cause" in line]
    assert len(causes) == 2  # each mistake once
    assert "bob: this is no hash of bcrypt" in causes[0]
    assert "plain-text" not in str(logs)
    write(tmp_path, "")
    assert client.get("/metrics").status_code == 200


def test_headers_are_those_of_the_file_and_an_empty_one_is_left_out(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
http_server_config:
  headers:
    Strict-Transport-Security: max-age=60
    X-Content-Type-Options: ""
    X-Frame-Options: deny
""",
    )
    headers = Client(create_app(make()[1], web_config=WebConfigFile(file))).get("/health").headers
    assert headers["strict-transport-security"] == "max-age=60"
    assert headers["x-frame-options"] == "deny"
    assert "x-content-type-options" not in headers
    assert "default-src 'none'" in headers["content-security-policy"]  # as without a file


def test_pages_are_served_over_tls_of_the_versions_that_are_allowed(
    tmp_path: Path, certificates: Certificates
) -> None:
    file = write(tmp_path, tls(certificates, "  min_version: TLS13\n"))
    with serving(WebConfigFile(file)) as port:
        assert get(port, "/metrics", certificates).status_code == 200
        old = ssl.create_default_context(cafile=certificates.authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://{HOST}:{port}/metrics", verify=old, timeout=5)
        # without a restart
        write(
            tmp_path,
            tls(
                certificates,
                "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n"
                "  curve_preferences: [CurveP256]\n  prefer_server_cipher_suites: false\n",
            ),
        )
        assert httpx.get(f"https://{HOST}:{port}/metrics", verify=old, timeout=5).status_code == 200


def test_clients_show_a_certificate_of_an_allowed_name(
    tmp_path: Path, certificates: Certificates
) -> None:
    asks = f"""
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: {certificates.authority}
  client_allowed_sans: [prometheus.example.com]
"""
    with serving(WebConfigFile(write(tmp_path, tls(certificates, asks)))) as port:
        allowed = certificates.issue("prometheus.example.com")
        other = certificates.issue("other.example.com")
        assert get(port, "/metrics", certificates, allowed).status_code == 200
        assert get(port, "/metrics", certificates, other).status_code == 403
        assert get(port, "/metrics", certificates).status_code == 403
        assert get(port, "/health", certificates).status_code == 200
        stranger = Certificates(tmp_path / "stranger").issue("prometheus.example.com")
        with pytest.raises(httpx.TransportError):
            get(port, "/metrics", certificates, stranger)


def test_all_mistakes_are_told_at_once_with_what_is_allowed(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
tls_server_config:
  cert_file: server.crt
  client_auth_type: RequireAnyClientCert
  min_version: TLS9
  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]
  curve_preferences: [X448]
  key: "-----BEGIN PRIVATE KEY-----"
http_server_config:
  headers: {X-Frame-Options: maybe, Server: ours}
basic_auth_users: {alice: hush}
rate_limit: {burst: 20}
tls_sever_config: {}
""",
    )
    with pytest.raises(WebConfigError) as caught:
        read_web_config(file)
    told = str(caught.value)
    for part in (
        "tls_server_config.key_file: Field required",
        "'RequireAndVerifyClientCert'",
        "'TLS12'",
        "TLS_RSA_WITH_RC4_128_SHA is none of",
        "only one curve",
        "name that by key_file",
        "X-Frame-Options is one of deny, sameorigin",
        "Server is none of Content-Security-Policy",
        "alice: this is no hash of bcrypt; htpasswd -nBC 10 '' makes one",
        "rate_limit: this is not read",
        "tls_sever_config: this is not read; there are tls_server_config, http_server_config",
    ):
        assert part in told
    assert "hush" not in told
    assert "PRIVATE KEY" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tls_server_config: {cert_file: no.pem, key_file: no.pem}", "there is no file"),
        ("a: [", "no YAML"),
        ("- a", "no mapping"),
        (f"basic_auth_users: {{alice: {EXAMPLE}}}", "sent in clear text"),
    ],
)
@pytest.mark.parametrize("command", [["serve", "--wait", "--port", "0"], ["config", "check"]])
def test_a_file_that_cannot_be_used_is_told_with_exit_code_two(
    command: list[str], text: str, told: str, tmp_path: Path
) -> None:
    file = write(tmp_path, text)
    environment = {"MONITOR_HOST": "0.0.0.0", "MONITOR_WEB_CONFIG_FILE": str(file)}
    result = CliRunner().invoke(main, command, env=environment)
    assert result.exit_code == 2
    assert told in result.output
    assert str(file) in result.output
