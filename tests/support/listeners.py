"""A real broker with listeners of every kind, each with its own certificate, login or address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import trustme
from cryptography.hazmat.primitives import serialization

from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import LOOPBACK, free_port

_MODULES: Final = "org.apache.kafka.common.security"
PLAIN_MODULE: Final = f"{_MODULES}.plain.PlainLoginModule"
SCRAM_MODULE: Final = f"{_MODULES}.scram.ScramLoginModule"
OAUTH_MODULE: Final = f"{_MODULES}.oauthbearer.OAuthBearerLoginModule"


@dataclass(frozen=True)
class Listener:
    """A listener; `advertised` is its address unless it is told, `settings` those of its own."""

    protocol: str = "PLAINTEXT"
    settings: Mapping[str, str] = field(default_factory=dict)
    advertised: str | None = None
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        """Return where it listens."""
        return f"{LOOPBACK}:{self.port}"


def start(
    folder: Path,
    listeners: Mapping[str, Listener],
    overrides: Mapping[str, str] | None = None,
    *,
    users: Mapping[str, str] | None = None,
    jvm_options: Sequence[str] = (),
) -> EmbeddedKafka:
    """Start a broker with these listeners beside its own in plain text; `users` are for SCRAM."""
    own, controller = Listener(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "controller.port").write_text(str(controller))
    of_all = {"PLAINTEXT": own, **listeners}
    properties = {
        "listeners": ",".join(
            [f"{name}://{of.address}" for name, of in of_all.items()]
            + [f"CONTROLLER://{LOOPBACK}:{controller}"]
        ),
        "advertised.listeners": ",".join(
            f"{name}://{of.advertised or of.address}" for name, of in of_all.items()
        ),
        "listener.security.protocol.map": ",".join(
            ["CONTROLLER:PLAINTEXT", *(f"{name}:{of.protocol}" for name, of in of_all.items())]
        ),
        **{
            f"listener.name.{name.lower()}.{key}": value
            for name, of in listeners.items()
            for key, value in of.settings.items()
        },
        **(overrides or {}),
    }
    broker = _WithUsers(
        folder, own.port, overrides=properties, heap_mb=256, jvm_options=jvm_options
    )
    broker.users = users or {}
    broker.start()
    return broker


class _WithUsers(EmbeddedKafka):
    """A broker that is made with users: each start of Apache's tool for one takes seconds."""

    users: Mapping[str, str] = {}

    def _format(self, properties: Path, *more: str) -> None:
        scram = [
            f"--add-scram={mechanism}=[name={name},password={password}]"
            for name, password in self.users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        ]
        super()._format(properties, *scram, *more)


class Certificates:
    """An authority of a test's own, and what it issues, as PEM files that Kafka and Python read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self.authority = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.authority))

    def issue(self, *names: str, expired: bool = False) -> Path:
        """Return a file with a key and a certificate for these names, or of one that has expired."""
        ago = timedelta(days=1 if expired else -1)
        issued = self._authority.issue_cert(
            *names,
            not_before=datetime.now(UTC) - timedelta(days=30),
            not_after=datetime.now(UTC) - ago,
        )
        file = self._folder / f"{'expired-' * expired}{names[0]}.pem"
        # Kafka takes a key as PKCS #8 only
        key = serialization.load_pem_private_key(
            issued.private_key_pem.bytes(), None
        ).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        file.write_bytes(key + b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        return file

    def listener(self, file: Path, *, clients: str = "none") -> dict[str, str]:
        """Return the settings of a listener with this certificate; `clients` as `ssl.client.auth`."""
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(file),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority),
            "ssl.client.auth": clients,
        }
