"""Where the databases and the services' pools are: environment variables `MONITOR_<NAME>`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from monitor.pools.address import Address
from monitor.pools.model import CONSOLE
from monitor.pools.services import ServiceTarget
from monitor.secret_files import SettingsWithSecretFiles

PREFIX: Final = "MONITOR_"


class DatabaseSettings(SettingsWithSecretFiles):
    """What of the databases is watched; nothing unless set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    database_url: SecretStr | None = None
    """PostgreSQL itself, not PgBouncer in front of it, as a URL or DSN."""
    pgbouncer_url: SecretStr | None = None
    """PgBouncer's admin console, whatever database the URL names."""
    service_urls: Annotated[tuple[str, ...], NoDecode] = ()
    """Replicas whose `/metrics` has their pool: `[NAME=]URL`, separated by commas."""
    pool_max: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Connections assumed of replicas whose own pool can't be read."""
    database_timeout: Annotated[float, Field(ge=0.1, le=60)] = 2.0
    """Seconds that one look at all of them may take."""

    @field_validator("service_urls", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("service_urls")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ServiceTarget.parse(text)
        return value

    @field_validator("database_url", "pgbouncer_url")
    @classmethod
    def _addresses(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        Address.parse(value.get_secret_value())
        return value

    @property
    def postgres_address(self) -> Address | None:
        """Where PostgreSQL is, None when it is not watched."""
        url = self.database_url
        return None if url is None else Address.parse(url.get_secret_value())

    @property
    def pgbouncer_address(self) -> Address | None:
        """Where PgBouncer's admin console is, None when it is not watched."""
        url = self.pgbouncer_url
        return None if url is None else Address.parse(url.get_secret_value(), database=CONSOLE)

    @property
    def is_empty(self) -> bool:
        """Say whether nothing is watched."""
        return not (self.database_url or self.pgbouncer_url or self.service_urls)
