"""The monitor's settings: one typed model, read once; unsafe ones are refused with the reason."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from monitor.exposition.catalogue import CHOICES, DEFAULT_FAMILIES
from monitor.exposition.series import Level
from monitor.logs import LogFormat, LogLevel
from monitor.secret_files import SettingsWithSecretFiles

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal[
    "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM", "GSSAPI"
]
MAX_CLUSTER_NAME: Final = 255
"""As many characters as the history's tables have room for."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _family(name: str) -> str:
    if name not in CHOICES:
        raise ValueError(f"there is no family {name!r}; there are {', '.join(CHOICES)}")
    return name


def _cluster_name(name: str) -> str:
    if len(name) > MAX_CLUSTER_NAME or not name.isprintable():
        raise ValueError(
            f"a cluster's name has at most {MAX_CLUSTER_NAME} characters, all of them printable"
        )
    return name


ClusterName = Annotated[str, AfterValidator(_cluster_name)]


def _pattern(value: Any) -> Any:
    try:
        return re.compile(value) if isinstance(value, str) else value
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None


Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]
FamilyName = Annotated[str, AfterValidator(_family)]


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, its fault and what is allowed."""


def _existing_file(value: Path | None) -> Path | None:
    if value is not None and not value.is_file():
        raise ValueError(f"there is no file {value}")
    return value


class KafkaSettings(SettingsWithSecretFiles):
    """How to reach the brokers: environment variables `KAFKA_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="KAFKA_",
        extra="ignore",
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    bootstrap_servers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("127.0.0.1:9092",),
        # KAFKA_BROKERS is what the order services use: one variable configures both programs
        validation_alias=AliasChoices(
            "bootstrap_servers", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"
        ),
    )
    """Brokers to start from, `HOST:PORT` separated by commas; also as `KAFKA_BROKERS`."""
    security_protocol: SecurityProtocol = "PLAINTEXT"
    """How the brokers are spoken to."""
    ssl_cafile: Path | None = None
    """Certificates that the brokers' are checked against (PEM); the system's unless set."""
    ssl_certfile: Path | None = None
    """The client's certificate (PEM), where brokers ask for one."""
    ssl_keyfile: Path | None = None
    """Its key, if it is not in the same file."""
    ssl_password: SecretStr | None = None
    """What the key is encrypted with."""
    ssl_check_hostname: bool = True
    """Whether a broker's certificate must name the address that was asked for."""
    sasl_mechanism: SaslMechanism | None = None
    """How to log in, with `SASL_SSL` or `SASL_PLAINTEXT`."""
    sasl_username: str | None = None
    """User for PLAIN and SCRAM."""
    sasl_password: SecretStr | None = None
    """Password for PLAIN and SCRAM."""
    sasl_oauth_token_file: Path | None = None
    """File with the token for OAUTHBEARER; read at each login, so that it may be renewed."""
    sasl_oauthbearer_token_endpoint_url: str | None = None
    """Where OAUTHBEARER gets its tokens, by the grant of client credentials."""
    sasl_oauthbearer_client_id: str | None = None
    """Who we are there."""
    sasl_oauthbearer_client_secret: SecretStr | None = None
    """The secret of that client."""
    sasl_oauthbearer_scope: str | None = None
    """Scope that is asked for there."""
    sasl_oauthbearer_extensions: Annotated[dict[str, str], NoDecode] = Field(default={})
    """What the broker is told beside the token, `NAME=VALUE` separated by commas, as Confluent Cloud's `logicalCluster`."""
    sasl_aws_profile: str | None = None
    """Profile of AWS' files for AWS_MSK_IAM; without one, credentials are found as AWS' tools do."""
    sasl_kerberos_service_name: str = "kafka"
    """Service name for GSSAPI."""
    allow_cleartext_password: bool = False
    """Whether a secret may go over an unencrypted connection, where anyone on the way reads it."""

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("sasl_oauthbearer_extensions", mode="before")
    @classmethod
    def _extensions(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = {}
        for part in filter(None, (part.strip() for part in value.split(","))):
            name, equals, told = part.partition("=")
            # RFC 7628: names of letters; "auth" is the token itself
            if not equals or not name.isalpha() or not name.isascii() or name == "auth":
                raise ValueError("extensions are NAME=VALUE, separated by commas; names of letters")
            found[name] = told
        return found

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one HOST:PORT")
        for address in value:
            split_address(address)
        return value

    _files = field_validator("ssl_cafile", "ssl_certfile", "ssl_keyfile", "sasl_oauth_token_file")(
        _existing_file
    )

    @model_validator(mode="after")
    def _complete_and_safe(self) -> Self:
        if not self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism is not None:
                raise ValueError(
                    f"KAFKA_SASL_MECHANISM={self.sasl_mechanism} needs KAFKA_SECURITY_PROTOCOL "
                    "SASL_SSL or SASL_PLAINTEXT"
                )
            return self
        if self.sasl_mechanism is None:
            raise ValueError(f"{self.security_protocol} needs KAFKA_SASL_MECHANISM")
        if self.sasl_mechanism == "PLAIN" or self.sasl_mechanism.startswith("SCRAM"):
            if not (self.sasl_username and self.sasl_password):
                raise ValueError(
                    f"{self.sasl_mechanism} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
                )
        elif self.sasl_mechanism == "OAUTHBEARER":
            self._has_a_token()
        elif self.sasl_mechanism == "AWS_MSK_IAM" and self.security_protocol != "SASL_SSL":
            raise ValueError("AWS_MSK_IAM needs KAFKA_SECURITY_PROTOCOL=SASL_SSL")
        if (
            self.security_protocol == "SASL_PLAINTEXT"
            and self.sasl_mechanism in ("PLAIN", "OAUTHBEARER")
            and not self.allow_cleartext_password
            and not all(is_loopback(split_address(a)[0]) for a in self.bootstrap_servers)
        ):
            raise ValueError(
                f"{self.sasl_mechanism} over SASL_PLAINTEXT sends the secret in clear text: use "
                "SASL_SSL or SCRAM, or set KAFKA_ALLOW_CLEARTEXT_PASSWORD=true"
            )
        return self

    def _has_a_token(self) -> None:
        url = self.sasl_oauthbearer_token_endpoint_url
        if self.sasl_oauth_token_file is not None and url is None:
            return
        if url is None or self.sasl_oauth_token_file is not None:
            raise ValueError(
                "OAUTHBEARER needs either KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL with "
                "KAFKA_SASL_OAUTHBEARER_CLIENT_ID and KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET, or "
                "KAFKA_SASL_OAUTH_TOKEN_FILE"
            )
        if not (self.sasl_oauthbearer_client_id and self.sasl_oauthbearer_client_secret):
            raise ValueError(
                "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL needs KAFKA_SASL_OAUTHBEARER_CLIENT_ID "
                "and KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET"
            )
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(
                "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL is an address that begins with https://"
            )
        if (
            parts.scheme == "http"
            and not self.allow_cleartext_password
            and not is_loopback(parts.hostname)
        ):
            raise ValueError(
                "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL without TLS has the client's secret sent "
                "in clear text: use https, or set KAFKA_ALLOW_CLEARTEXT_PASSWORD=true"
            )


class MonitorSettings(SettingsWithSecretFiles):
    """How the monitor works: environment variables `MONITOR_<NAME>`; times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="MONITOR_",
        extra="ignore",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    cluster: ClusterName | None = None
    """Name of the cluster in metrics: a label `cluster` of every series; its id unless set."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=9308, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    tls_certfile: Path | None = None
    """Certificate (PEM) to serve HTTPS with; a renewed file is read at the next connection."""
    tls_keyfile: Path | None = None
    """Its key (PEM)."""
    tls_client_cafile: Path | None = None
    """Authorities (PEM) of client certificates, which all pages but `/health` and `/ready` then ask for."""
    username: str | None = None
    """User who opens all pages but `/health` and `/ready`, by basic auth."""
    password: SecretStr | None = None
    """Password of that user."""
    allow_cleartext_password: bool = False
    """Whether that login may be asked for without TLS, as behind a proxy that has it."""
    web_config_file: Path | None = None
    """Prometheus' `web.config.yml`, in place of the six settings before: TLS, client certificates, users with bcrypt, headers; read again when it changes."""
    poll_interval: Annotated[float, Field(ge=1, le=3_600)] = 15.0
    """Seconds between polls; ten scrapers cost what one costs."""
    request_timeout: Annotated[float, Field(ge=0.1, le=120)] = 5.0
    """Seconds that a broker gets to answer a request."""
    metadata_interval: Seconds = 60.0
    """Seconds after which brokers, topics and partitions are read anew; at once where something moved."""
    start_offsets_interval: Seconds = 60.0
    """Seconds after which log start offsets are read anew."""
    topic_configs_interval: Seconds = 300.0
    """Seconds after which the topics' settings for retention and compaction are read anew."""
    stale_after: Seconds | None = None
    """Seconds after which what a silent broker said last is shown no more; three polls unless set."""
    level: Level = Level.PARTITION
    """How far down the series of consumer groups go: a large cluster has many partitions."""
    measures_level: Level = Level.TOPIC
    """The same of our own family `measures`, which goes no further down than the others."""
    otlp_level: Level = Level.GROUP
    """The same for what is pushed to an OpenTelemetry collector, where `OTEL_METRICS_EXPORTER=otlp` asks for it."""
    member_metrics: bool = True
    """Whether each member has a series of its own."""
    families: Annotated[tuple[FamilyName, ...], NoDecode] = DEFAULT_FAMILIES
    """Whose names the metrics have, separated by commas; ours about the monitor are always there."""
    groups_allow: Pattern | None = None
    """Regular expression that the whole id of a group must match to be watched."""
    groups_deny: Pattern | None = None
    """The same for groups that are left out; it goes before allow."""
    topics_allow: Pattern | None = None
    """Regular expression that the whole name of a topic must match to be watched."""
    topics_deny: Pattern | None = None
    """The same for topics that are left out; it goes before allow."""
    hide_empty_groups: bool = False
    """Whether groups without members that commit nothing are left out; those of a service that has just died are among them. Commands say how many, and show those that are named."""
    log_level: LogLevel = "INFO"
    """From which level up `serve` logs: each change of a broker, group or poll once."""
    log_format: LogFormat = "text"
    """Whether a line of the log is text or a JSON object."""
    history_url: SecretStr | None = None
    """Where past polls are kept, and what a restart takes up to go on where it stood: `sqlite:///FILE`, `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, or `off`. One for each monitor. Unless set, `history-PORT.sqlite` in systemd's `$STATE_DIRECTORY`, or in `kafka-lag-monitor` of `$XDG_STATE_HOME` (`~/.local/state`): nowhere if that can't be written, or PORT is 0."""
    reload_by_http: bool = False
    """Whether POST /-/reload reads the settings file again; SIGHUP always does."""
    read_committed: bool = False
    """Whether lag is counted up to the last stable offset, where read_committed consumers stop."""
    log_sizes: bool = False
    """Whether the sizes of logs are read, for retention by bytes."""
    log_sizes_interval: Seconds = 60.0
    """Seconds after which they are read anew."""
    status_allowed_lag: Annotated[int, Field(ge=0)] = 0
    """Burrow's `allowed-lag`: a partition with no more is OK."""
    status_polls: Annotated[int, Field(ge=2, le=100)] = 10
    """Burrow's `intervals`: how many polls a status rests on."""
    scaling_goal: Seconds = 60.0
    """Lag in seconds that is still fine: scaling advice asks for more replicas before it is passed."""
    scaling_catch_up: Seconds = 900.0
    """Seconds within which a backlog below that goal is to be gone; one that is past it as soon as may be."""
    scaling_hold: Seconds = 120.0
    """Seconds for which fewer replicas must have been enough before they are advised."""
    scaling_start: Annotated[float, Field(ge=0, le=3_600)] = 20.0
    """Seconds that a replica takes from its start until it consumes."""
    scaling_pause: Annotated[float, Field(ge=0, le=3_600)] = 5.0
    """Seconds for which a rebalance stops all consumers of a group."""
    scaling_min: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Replicas that are advised at least."""
    scaling_max: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Replicas that are advised at most; the partitions, and what databases have connections for, set limits of their own."""

    @field_validator("families", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    _files = field_validator("tls_certfile", "tls_keyfile", "tls_client_cafile", "web_config_file")(
        _existing_file
    )

    @model_validator(mode="after")
    def _serves_safely(self) -> Self:
        if self.web_config_file is not None and (self.tls_certfile or self.username):
            raise ValueError(
                "MONITOR_WEB_CONFIG_FILE goes in place of MONITOR_TLS_... and MONITOR_USERNAME: set "
                "one or the other"
            )
        if (self.tls_certfile is None) != (self.tls_keyfile is None):
            raise ValueError("MONITOR_TLS_CERTFILE and MONITOR_TLS_KEYFILE need each other")
        if self.tls_client_cafile is not None and self.tls_certfile is None:
            raise ValueError("MONITOR_TLS_CLIENT_CAFILE needs MONITOR_TLS_CERTFILE")
        if bool(self.username) != bool(self.password):
            raise ValueError("MONITOR_USERNAME and MONITOR_PASSWORD need each other")
        if self.username and ":" in self.username:
            raise ValueError("MONITOR_USERNAME must be without a colon: basic auth ends it there")
        if (
            self.username
            and self.tls_certfile is None
            and not is_loopback(self.host)
            and not self.allow_cleartext_password
        ):
            raise ValueError(
                "MONITOR_PASSWORD without TLS is sent in clear text: set MONITOR_TLS_CERTFILE and "
                "MONITOR_TLS_KEYFILE, or MONITOR_ALLOW_CLEARTEXT_PASSWORD=true where a proxy in "
                "front has TLS"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stale_after is not None and self.stale_after <= self.poll_interval:
            raise ValueError(
                f"MONITOR_STALE_AFTER={self.stale_after:g} must be longer than the poll interval "
                f"of {self.poll_interval:g} s, or every value is stale between two polls"
            )
        if self.scaling_max is not None and self.scaling_max < self.scaling_min:
            raise ValueError(
                f"MONITOR_SCALING_MAX={self.scaling_max} is less than "
                f"MONITOR_SCALING_MIN={self.scaling_min}"
            )
        return self

    @property
    def stale_after_seconds(self) -> float:
        """Return the age from which data no longer counts; three polls unless set."""
        return self.stale_after or 3 * self.poll_interval

    @property
    def tls_files(self) -> tuple[Path, Path] | None:
        """Return certificate and key, None for plain HTTP."""
        if self.tls_certfile is None or self.tls_keyfile is None:
            return None
        return self.tls_certfile, self.tls_keyfile

    @property
    def login(self) -> tuple[str, str] | None:
        """Return the user and password that open the pages, None when they are open to all."""
        if not self.username or not self.password:
            return None
        return self.username, self.password.get_secret_value()

    def wants_group(self) -> Callable[[str], bool] | None:
        """Return what says whether a group is watched, None when all are."""
        return name_filter(self.groups_allow, self.groups_deny)

    def wants_topic(self) -> Callable[[str], bool] | None:
        """Return what says whether a topic is watched, None when all are."""
        return name_filter(self.topics_allow, self.topics_deny)


def name_filter(
    allow: re.Pattern[str] | None, deny: re.Pattern[str] | None
) -> Callable[[str], bool] | None:
    """Return what says whether a name is wanted, None when all are; deny goes before allow."""
    if allow is None and deny is None:
        return None

    def wants(name: str) -> bool:
        if deny is not None and deny.fullmatch(name):
            return False
        return allow is None or allow.fullmatch(name) is not None

    return wants


def split_address(address: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPV6]:PORT`; raise ValueError with what is allowed."""
    host, separator, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r} is not HOST:PORT; put an IPv6 address in brackets")
    if not separator or not host or "/" in host or not port.isdecimal():
        raise ValueError(f"{address!r} is not HOST:PORT")
    if not 0 < int(port) < 65_536:
        raise ValueError(f"{address!r}: a port is 1 to 65535")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
