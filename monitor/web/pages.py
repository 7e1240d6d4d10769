"""The status page."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from flask import Flask, Response, jsonify, render_template
from werkzeug.exceptions import HTTPException

from monitor.configuration import Watched
from monitor.poller import Poller, Published
from monitor.pools.services import ServiceTarget
from monitor.web.api import Api
from monitor.web.api_routes import RestOfPath, api_routes
from monitor.web.burrow import Burrow, burrow_routes
from monitor.web.overview import overview


class StatusPage:
    """The status page as HTML, rendered once per poll and not per visitor."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._rendering = threading.Lock()
        self._kept: tuple[Published, str | None, str] | None = None

    def html(self) -> str:
        """Return the page of the last poll; needs an application context."""
        with self._rendering:
            latest, reason = self._poller.latest, self._poller.unready_reason()
            kept = self._kept
            if kept is None or kept[0] is not latest or kept[1] != reason:
                html = render_template(
                    "index.html", page=overview(self._poller.shown()), unready_reason=reason
                )
                self._kept = kept = (latest, reason, html)
            return kept[2]


def pages(
    poller: Poller,
    services: Sequence[ServiceTarget] = (),
    watched: Sequence[Watched] = (),
) -> Flask:
    """Return the application of the pages that people look at, of the JSON API, and of Burrow's.

    `services` are told to Prometheus by its service discovery, `watched` has the cluster's settings.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.converters["rest"] = RestOfPath
    app.url_map.merge_slashes = False  # a group may be called a//b
    app.register_blueprint(api_routes(Api(lambda: [poller], services)))
    app.register_blueprint(burrow_routes(Burrow(lambda: [poller], watched)))
    status_page = StatusPage(poller)

    @app.get("/")
    def index() -> str:
        return status_page.html()

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Response, int, dict[str, str]]:
        code = error.code or 500
        # keeps what a status demands (Allow with 405) but not the HTML type
        headers = {k: v for k, v in error.get_headers() if k.lower() != "content-type"}
        return jsonify(error={"message": error.description, "field": None}), code, headers

    return app
