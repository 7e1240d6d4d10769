"""3,000 requests of every kind of wrongness, over all routes of all programs."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

import httpx
import pytest

from order_services.local.ports import free_port
from order_services.operations import topic_admin
from tests.integration.order_services.conftest import Lab
from tests.integration.order_services.test_service import environment, running
from tests.support.nonsense import nonsense
from tests.support.waiting import wait_for

REQUESTS: Final = 3000
AT_ONCE: Final = 60
SEED: Final = 13
# the deadline of a head or a body, and what a busy machine takes
LONGEST_SECONDS: Final = 10 + 10
# twice: the first may be taken for the end of a body
END: Final = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" * 2
EVERYWHERE: Final = ("/health", "/ready", "/metrics", "/admin/faults", "/", "/nothing")
PATHS: Final = {
    "gateway": (
        *("/api/orders", "/api/orders", "/api/orders", "/api/orders/{}", "/api/orders/{}/events"),
        *("/api/orders/{}/cancel", "/api/orders/replay", "/api/orders/replay/{}"),
        *("/api/inventory", "/api/analytics", "/api/services/status"),
    ),
    "payment": (),
    "inventory": (),
    "shipping": (),
    "analytics": ("/ws", "/api/stats"),
}
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


async def send(port: int, data: bytes) -> tuple[list[int], float]:
    """Send it and read until the server closes; returns the statuses and the seconds."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        # whatever it was, a proper request behind it ends the connection
        writer.write(data + END)
        answer = await asyncio.wait_for(reader.read(-1), 60)
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    return [int(status) for status in _STATUS.findall(answer)], time.monotonic() - began


async def send_all(ports: dict[str, int]) -> list[tuple[bytes, list[int], float]]:
    random, turn = Random(SEED), asyncio.Semaphore(AT_ONCE)

    async def one(port: int, data: bytes) -> tuple[bytes, list[int], float]:
        async with turn:
            return (data, *await send(port, data))

    names = list(ports)
    asked = []
    for n in range(REQUESTS):
        name = names[n % len(names)] if n % 3 else "gateway"
        asked.append(one(ports[name], nonsense(random, (*PATHS[name], *EVERYWHERE))))
    return await asyncio.gather(*asked)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").is_success
    except httpx.HTTPError:
        return False


@pytest.mark.heavy
def test_nonsense_is_refused_in_time_and_leaves_no_trace(lab: Lab, tmp_path: Path) -> None:
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    ports = {name: free_port() for name in PATHS}
    with ExitStack() as started:
        for name, port in ports.items():
            started.enter_context(running(name, tmp_path, environment(lab, PORT=port)))
        for name, port in ports.items():
            wait_for(f"{name} ready", lambda port=port: is_ready(port), timeout_s=120)  # type: ignore[misc]
        results = asyncio.run(send_all(ports))
        for name, port in ports.items():
            wait_for(f"{name} still ready", lambda port=port: is_ready(port))  # type: ignore[misc]
    answered = [status for _, statuses, _ in results for status in statuses]
    print({status: answered.count(status) for status in sorted(set(answered))})
    print(f"slowest: {max(seconds for _, _, seconds in results):.1f} s")
    assert [(data[:500], got) for data, got, _ in results if any(each >= 500 for each in got)] == []
    assert [data[:500] for data, _, seconds in results if seconds > LONGEST_SECONDS] == []
    assert [data[:500] for data, got, _ in results if not got] == []
    for name in PATHS:
        lines = [json.loads(line) for line in (tmp_path / f"{name}.log").read_text().splitlines()]
        assert [each for each in lines if "exception" in each or each["level"] == "error"] == []
        assert len(lines) < 200, lines[:20]
