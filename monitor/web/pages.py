"""The status page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from flask import Flask, Response, abort, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from monitor.configuration import Watched
from monitor.exposition.render import Page
from monitor.poller import Poller, Published
from monitor.pools.analysis import PoolReport
from monitor.pools.services import ServiceTarget
from monitor.web.api import Api, ReadHistory
from monitor.web.api_routes import RestOfPath, api_routes
from monitor.web.burrow import Burrow, burrow_routes
from monitor.web.overview import overview


class Watching(Protocol):
    """The clusters that are watched: a fleet, or the poller of the only one."""

    @property
    def pollers(self) -> Mapping[str, Poller]:
        """Return the poller of each cluster by its name."""

    @property
    def watched(self) -> Sequence[Watched]:
        """Return the settings of each, in the same order; nothing where they are not known."""

    def page(self) -> Page:
        """Return the page of all."""

    def page_of(self, cluster: str) -> Page | None:
        """Return the page of one, None where there is none of this name."""

    def unready_reason(self) -> str | None:
        """Say why nothing that is shown can be relied on, None when something can."""


class StatusPage:
    """The status page of a cluster as HTML, rendered once per poll and not per visitor."""

    def __init__(self) -> None:
        self._rendering = threading.Lock()
        self._made_of: tuple[Published, str | None, Mapping[str, bool]] | None = None
        self._html = ""

    def html(self, poller: Poller, others: Mapping[str, bool]) -> str:
        """Return the page of the last poll; needs an application context.

        `others` has the clusters that can be turned to, and whether what is shown of each can be
        relied on.
        """
        with self._rendering:
            latest, reason = poller.latest, poller.unready_reason()
            made_of = self._made_of
            if made_of is None or made_of[0] is not latest or made_of[1:] != (reason, others):
                self._html = render_template(
                    "index.html",
                    page=overview(poller.shown()),
                    unready_reason=reason,
                    clusters=others,
                )
                self._made_of = (latest, reason, others)
            return self._html


def pages(
    watching: Watching,
    services: Sequence[ServiceTarget] = (),
    history: ReadHistory | None = None,
    pools: Callable[[], PoolReport | None] = lambda: None,
) -> Flask:
    """Return the application of the pages that people look at, of the JSON API, and of Burrow's.

    `services` are told to Prometheus by its service discovery; `history` reads past polls, `pools`
    what the last look at the databases found.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.converters["rest"] = RestOfPath
    app.url_map.merge_slashes = False  # a group may be called a//b
    app.register_blueprint(
        api_routes(Api(lambda: [*watching.pollers.values()], services, history, pools))
    )
    app.register_blueprint(
        burrow_routes(Burrow(lambda: [*watching.pollers.values()], lambda: watching.watched))
    )
    # a page holds no poller: one that is watched no more would stay, with all that it remembers
    made: WeakKeyDictionary[Poller, StatusPage] = WeakKeyDictionary()

    @app.get("/")
    def index() -> str:
        """Show the cluster that is asked for, or that which needs somebody first."""
        watched = watching.pollers
        ready = {name: each.unready_reason() is None for name, each in watched.items()}
        name = request.args.get("cluster", min(watched, key=lambda name: ready[name]))
        if name not in watched:
            abort(404, f"there is no cluster {name!r}; there are {', '.join(watched)}")
        poller = watched[name]
        page = made.setdefault(poller, StatusPage())
        return page.html(poller, ready if len(watched) > 1 else {})

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Response, int, dict[str, str]]:
        code = error.code or 500
        # keeps what a status demands (Allow with 405) but not the HTML type
        headers = {k: v for k, v in error.get_headers() if k.lower() != "content-type"}
        return jsonify(error={"message": error.description, "field": None}), code, headers

    return app
