"""Where the services' replicas are, and what each says about itself by HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
MAX_CONCURRENT: Final = 16
_POOL_MAX: Final = "db_pool_max_connections"

Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""Labels and value of each sample, by the metric's name."""


class SilentError(Exception):
    """Nobody answered, or not as a program of ours would; the text says why."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A process of a service; `url` has no slash at its end."""

    service: str
    url: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What a replica said; `silent` is why nothing came, and then nothing else is known.

    `reasons` are those of /health and /ready, empty where both are well. `pool_max` is None where
    /metrics does not have it.
    """

    replica: Replica
    reasons: tuple[str, ...] = ()
    pool_max: int | None = None
    silent: str | None = None


def everywhere(urls: Mapping[str, Sequence[str]]) -> list[Replica]:
    """Return each replica behind these addresses: a name that stands for several is looked up.

    Docker and headless services of Kubernetes answer with the address of every replica.
    """
    return [
        Replica(service, one)
        for service, given in urls.items()
        for url in given
        for one in _addresses(url)
    ]


def ask_all(replicas: Sequence[Replica]) -> list[Answers]:
    """Ask all at once; the answers are in the replicas' order."""
    with ThreadPoolExecutor(MAX_CONCURRENT) as threads:
        return list(threads.map(_ask, replicas))


def get(url: str) -> tuple[int, bytes]:
    """Return status and body, also of 4xx and 5xx; raises `SilentError`."""
    request = urllib.request.Request(url, headers={"Accept": "*/*"})  # noqa: S310  # checked by the caller
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            return answer.status, answer.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(MAX_ANSWER_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SilentError(getattr(reason, "strerror", None) or str(reason)) from error


def state_of(body: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the status and the reasons that /health and /ready answer; raises `SilentError`."""
    try:
        answer = json.loads(body)
        return str(answer["status"]), tuple(str(reason) for reason in answer["reasons"])
    except (ValueError, KeyError, TypeError) as error:
        raise SilentError("the answer is not that of a service") from error


def samples(url: str) -> Samples:
    """Return the samples of a metrics page; raises `SilentError`."""
    status, body = get(url)
    if status != 200:
        raise SilentError(f"answered {status}")
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    try:
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    except ValueError as error:
        raise SilentError("the page is none of metrics") from error
    return found


def _addresses(url: str) -> Iterator[str]:
    parts = urlsplit(url.strip().rstrip("/"))
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme == "https":  # a certificate names the host, not its addresses
        yield urlunsplit(parts)
        return
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        found = []
    addresses = sorted({str(entry[4][0]) for entry in found})
    if len(addresses) < 2:
        yield urlunsplit(parts)
        return
    for address in addresses:
        yield urlunsplit(parts._replace(netloc=f"{address}:{port}"))


def _ask(replica: Replica) -> Answers:
    try:
        reasons = [
            reason for path in ("/health", "/ready") for reason in _reasons(replica.url, path)
        ]
        page = samples(f"{replica.url}/metrics")
    except SilentError as error:
        return Answers(replica, silent=str(error))
    pool = page.get(_POOL_MAX)
    return Answers(replica, tuple(reasons), int(pool[0][1]) if pool else None)


def _reasons(url: str, path: str) -> Sequence[str]:
    status, body = get(url + path)
    said, reasons = state_of(body)
    if status == 200 and said != "degraded":
        return ()
    return reasons or (f"{path} answered {status}",)
