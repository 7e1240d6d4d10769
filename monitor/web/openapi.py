"""The OpenAPI document of the JSON API, made from its routes and models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from monitor.answers.models import ErrorAnswer, Model, TargetGroup
from monitor.exposition.version import VERSION
from monitor.web.api import PREFIX, Route
from monitor.web.queries import Query

_REF: Final = "#/components/schemas/{model}"
_ERRORS: Final = {
    400: "A parameter is wrong",
    401: "User and password are needed",
    403: "A client certificate is needed",
    404: "There is no such thing",
    503: "Not known whether there is: not all brokers have answered",
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document."""
    answers = [route.answer for route in routes]
    _, schemas = models_json_schema(
        [(model, "serialization") for model in (*answers, ErrorAnswer, TargetGroup)],
        ref_template=_REF,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kafka lag monitor",
            "version": VERSION,
            "description": "Null is what is not known, and never 0. Moments are Unix seconds.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"basic": []}],
        "paths": {
            **{PREFIX + route.path: {"get": _operation(route)} for route in routes},
            f"{PREFIX}/sd": {"get": _discovery()},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    errors = [400, 401, 403]
    if route.parameter is not None:
        errors += [404, 503]
    elif route.query.model_fields:
        errors.append(404)
    return {
        "operationId": route.path.strip("/").replace("/{", "_").rstrip("}"),
        "summary": route.summary,
        "parameters": [
            *([] if route.parameter is None else [_in_path(route.parameter)]),
            *_in_query(route.query),
        ],
        "responses": {"200": _response(route.summary, _of(route.answer)), **_refusals(errors)},
    }


def _discovery() -> dict[str, Any]:
    summary = "Targets for Prometheus' HTTP service discovery"
    schema = {"type": "array", "items": _of(TargetGroup)}
    return {
        "operationId": "sd",
        "summary": summary,
        "responses": {"200": _response(summary, schema), **_refusals([400, 401, 403])},
    }


def _refusals(codes: Sequence[int]) -> dict[str, Any]:
    return {str(code): _response(_ERRORS[code], _of(ErrorAnswer)) for code in sorted(codes)}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _of(model: type[Model]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}


def _in_path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "Percent-encoded: it may hold any character.",
        "schema": {"type": "string"},
    }


def _in_query(query: type[Query]) -> list[dict[str, Any]]:
    found = []
    for name, schema in query.model_json_schema().get("properties", {}).items():
        # left out is not null: there is no null in a query
        (told,) = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
        kept = {k: v for k, v in told.items() if k not in ("title", "description")}
        description = schema["description"]
        found.append({"name": name, "in": "query", "description": description, "schema": kept})
    return found
