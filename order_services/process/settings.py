"""The settings of a service: one typed model, read once from the environment at start."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings
from sqlalchemy import URL

from order_services.process.kafka_settings import KafkaSettings, is_loopback

# The range that librdkafka takes.
MAX_POLL_INTERVAL_RANGE_MS: Final = (10_000, 86_400_000)

# A member that is asked to give up partitions finishes its batch within this share of the time that
# the group waits for it at most; the rest is for those who wait.
REVOKE_BUDGET_SHARE: Final = 0.2
MIN_ADMIN_TOKEN_LENGTH: Final = 16
DEFAULT_PASSWORD: Final = "postgres"  # noqa: S105  # refused where others can reach the database

# https://www.postgresql.org/docs/current/libpq-ssl.html: only the last two know whom they talk to
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

# How long a process that was asked to end may take for all that it has to finish, and how long
# whoever asked waits before it kills it.
SHUTDOWN_TIMEOUT_SECONDS: Final = 10.0
EXIT_MARGIN_SECONDS: Final = 5.0
KILL_AFTER_SECONDS: Final = SHUTDOWN_TIMEOUT_SECONDS + EXIT_MARGIN_SECONDS

Port = Annotated[int, Field(ge=0, le=65_535)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
FaultDelay = Annotated[float, Field(ge=0, le=30)]
FaultPause = Annotated[float, Field(ge=0, le=3_600)]


class SettingsError(Exception):
    """A setting is missing, malformed or unsafe; one line for each."""


class GroupProtocol(StrEnum):
    """How members join their consumer group."""

    CLASSIC = "classic"
    CONSUMER = "consumer"  # KIP-848, needs brokers of 4.0 or newer


class DatabasePauseMode(StrEnum):
    """What an injected pause of the database does to those who want a transaction."""

    HOLD = "hold"  # they wait, and fail as they do when the pool is exhausted
    DENY = "deny"  # they fail at once, as when the database is away


class ServiceSettings(KafkaSettings):
    """What all services read; each field is the environment variable of its name in capitals."""

    host: str = "127.0.0.1"
    port: Port
    kafka_client_id: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")]
    # set where it is stable across restarts (a StatefulSet's ordinal): makes membership static
    instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$")] = ""
    group_protocol: GroupProtocol = GroupProtocol.CLASSIC
    session_timeout_seconds: PositiveSeconds = 45.0
    max_poll_interval_seconds: PositiveSeconds = 300.0

    # a host name, an address, or the directory of a socket
    db_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    db_port: Port = 5432
    db_name: Annotated[str, Field(min_length=1)] = "ecommerce"
    db_user: Annotated[str, Field(min_length=1)] = "postgres"
    db_password: SecretStr = SecretStr(DEFAULT_PASSWORD)
    # libpq's own: with `prefer` it takes what the server offers, and trusts anybody
    db_sslmode: SslMode = "prefer"
    db_sslrootcert: Path | None = None  # whom to trust
    db_sslcert: Path | None = None  # who we are, where the server asks for a certificate
    db_sslkey: Path | None = None
    # a transaction pooler takes no start-up options: timeouts are set in each transaction instead
    db_via_pgbouncer: bool = False
    db_pool_min: PositiveInt = 1
    db_pool_max: PositiveInt = 5
    db_pool_idle_seconds: PositiveSeconds = 30.0
    db_pool_timeout_seconds: PositiveSeconds = 5.0
    db_connect_timeout_seconds: PositiveInt = 5
    db_statement_timeout_seconds: PositiveSeconds = 30.0
    db_lock_timeout_seconds: PositiveSeconds = 10.0
    # the relay waits for Kafka within its transaction: longer than the delivery timeout
    db_idle_transaction_timeout_seconds: PositiveSeconds = 60.0

    batch_max_messages: Annotated[int, Field(ge=1, le=10_000)] = 500
    # how long a batch that is not full waits for more: a transaction's cost is shared by its messages
    batch_linger_seconds: Annotated[float, Field(ge=0, le=5)] = 0.02
    # how far apart batches that are not full begin, when one follows the other: a busy consumer makes
    # few large transactions, and after a pause a message still waits for no longer than the linger
    batch_interval_seconds: Annotated[float, Field(ge=0, le=5)] = 0.3
    retry_first_seconds: PositiveSeconds = 0.1
    retry_max_seconds: PositiveSeconds = 10.0
    dead_letter_limit: Annotated[int, Field(ge=0)] = 100
    dead_letter_window_seconds: PositiveSeconds = 300.0

    # faults to inject from the start, see `faults`; all off by default
    fault_payment_refusal_rate: Share = 0.0
    fault_batch_delay_seconds: FaultDelay = 0.0
    fault_message_delay_seconds: FaultDelay = 0.0
    fault_poison_rate: Share = 0.0
    fault_database_pause_seconds: FaultPause = 0.0
    fault_database_pause_every_seconds: FaultPause = 0.0
    fault_database_pause_mode: DatabasePauseMode = DatabasePauseMode.HOLD
    # what `Authorization: Bearer` must carry for /admin; without it there is no /admin
    admin_token: SecretStr = SecretStr("")

    relay_enabled: bool = True
    relay_batch_max_messages: Annotated[int, Field(ge=1, le=10_000)] = 2_000
    relay_poll_seconds: PositiveSeconds = 0.05
    relay_delivery_timeout_seconds: PositiveSeconds = 10.0

    shutdown_timeout_seconds: PositiveSeconds = SHUTDOWN_TIMEOUT_SECONDS
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    @property
    def revoke_budget_seconds(self) -> float:
        """How long a batch may hold up a rebalance: what is longer is rolled back."""
        return REVOKE_BUDGET_SHARE * self.max_poll_interval_seconds

    @property
    def group_instance_id(self) -> str | None:
        """The member's static id, where it has one."""
        return f"{self.kafka_client_id}-{self.instance_id}" if self.instance_id else None

    @property
    def database_url(self) -> URL:
        """Where the database is; shows no password when printed."""
        # libpq takes the directory of a socket as a host, but a URL only as a parameter
        is_socket = self.db_host.startswith("/")
        return URL.create(
            "postgresql+psycopg2",
            username=self.db_user,
            password=self.db_password.get_secret_value() or None,
            host=None if is_socket else self.db_host,
            port=None if is_socket else self.db_port,
            database=self.db_name,
            query={"host": self.db_host, "port": str(self.db_port)} if is_socket else {},
        )

    @field_validator("db_sslrootcert", "db_sslcert", "db_sslkey")
    @classmethod
    def _readable_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @model_validator(mode="after")
    def _refuse_unsafe_database(self) -> Self:
        if self.db_sslmode.startswith("verify") and self.db_sslrootcert is None:
            raise ValueError(f"DB_SSLMODE={self.db_sslmode} needs DB_SSLROOTCERT: whom to trust")
        if (self.db_sslcert is None) != (self.db_sslkey is None):
            raise ValueError("DB_SSLCERT and DB_SSLKEY belong together")
        if self.db_password.get_secret_value() == DEFAULT_PASSWORD and not (
            is_loopback(self.host) and is_loopback(self.db_host)
        ):
            raise ValueError(
                "DB_PASSWORD is the default one, which everybody knows: it is taken only while HOST "
                "and DB_HOST are this machine's loopback interface"
            )
        return self

    @model_validator(mode="after")
    def _refuse_unsafe(self) -> Self:
        low, high = MAX_POLL_INTERVAL_RANGE_MS
        if not low <= self.max_poll_interval_seconds * 1000 <= high:
            raise ValueError(
                f"MAX_POLL_INTERVAL_SECONDS must be from {low // 1000} to {high // 1000}"
            )
        if self.max_poll_interval_seconds < self.session_timeout_seconds:
            raise ValueError(
                "MAX_POLL_INTERVAL_SECONDS must not be less than SESSION_TIMEOUT_SECONDS: "
                "a slow batch would cost the member its partitions before a dead one loses them"
            )
        if self.db_pool_min > self.db_pool_max:
            raise ValueError("DB_POOL_MIN must not be more than DB_POOL_MAX")
        if self.db_pool_max < 2:
            raise ValueError(
                "DB_POOL_MAX must be at least 2: the consumer and the relay hold one connection each"
            )
        if self.db_idle_transaction_timeout_seconds <= 2 * self.relay_delivery_timeout_seconds:
            raise ValueError(
                "DB_IDLE_TRANSACTION_TIMEOUT_SECONDS must be more than twice "
                "RELAY_DELIVERY_TIMEOUT_SECONDS: PostgreSQL would end the relay's transaction "
                "while Kafka still delivers"
            )
        if 0 < len(self.admin_token.get_secret_value()) < MIN_ADMIN_TOKEN_LENGTH:
            raise ValueError(f"ADMIN_TOKEN must have at least {MIN_ADMIN_TOKEN_LENGTH} characters")
        if self.fault_database_pause_seconds > 0 and (
            self.fault_database_pause_every_seconds <= self.fault_database_pause_seconds
        ):
            raise ValueError(
                "FAULT_DATABASE_PAUSE_EVERY_SECONDS must be more than "
                "FAULT_DATABASE_PAUSE_SECONDS: the database would never be back"
            )
        if self.retry_first_seconds > self.retry_max_seconds:
            raise ValueError("RETRY_FIRST_SECONDS must not be more than RETRY_MAX_SECONDS")
        return self


S = TypeVar("S", bound=ServiceSettings)
M = TypeVar("M", bound=BaseSettings)


def load(model: type[M], **given: object) -> M:
    """Read what is not `given` from the environment; `SettingsError` names each bad variable."""
    read: Callable[..., M] = model
    try:
        return read(**given)
    except ValidationError as error:
        raise SettingsError(problems(error)) from None


def problems(error: ValidationError) -> str:
    """Return a line for each bad setting, by the name of its variable and without its value."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in problem["loc"]).upper()
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {message}" if name else message)
    return "\n".join(lines)
