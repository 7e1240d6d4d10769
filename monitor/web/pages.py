"""The status page: what people look at, as HTML that needs no script, and as data for its scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from flask import Blueprint, Flask, Response, abort, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from monitor.answers.clusters import why_incomplete
from monitor.answers.groups import group_detail
from monitor.answers.topics import topic_detail
from monitor.configuration import Watched
from monitor.exposition.render import Page
from monitor.poller import Poller, Published
from monitor.pools.report import PoolReport
from monitor.pools.services import ServiceTarget
from monitor.state import State
from monitor.web.api import Api, ReadHistory
from monitor.web.api_routes import RestOfPath, api_routes
from monitor.web.burrow import Burrow, burrow_routes
from monitor.web.documents import Document, Documents
from monitor.web.overview import overview
from monitor.web.page_data import (
    group_document,
    overview_document,
    pools_document,
    topic_document,
)
from monitor.web.tool_commands import tool_commands
from monitor.web.trends import Trends
from monitor.words import duration, safe

# More rows than these a page without scripts does not show: they are in sight before its scripts run.
MAX_ROWS = 100


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


ReadPools = Callable[[], PoolReport | None]
"""Returns what the last look at the databases found, None where there was none, or too long ago."""


class StatusPage:
    """The overview of a cluster as HTML, rendered once per poll and not per visitor."""

    def __init__(self) -> None:
        self._rendering = threading.Lock()
        self._made_of: tuple[Published, str | None, Mapping[str, bool]] | None = None
        self._html = ""

    def html(self, poller: Poller, name: str, others: Mapping[str, bool], **more: Any) -> str:
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
                    name=name,
                    unready_reason=reason,
                    clusters=others,
                    **more,
                )
                self._made_of = (latest, reason, others)
            return self._html


def pages(
    watching: Watching,
    services: Sequence[ServiceTarget] = (),
    history: ReadHistory | None = None,
    pools: ReadPools | None = None,
    trends: Trends | None = None,
) -> Flask:
    """Return the application of the pages that people look at, of the JSON API, and of Burrow's.

    `services` are told to Prometheus by its service discovery; `history` reads past polls, `trends`
    has the last ones, `pools` what the last look at the databases found, None where there are none.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.converters["rest"] = RestOfPath
    app.url_map.merge_slashes = False  # a group may be called a//b
    app.jinja_env.filters["duration"] = duration
    app.jinja_env.filters["safe_name"] = safe
    api = Api(lambda: [*watching.pollers.values()], services, history, pools or (lambda: None))
    app.register_blueprint(api_routes(api))
    app.register_blueprint(
        burrow_routes(Burrow(lambda: [*watching.pollers.values()], lambda: watching.watched))
    )
    app.register_blueprint(
        _StatusPages(watching, api, history, pools, trends or Trends(inf)).routes()
    )

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Response, int, dict[str, str]]:
        code = error.code or 500
        # keeps what a status demands (Allow with 405) but not the HTML type
        headers = {k: v for k, v in error.get_headers() if k.lower() != "content-type"}
        return jsonify(error={"message": error.description, "field": None}), code, headers

    return app


class _StatusPages:
    """The pages and their data; names are parameters: in a path `..` would be another path."""

    def __init__(
        self,
        watching: Watching,
        api: Api,
        history: ReadHistory | None,
        pools: ReadPools | None,
        trends: Trends,
    ) -> None:
        self._watching = watching
        self._api = api
        self._history = history
        self._trends = trends
        self._read_pools = pools
        self._documents = Documents()
        # a page holds no poller: one that is watched no more would stay, with all that it remembers
        self._made: WeakKeyDictionary[Poller, StatusPage] = WeakKeyDictionary()

    def routes(self) -> Blueprint:
        """Return the routes."""
        blueprint = Blueprint("status_page", __name__, template_folder="templates")
        views: Mapping[str, Callable[[], str | Response]] = {
            "/": self._index,
            "/group": self._group,
            "/topic": self._topic,
            "/pools": self._pools,
            "/page/groups": self._groups_data,
            "/page/group": self._group_data,
            "/page/topic": self._topic_data,
            "/page/pools": self._pools_data,
        }
        for path, view in views.items():
            blueprint.add_url_rule(path, endpoint=path.strip("/") or "index", view_func=view)
        return blueprint

    # -- as HTML ----------------------------------------------------------------------------------

    def _index(self) -> str:
        """Show the cluster that is asked for, or that which needs somebody first."""
        watched = self._watching.pollers
        ready = {name: each.unready_reason() is None for name, each in watched.items()}
        first = min(watched, key=lambda name: ready[name])
        name, poller = self._cluster(request.args.get("cluster") or first)
        page = self._made.setdefault(poller, StatusPage())
        return page.html(poller, name, ready if len(watched) > 1 else {}, **self._shared())

    def _group(self) -> str:
        name, poller, state = self._asked()
        group_id, snapshot = self._name("group"), state.snapshot
        if snapshot is None or group_id not in snapshot.groups:
            abort(404, _missing("group", group_id, state))
        group, measures = snapshot.groups[group_id], state.groups[group_id]
        detail = group_detail(state.cluster, snapshot, group, measures, max_partitions=MAX_ROWS)
        return render_template(
            "group.html",
            name=name,
            cluster=state.cluster,
            group=detail,
            may_have_more=len(detail.partitions) == MAX_ROWS,
            commands=tool_commands(self._servers(name), snapshot, group, measures),
            unready_reason=poller.unready_reason(),
            **self._shared(),
        )

    def _topic(self) -> str:
        name, poller, state = self._asked()
        topic_name, snapshot = self._name("topic"), state.snapshot
        if snapshot is None or topic_name not in snapshot.topics:
            abort(404, _missing("topic", topic_name, state))
        return render_template(
            "topic.html",
            name=name,
            cluster=state.cluster,
            topic=topic_detail(state, snapshot.topics[topic_name]),
            max_rows=MAX_ROWS,
            unready_reason=poller.unready_reason(),
            **self._shared(),
        )

    def _pools(self) -> str:
        return render_template("pools.html", report=self._report(), **self._shared())

    # -- as data ----------------------------------------------------------------------------------

    def _groups_data(self) -> Response:
        name, poller = self._cluster(request.args.get("cluster"))
        return _answer(
            self._documents.get(
                poller,
                ("groups",),
                lambda: overview_document(poller, name, self._trends, self._api.causes_of),
            )
        )

    def _group_data(self) -> Response:
        name, poller, state = self._asked()
        group_id = self._name("group")
        document = self._documents.get(
            poller,
            ("group", group_id),
            lambda: group_document(
                poller,
                name,
                group_id,
                trends=self._trends,
                causes_of=self._api.causes_of,
                bootstrap_servers=self._servers(name),
                history=self._history,
            ),
        )
        if document is None:
            abort(404, _missing("group", group_id, state))
        return _answer(document)

    def _topic_data(self) -> Response:
        name, poller, state = self._asked()
        topic = self._name("topic")
        document = self._documents.get(
            poller, ("topic", topic), lambda: topic_document(poller, name, topic)
        )
        if document is None:
            abort(404, _missing("topic", topic, state))
        return _answer(document)

    def _pools_data(self) -> Response:
        return _answer(pools_document(self._report()))

    def _report(self) -> PoolReport | None:
        if self._read_pools is None:
            abort(404, "no database and no service is watched: see `monitor pools --help`")
        return self._read_pools()

    # -- what is asked for ------------------------------------------------------------------------

    def _asked(self) -> tuple[str, Poller, State]:
        name, poller = self._cluster(request.args.get("cluster"))
        return name, poller, poller.current()

    def _cluster(self, name: str | None) -> tuple[str, Poller]:
        watched = self._watching.pollers
        if not name and len(watched) == 1:
            ((only, poller),) = watched.items()
            return only, poller
        if name is None:
            abort(400, f"there are several clusters: say one of {', '.join(map(safe, watched))}")
        if name not in watched:
            known = ", ".join(safe(each) for each in watched if each) or "none has a name"
            abort(404, f"there is no cluster {safe(name)!r}; there are {known}")
        return name, watched[name]

    def _name(self, kind: str) -> str:
        name = request.args.get(kind)
        if name is None:
            abort(400, f"the {kind} is to be said: ?{kind}=NAME")
        return name

    def _servers(self, name: str) -> Sequence[str]:
        of = dict(zip(self._watching.pollers, self._watching.watched, strict=False))
        return of[name].kafka.bootstrap_servers if name in of else ()

    def _shared(self) -> dict[str, Any]:
        return {
            "has_pools": self._read_pools is not None,
            # the scripts fetch their documents at once, not when the first event has come
            "watched": [
                {"name": name, "cluster": poller.latest.state.cluster}
                for name, poller in self._watching.pollers.items()
            ],
        }


def _missing(kind: str, name: str, state: State) -> str:
    unknown = why_incomplete(state)
    if unknown is None:
        return f"the cluster has no {kind} {safe(name)!r}, or it is not watched"
    return f"not known whether the cluster has a {kind} {safe(name)!r}: {unknown}"


def _answer(document: Document) -> Response:
    answer = Response(mimetype="application/json")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Vary"] = "Accept-Encoding"
    if request.accept_encodings.quality("gzip") > 0:
        answer.headers["Content-Encoding"] = "gzip"
        answer.set_data(document.gzipped)
    else:
        answer.set_data(document.plain)
    return answer
