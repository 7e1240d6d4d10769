"""How every producer, consumer and admin client reaches Kafka: addresses, TLS and SASL.

The variables are the monitor's, so that one set configures both programs.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_BROKERS: Final = "127.0.0.1:9092"

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSettings(BaseSettings):
    """The brokers and what they demand; each field is the environment variable in capitals."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    kafka_brokers: Annotated[str, Field(min_length=1)] = DEFAULT_BROKERS
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    # whom to trust; else the certificate authorities of this machine
    kafka_ssl_cafile: Path | None = None
    # who we are, where brokers ask for a certificate; the key may be in the same file
    kafka_ssl_certfile: Path | None = None
    kafka_ssl_keyfile: Path | None = None
    kafka_ssl_password: SecretStr | None = None
    kafka_ssl_check_hostname: bool = True
    kafka_sasl_mechanism: SaslMechanism | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    # a password over an unencrypted connection can be read by anyone on the way
    kafka_allow_cleartext_password: bool = False

    @field_validator("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not (value.is_file() and os.access(value, os.R_OK)):
            raise ValueError(f"there is no file {value} that may be read")
        return value

    @model_validator(mode="after")
    def _refuse_unsafe_kafka(self) -> Self:
        protocol, mechanism = self.kafka_security_protocol, self.kafka_sasl_mechanism
        if not protocol.endswith("SSL"):
            given = {
                "KAFKA_SSL_CAFILE": self.kafka_ssl_cafile,
                "KAFKA_SSL_CERTFILE": self.kafka_ssl_certfile,
                "KAFKA_SSL_KEYFILE": self.kafka_ssl_keyfile,
            }
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"{name} needs KAFKA_SECURITY_PROTOCOL SSL or SASL_SSL")
        if self.kafka_ssl_certfile is None and self.kafka_ssl_keyfile is not None:
            raise ValueError("KAFKA_SSL_KEYFILE needs KAFKA_SSL_CERTFILE")
        if not protocol.startswith("SASL"):
            if mechanism is not None:
                raise ValueError(
                    f"KAFKA_SASL_MECHANISM={mechanism} needs KAFKA_SECURITY_PROTOCOL "
                    "SASL_SSL or SASL_PLAINTEXT"
                )
            return self
        if mechanism is None:
            raise ValueError(f"{protocol} needs KAFKA_SASL_MECHANISM")
        if not (self.kafka_sasl_username and self.kafka_sasl_password):
            raise ValueError(f"{mechanism} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
        if (
            protocol == "SASL_PLAINTEXT"
            and mechanism == "PLAIN"
            and not self.kafka_allow_cleartext_password
            and not all(_is_loopback(address) for address in self.kafka_brokers.split(","))
        ):
            raise ValueError(
                "PLAIN over SASL_PLAINTEXT sends the password in clear text: use SASL_SSL or "
                "SCRAM, or set KAFKA_ALLOW_CLEARTEXT_PASSWORD=true"
            )
        return self


def kafka_settings(settings: KafkaSettings | str) -> dict[str, Any]:
    """Return what every client's configuration begins with, as librdkafka names it.

    A text is the brokers' addresses; the rest is then read from the environment, which raises
    pydantic's `ValidationError` for what cannot be used.
    """
    if isinstance(settings, str):
        settings = KafkaSettings(kafka_brokers=settings)
    config: dict[str, Any] = {"bootstrap.servers": settings.kafka_brokers}
    if settings.kafka_security_protocol == "PLAINTEXT":
        return config
    config["security.protocol"] = settings.kafka_security_protocol
    if settings.kafka_security_protocol.endswith("SSL"):
        files = {
            "ssl.ca.location": settings.kafka_ssl_cafile,
            "ssl.certificate.location": settings.kafka_ssl_certfile,
            "ssl.key.location": settings.kafka_ssl_keyfile or settings.kafka_ssl_certfile,
        }
        config |= {name: str(path) for name, path in files.items() if path is not None}
        if settings.kafka_ssl_password is not None:
            config["ssl.key.password"] = settings.kafka_ssl_password.get_secret_value()
        if not settings.kafka_ssl_check_hostname:
            config["ssl.endpoint.identification.algorithm"] = "none"
    if settings.kafka_sasl_mechanism is not None and settings.kafka_sasl_password is not None:
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        config["sasl.password"] = settings.kafka_sasl_password.get_secret_value()
    return config


def is_loopback(host: str) -> bool:
    """Say whether only this machine can be behind `host`: an address, a name or a socket's path."""
    if host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _is_loopback(address: str) -> bool:
    return is_loopback(address.strip().rpartition(":")[0])
