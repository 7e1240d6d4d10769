"""Asks an ASGI application without a server between."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx


class Client:
    """A client of one application; each request has an event loop of its own."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a GET."""
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer, its body decompressed."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://monitor") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())
