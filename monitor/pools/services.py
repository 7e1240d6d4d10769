"""Reads the pool figures that a service's own /metrics has (`db_pool_*`)."""

from __future__ import annotations

import http.client
import json
import re
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from monitor.pools.failures import NO_ANSWER, AskError
from monitor.pools.model import ServicePool

MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_PREFIX: Final = "db_pool_"
# payment-2 is a replica's name: counted as a service of its own, it would be there twice
_NAME: Final = re.compile(r"([A-Za-z0-9._-]+?)(?:-\d+)?=(.+)")
_FORM: Final = "say [NAME=]http://HOST:PORT, without user or password"


@dataclass
class ServiceTarget:
    """A process whose pool is read; `name` is its service, asked of its /health when not given.

    A number at the end of the name is the replica's.
    """

    scheme: str
    host: str
    port: int
    path: str
    name: str | None = None
    _asked_name: str | None = field(default=None, init=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `[NAME=]URL`; the path is /metrics unless given.

        Raises ValueError that says what is allowed and does not repeat the text.
        """
        named = _NAME.fullmatch(text.strip())
        name, url = (named[1], named[2]) if named else (None, text.strip())
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError(_FORM) from None
        wrong = parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query
        if wrong or not host:
            raise ValueError(_FORM)
        path = parts.path if parts.path.strip("/") else "/metrics"
        return cls(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path, name)

    @property
    def shown(self) -> str:
        """Return the address."""
        return f"{self.scheme}://{self.host}:{self.port}{self.path}"

    def service(self, deadline: float) -> str:
        """Return the service's name; raises AskError where neither setting nor /health has it."""
        if self.name is not None:
            return self.name
        if self._asked_name is None:
            # one that is unwell says so with a status of its own, and still its name
            body = _get(self, "/health", deadline, any_status=True)
            try:
                self._asked_name = str(json.loads(body)["service"])
            except (ValueError, KeyError, TypeError):
                raise AskError("/health has no service name: say NAME=URL") from None
        return self._asked_name


def read_service(target: ServiceTarget, deadline: float) -> ServicePool:
    """Read a process's pool until the deadline; raises AskError."""
    text = _get(target, target.path, deadline)
    values = _pool_values(text)
    maximum = values.get("max_connections")
    if maximum is None:
        raise AskError(f"its metrics have no {_PREFIX}max_connections")
    return ServicePool(
        service=target.service(deadline),
        maximum=maximum,
        in_use=values.get("in_use_connections"),
        idle=values.get("idle_connections"),
        waiting=values.get("waiting"),
        timeouts=values.get("timeouts_total"),
    )


def _pool_values(text: str) -> dict[str, int]:
    """Return name without prefix -> value, summed over the pools of a process that has several."""
    lines = [line for line in text.splitlines() if line.startswith(_PREFIX)]
    values: dict[str, int] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                name = sample.name.removeprefix(_PREFIX)
                values[name] = values.get(name, 0) + int(sample.value)
    except (ValueError, OverflowError):
        raise AskError("its metrics can't be read") from None
    return values


def _get(target: ServiceTarget, path: str, deadline: float, *, any_status: bool = False) -> str:
    make = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = make(target.host, target.port, timeout=_left(deadline))
    try:
        connection.request("GET", path, headers={"Accept": "text/plain", "Connection": "close"})
        response = connection.getresponse()
        if response.status != HTTPStatus.OK and not any_status:
            raise AskError(f"answers {path} with status {response.status}")
        body = bytearray()
        # a page that trickles in would reset a socket's time limit with every byte
        while _left(deadline) and (chunk := response.read1(_CHUNK_BYTES)):
            body += chunk
            if len(body) > MAX_PAGE_BYTES:
                raise AskError(f"its page is larger than {MAX_PAGE_BYTES} bytes")
        return body.decode(errors="replace")
    except TimeoutError:
        raise AskError(NO_ANSWER) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise AskError(f"can't be read: {reason}") from None
    finally:
        connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise AskError(NO_ANSWER)
    return left
