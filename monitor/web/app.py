"""The Flask application: metrics, health, readiness and the status page."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from monitor.exposition.render import CONTENT_TYPE
from monitor.poller import Poller
from monitor.web.login import Login
from monitor.web.overview import overview

# What every page may do: nothing but show itself.
_SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(poller: Poller, user_and_password: tuple[str, str] | None = None) -> Flask:
    """Return the application that serves what this poller publishes.

    With a user and password, all but /health and /ready ask for it by basic auth, and /ready
    keeps its reason from those without: it names addresses.
    """
    app = Flask(__name__, static_folder=None)
    login = Login(user_and_password)
    login.guard(app)

    @app.get("/metrics")
    def metrics() -> Response:
        page = poller.latest.page
        headers = {"Vary": "Accept-Encoding"}
        if request.accept_encodings.quality("gzip") > 0:
            headers["Content-Encoding"] = "gzip"
            return Response(page.gzipped, headers=headers, content_type=CONTENT_TYPE)
        headers["Content-Length"] = str(page.length)
        return Response(page.pieces(), headers=headers, content_type=CONTENT_TYPE)

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    @app.get("/ready")
    def ready() -> tuple[Response, int]:
        reason = poller.unready_reason()
        if reason is None:
            return jsonify(status="ready"), HTTPStatus.OK
        told = {"reason": reason} if login.is_given() else {}
        return jsonify(status="not ready", **told), HTTPStatus.SERVICE_UNAVAILABLE

    @app.get("/")
    def index() -> str:
        state = poller.latest.state
        return render_template(
            "index.html", page=overview(state), unready_reason=poller.unready_reason()
        )

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Response, int, dict[str, Any]]:
        code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        # keeps what a status demands (Allow with 405) but not the HTML type
        headers = {k: v for k, v in error.get_headers() if k.lower() != "content-type"}
        return jsonify(error={"message": error.description, "field": None}), code, headers

    @app.after_request
    def secure(response: Response) -> Response:
        response.headers.update(_SECURITY_HEADERS)
        return response

    return app
