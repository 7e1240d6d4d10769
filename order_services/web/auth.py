"""Who may change a running service: whoever has its ADMIN_TOKEN."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from http import HTTPStatus

from starlette.responses import Response

from order_services.web.answers import ApiError, Call


def require_bearer(call: Call, token: str) -> None:
    """Let a request pass that has `Authorization: Bearer` and the `token`.

    Raises `ApiError` 401 for a request without one, and 403 for another one and for every request
    while `token` is empty.
    """
    if not token:
        raise ApiError(HTTPStatus.FORBIDDEN, "this is switched off: the service has no ADMIN_TOKEN")
    scheme, _, given = (call.header("authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise ApiError(
            HTTPStatus.UNAUTHORIZED,
            "this needs Authorization: Bearer and the ADMIN_TOKEN",
            field="Authorization",
            headers={"WWW-Authenticate": "Bearer"},
        )
    # in constant time: how long a refusal takes must not tell how much was right
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise ApiError(HTTPStatus.FORBIDDEN, "this token is not right", field="Authorization")


def guarded(token: str, view: Callable[[Call], Response]) -> Callable[[Call], Response]:
    """Return the view for those who have the token only."""

    def check_first(call: Call) -> Response:
        require_bearer(call, token)
        return view(call)

    return check_first
