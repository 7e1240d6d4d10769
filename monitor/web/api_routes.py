"""Puts the JSON API onto Flask."""

from __future__ import annotations

import json
import operator
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from flask import Blueprint, Response, request
from pydantic import TypeAdapter
from werkzeug.routing import BaseConverter

from monitor.answers.models import ErrorAnswer, TargetGroup
from monitor.web.api import PREFIX, Api, Route
from monitor.web.openapi import document
from monitor.web.queries import Paged, Query, RefusedError, read

# Of up to 1.6 MB each, with 2,000 groups.
MAX_KEPT: Final = 4
_PORT: Final = re.compile(r":[0-9]+$")


class RestOfPath(BaseConverter):
    """The rest of a path: a name may be empty, and hold slashes and line feeds."""

    regex = r"(?s:.*)"
    part_isolating = False


class Kept:
    """The last answers of each poll: a list of 2,000 groups takes 65 ms to make, most of it text."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._answers: OrderedDict[str, tuple[tuple[object, ...], bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, asked: str, make: Callable[[], bytes]) -> bytes:
        """Return the answer to a request, made anew where there was a poll since."""
        basis = self._api.basis()
        with self._lock:
            found = self._answers.get(asked)
        if basis is None or found is None or not _same(found[0], basis):
            found = (basis or (), make())
            with self._lock:
                self._answers[asked] = found
                self._answers.move_to_end(asked)
                if len(self._answers) > MAX_KEPT:
                    self._answers.popitem(last=False)
        return found[1]


def _same(one: Sequence[object], other: Sequence[object]) -> bool:
    """Say whether these are the very same objects: to compare what is in them takes longer."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def api_routes(api: Api) -> Blueprint:
    """Return the routes; the application needs the converter `rest` (`RestOfPath`)."""
    blueprint = Blueprint("api", __name__, url_prefix=PREFIX)
    kept = Kept(api)
    for route in api.routes:
        rule = route.path if route.parameter is None else route.path.split("{")[0] + "<rest:name>"
        blueprint.add_url_rule(rule, endpoint=route.path, view_func=_view(route, kept))
    targets = TypeAdapter(list[TargetGroup])

    @cache
    def openapi() -> bytes:
        return json.dumps(document(api.routes), indent=1).encode()

    @blueprint.get("/openapi.json")
    def show_openapi() -> Response:
        return _json(openapi())

    @blueprint.get("/sd")
    def service_discovery() -> Response:
        read(Query, request.args.to_dict(flat=False))
        port = {"http": ":80", "https": ":443"}[request.scheme]
        host = request.host if _PORT.search(request.host) else request.host + port
        return _json(targets.dump_json(api.targets(host, request.scheme)))

    @blueprint.errorhandler(RefusedError)
    def refuse(error: RefusedError) -> Response:
        return _json(ErrorAnswer(error=error.fault).model_dump_json().encode(), error.status)

    return blueprint


def _view(route: Route, kept: Kept) -> Callable[..., Response]:
    def view(name: str = "") -> Response:
        query = read(route.query, request.args.to_dict(flat=False))

        def make() -> bytes:
            return bytes(route.handle(name, query).model_dump_json(), "utf-8")

        return _json(kept.get(request.full_path, make) if isinstance(query, Paged) else make())

    return view


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, mimetype="application/json")
