"""Tokens that are renewed in time, and the login of Amazon MSK."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from click.testing import CliRunner

from monitor.client_properties import read_client_properties
from monitor.commands import main
from monitor.kafka import tokens
from monitor.kafka.tokens import Expiring, MskIam, Renewed, TokenError, of_settings
from monitor.settings import KafkaSettings, SettingsError

HOST = "b-1.demo.abc123.c2.kafka.eu-west-1.amazonaws.com"
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
# examples of AWS' own documents
ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


class Clock:
    now = 0.0


def test_a_value_is_fetched_when_four_fifths_of_its_life_are_over() -> None:
    fetched = iter(range(10))
    renewed = Renewed(lambda: Expiring(next(fetched), 100.0), lambda: Clock.now)
    for Clock.now, expected in ((0.0, 0), (79.0, 0), (80.0, 1), (159.0, 1), (160.0, 2)):
        renewed.renew()
        assert renewed.value() == expected
        assert renewed.failure is None


def test_one_that_fails_is_tried_again_after_waits_that_double_and_the_old_value_counts_until_it_ends() -> (
    None
):
    tried: list[float] = []
    works = True

    def fetch() -> Expiring[str]:
        tried.append(Clock.now)
        if not works:
            raise TokenError("refused")
        return Expiring("token", 100.0)

    Clock.now = 0.0
    renewed = Renewed(fetch, lambda: Clock.now)
    renewed.renew()
    works = False
    for second in range(1_500):
        Clock.now = float(second)
        renewed.renew()
        assert renewed.is_good == (second < 100)
        assert (renewed.failure is None) == (second < 100)
    assert tried == [0, 80, 90, 110, 150, 230, 390, 690, 990, 1_290]
    works = True
    Clock.now = 1_700.0
    renewed.renew()
    assert renewed.is_good


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Leave only what a test sets, and stop the clocks."""

    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    stopped = SimpleNamespace(datetime=SimpleNamespace(now=lambda _: NOW), timezone=dt.timezone)
    monkeypatch.setattr("kafka.net.sasl.msk.datetime", stopped)
    return monkeypatch


def settings(**more: Any) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=(f"{HOST}:9098",),
        security_protocol="SASL_SSL",
        sasl_mechanism="AWS_MSK_IAM",
        **more,
    )


def first_message(of: KafkaSettings, host: str = HOST) -> dict[str, str]:
    keys = of_settings(of)
    assert keys is not None
    keys.renew()
    assert keys.failure is None, keys.failure
    mechanism = MskIam(host=host, security_protocol="SASL_SSL", sasl_oauth_token_provider=keys)
    found: dict[str, str] = json.loads(mechanism.auth_bytes())
    return found


def signed_by_aws(
    monkeypatch: pytest.MonkeyPatch, token: str | None, region: str
) -> dict[str, str]:
    """Return what AWS' own signer (Signature Version 4, in the query) makes of the same request."""
    request = AWSRequest("GET", f"https://{HOST}/", params={"Action": "kafka-cluster:Connect"})
    request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: NOW)
    signer = botocore.auth.SigV4QueryAuth(
        Credentials(ACCESS, SECRET, token), "kafka-cluster", region, expires=900
    )
    signer.add_auth(request)
    query = parse_qs(urlsplit(request.prepare().url).query)
    return {name.lower(): values[0] for name, values in query.items()}


@pytest.mark.parametrize("token", [None, "a/session+token=="])
def test_the_signature_for_msk_is_that_of_aws_own_signer(
    token: str | None, aws: pytest.MonkeyPatch
) -> None:
    if token is not None:
        aws.setenv("AWS_SESSION_TOKEN", token)
    said = first_message(settings())
    theirs = signed_by_aws(aws, token, "eu-west-1")
    assert said["version"] == "2020_10_22"
    assert said["host"] == HOST
    assert said["action"] == "kafka-cluster:Connect"
    for name in ("algorithm", "credential", "date", "expires", "signedheaders", "signature"):
        assert said[f"x-amz-{name}"] == theirs[f"x-amz-{name}"]
    assert said.get("x-amz-security-token") == token == theirs.get("x-amz-security-token")
    assert SECRET not in json.dumps(said)


def test_the_region_is_that_of_the_brokers_name_or_of_aws_settings(aws: pytest.MonkeyPatch) -> None:
    assert "/eu-west-1/" in first_message(settings())["x-amz-credential"]
    serverless = "boot-x.c3.kafka-serverless.us-east-2.amazonaws.com"
    assert "/us-east-2/" in first_message(settings(), serverless)["x-amz-credential"]
    with pytest.raises(TokenError, match="AWS_REGION"):
        first_message(settings(), "kafka.internal")
    aws.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    assert "/ap-south-1/" in first_message(settings(), "kafka.internal")["x-amz-credential"]


def test_a_profile_is_that_of_aws_own_files(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "credentials").write_text(
        "[watcher]\naws_access_key_id=AKIAWATCHER\naws_secret_access_key=hush\n"
    )
    said = first_message(settings(sasl_aws_profile="watcher"))
    assert said["x-amz-credential"].startswith("AKIAWATCHER/")
    for profile, told in (("nobody", "nobody"), (None, "AWS_ACCESS_KEY_ID")):
        keys = of_settings(settings(sasl_aws_profile=profile))
        assert keys is not None
        keys.renew()
        assert told in str(keys.failure)


def test_properties_of_msk_are_read(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    module = "software.amazon.msk.auth.iam.IAMLoginModule"
    file.write_text(
        f"security.protocol=SASL_SSL\nsasl.mechanism=AWS_MSK_IAM\n"
        f'sasl.jaas.config={module} required awsProfileName="watcher";\n'
        "sasl.client.callback.handler.class=software.amazon.msk.auth.iam.IAMClientCallbackHandler\n"
    )
    assert read_client_properties(file) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "AWS_MSK_IAM",
        "sasl_aws_profile": "watcher",
    }
    file.write_text(f'sasl.jaas.config={module} required awsRoleArn="arn:aws:iam::1:role/x";')
    with pytest.raises(SettingsError, match="awsProfileName"):
        read_client_properties(file)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"KAFKA_SASL_MECHANISM": "OAUTHBEARER"}, "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"),
        (
            {
                "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
                "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "https://login.example.com/token",
            },
            "needs KAFKA_SASL_OAUTHBEARER_CLIENT_ID",
        ),
        (
            {
                "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
                "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "http://login.example.com/token",
                "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "me",
                "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": "hush",
            },
            "in clear text",
        ),
        (
            {
                "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
                "KAFKA_SASL_OAUTHBEARER_EXTENSIONS": "logicalCluster",
            },
            "NAME=VALUE",
        ),
        (
            {"KAFKA_SASL_MECHANISM": "AWS_MSK_IAM", "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
            "AWS_MSK_IAM needs KAFKA_SECURITY_PROTOCOL=SASL_SSL",
        ),
    ],
)
def test_what_cannot_log_in_is_refused_with_the_reason(
    environment: dict[str, str], told: str
) -> None:
    result = CliRunner().invoke(
        main, ["lag"], env={"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", **environment}
    )
    assert result.exit_code == 2
    assert told in result.output
    assert "hush" not in result.output


def test_without_its_library_the_login_of_msk_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monitor.kafka.connecting.has_botocore", lambda: False)
    assert tokens.has_botocore()
    environment = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM"}
    result = CliRunner().invoke(main, ["lag"], env=environment)
    assert result.exit_code == 2
    assert "pip install 'kafka-lag-monitor[msk]'" in result.output
