"""What an authorised person can change in a running service: the faults that it injects.

`GET`, `PUT` and `DELETE /admin/faults`, with `Authorization: Bearer` and the ADMIN_TOKEN. Without an
ADMIN_TOKEN there is nothing at these addresses.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, request
from pydantic import ValidationError

from order_services.runtime.faults import Faults
from order_services.runtime.http import ApiError, json_response, parse_json

if TYPE_CHECKING:
    from flask import Flask, Response

    from order_services.runtime.faults import FaultInjector


def add_admin_routes(app: Flask, token: str, faults: FaultInjector) -> None:
    """Add the routes to a service's app, unless `token` is empty."""
    if not token:
        return
    admin = Blueprint("admin", __name__, url_prefix="/admin")
    expected = f"Bearer {token}".encode()

    @admin.before_request
    def authorise() -> None:
        given = request.headers.get("Authorization", "").encode()
        # in constant time: how long a refusal takes must not tell how much was right
        if not hmac.compare_digest(given, expected):
            raise ApiError(
                HTTPStatus.UNAUTHORIZED,
                "this needs Authorization: Bearer and the ADMIN_TOKEN of this service",
                field="Authorization",
                headers={"WWW-Authenticate": "Bearer"},
            )

    @admin.get("/faults")
    def show() -> Response:
        return _answer(faults.faults)

    @admin.put("/faults")
    def change() -> Response:
        wanted = parse_faults(parse_json(request.get_data(), request.content_type))
        faults.set(wanted)
        return _answer(wanted)

    @admin.delete("/faults")
    def clear() -> Response:
        faults.clear()
        return _answer(faults.faults)

    app.register_blueprint(admin)


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
