"""An app of the order services on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from order_services.web.app import ServiceApp
from order_services.web.server import WebServer


@contextmanager
def serving(app: ServiceApp, **options: Any) -> Iterator[httpx.Client]:
    """Serve it; yields a client of its address."""
    server = WebServer(app, "127.0.0.1", 0, **options)
    server.start()
    try:
        # to load the certificates of the authorities takes longer than most tests
        url = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=url, timeout=30, trust_env=False, verify=False) as client:
            yield client
    finally:
        server.stop()


def ask(app: ServiceApp, method: str, path: str, body: Any = None) -> httpx.Response:
    """Ask an app without a server, where a port for each would take too long."""

    async def on_a_loop() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.request(method, path, json=body)

    return asyncio.run(on_a_loop())
