"""What an authorised person can change in a running service: the faults that it injects.

`GET`, `PUT` and `DELETE /admin/faults`, with `Authorization: Bearer` and the ADMIN_TOKEN.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from order_services.process.faults import Faults
from order_services.web.answers import ApiError, Call, json_response
from order_services.web.auth import guarded

if TYPE_CHECKING:
    from starlette.responses import Response

    from order_services.process.faults import FaultInjector
    from order_services.web.app import ServiceApp


def add_admin_routes(app: ServiceApp, token: str, faults: FaultInjector) -> None:
    """Add the routes; each answers 403 to everybody where `token` (ADMIN_TOKEN) is empty."""

    def show(_call: Call) -> Response:
        return _answer(faults.faults)

    def change(call: Call) -> Response:
        wanted = parse_faults(call.json())
        faults.set(wanted)
        return _answer(wanted)

    def clear(_call: Call) -> Response:
        faults.clear()
        return _answer(faults.faults)

    for method, view in (("GET", show), ("PUT", change), ("DELETE", clear)):
        app.add(method, "/admin/faults", guarded(token, view))


def parse_faults(body: Any) -> Faults:
    """Return the faults that a request asks for; raises `ApiError` 400 that names the field."""
    try:
        return Faults.model_validate(body)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"]) or "body"
        message = problem["msg"].removeprefix("Value error, ")
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{field}: {message}", field=field) from None


def _answer(faults: Faults) -> Response:
    return json_response(
        {"faults": faults.model_dump(mode="json", by_alias=True), "active": faults.active()}
    )
