"""The status page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

from flask import Flask, Response, abort, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from monitor.poller import Poller, Published
from monitor.web.overview import overview


class StatusPage:
    """The status page as HTML, rendered once per poll and not per visitor."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._rendering = threading.Lock()
        self._kept: tuple[tuple[Published, str | None, Mapping[str, bool]], str] | None = None

    def html(self, others: Mapping[str, bool]) -> str:
        """Return the page of the last poll; needs an application context.

        `others` has the clusters that can be turned to, and whether what is shown of each can be
        relied on.
        """
        with self._rendering:
            latest, reason = self._poller.latest, self._poller.unready_reason()
            made_of = (latest, reason, dict(others))
            if self._kept is None or self._kept[0] != made_of:
                html = render_template(
                    "index.html",
                    page=overview(self._poller.shown()),
                    unready_reason=reason,
                    clusters=others,
                )
                self._kept = (made_of, html)
            return self._kept[1]


def pages(pollers: Callable[[], Mapping[str, Poller]]) -> Flask:
    """Return the application of the pages that people look at; `pollers` are those of the moment."""
    app = Flask(__name__, static_folder=None)
    made: WeakKeyDictionary[Poller, StatusPage] = WeakKeyDictionary()

    @app.get("/")
    def index() -> str:
        """Show the cluster that is asked for, or that which needs somebody first."""
        watched = pollers()
        ready = {name: each.unready_reason() is None for name, each in watched.items()}
        name = request.args.get("cluster", min(watched, key=lambda name: ready[name]))
        if name not in watched:
            abort(404, f"there is no cluster {name!r}; there are {', '.join(watched)}")
        page = made.setdefault(watched[name], StatusPage(watched[name]))
        return page.html(ready if len(watched) > 1 else {})

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Response, int, dict[str, str]]:
        code = error.code or 500
        # keeps what a status demands (Allow with 405) but not the HTML type
        headers = {k: v for k, v in error.get_headers() if k.lower() != "content-type"}
        return jsonify(error={"message": error.description, "field": None}), code, headers

    return app
