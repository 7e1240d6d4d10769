"""Basic auth of the pages."""

from __future__ import annotations

import hmac
from typing import Final

from flask import Flask, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

# What answers without a login: whoever restarts programs has no password.
OPEN: Final = frozenset({"health", "ready"})


class Login:
    """The user and password that open the pages; without them they are open to all."""

    def __init__(self, user_and_password: tuple[str, str] | None) -> None:
        self._right = user_and_password and _joined(*user_and_password)

    def is_given(self) -> bool:
        """Tell whether the request at hand may see everything."""
        if not self._right:
            return True
        given = request.authorization
        if given is None or given.type != "basic":
            return False
        told = _joined(given.username or "", given.password or "")
        return hmac.compare_digest(told, self._right)  # as slow, however much of it is right

    def guard(self, app: Flask) -> None:
        """Have the application answer 401 to all others."""

        @app.before_request
        def demand_login() -> None:
            if request.endpoint not in OPEN and not self.is_given():
                raise Unauthorized(
                    "user and password are needed, by basic auth",
                    www_authenticate=WWWAuthenticate("basic", {"realm": "Kafka lag monitor"}),
                )


def _joined(user: str, password: str) -> bytes:
    return f"{user}:{password}".encode()
