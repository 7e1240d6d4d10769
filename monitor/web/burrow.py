"""Burrow's HTTP API, version 3: its paths, keys in their order, and messages, for who has clients of it.

From linkedin/Burrow's core/internal/httpserver (coordinator.go, kafka.go, config.go, structs.go) and
core/protocol. What differs: a time of a commit is that of the poll that saw it; what is not known is
null, and -1 for a log end; nothing can be changed by it.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

from flask import Blueprint, Response, request

from monitor.analysis.measures import GroupMeasures
from monitor.analysis.status import NOT_FOUND, PartitionStatus, Status
from monitor.analysis.windows import WINDOW, CommitWindow
from monitor.configuration import Watched
from monitor.kafka.connecting import CLIENT_ID
from monitor.model import Group, Snapshot
from monitor.settings import KafkaSettings, MonitorSettings
from monitor.state import State

Windows = Mapping[str, Mapping[int, CommitWindow]]
"""Topic -> partition -> the last commits that polls saw."""

_READ_ONLY: Final = {
    "DELETE": "nothing is removed here: a group is forgotten when Kafka has forgotten it",
    "POST": "the log level is a setting: MONITOR_LOG_LEVEL",
}
_LEVELS: Final = {"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "ERROR": "error"}
# What Go's encoder escapes, so that JSON may stand in HTML.
_GO_ESCAPES: Final = str.maketrans(
    {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}
)


class BurrowSource(Protocol):
    """One cluster as its poller publishes it."""

    def current(self) -> State:
        """Return the last state without what is too old by now."""

    def shown(self) -> State:
        """Return it without the groups that the settings hide."""

    def unready_reason(self) -> str | None:
        """Say why it can't be relied on now, None when it can."""

    def commit_windows(self, group: str) -> Windows:
        """Return the last commits that polls saw of a group."""


class _NotFoundError(Exception):
    """What is answered with 404 and Burrow's words."""


class Burrow:
    """Answers as Burrow does; `watched` has the settings of each cluster, in the sources' order."""

    def __init__(
        self,
        sources: Callable[[], Sequence[BurrowSource]],
        watched: Callable[[], Sequence[Watched]] = tuple,
    ) -> None:
        self._sources = sources
        self._watched = watched

    # -- /v3/kafka --------------------------------------------------------------------------------

    def clusters(self) -> dict[str, Any]:
        """Return the clusters' names."""
        names = sorted(source.current().cluster for source in self._sources())
        return _told("cluster list returned", clusters=names)

    def cluster(self, name: str) -> dict[str, Any]:
        """Return how a cluster is watched."""
        for index, source in enumerate(self._sources()):
            state = source.current()
            if state.cluster == name:
                kafka, settings = self._settings(index)
                return _told(
                    "cluster module detail returned",
                    module=_cluster_module(kafka, settings),
                )
        raise _NotFoundError("cluster module not found")

    def topics(self, cluster: str) -> dict[str, Any]:
        """Return the topics' names."""
        snapshot = self._source(cluster, "cluster not found").current().snapshot
        names = sorted(snapshot.topics) if snapshot is not None else []
        return _told("topic list returned", topics=names)

    def topic(self, cluster: str, topic: str) -> dict[str, Any]:
        """Return the log ends by partition; -1 where one is not known."""
        missing = "cluster or topic not found"
        snapshot = self._source(cluster, missing).current().snapshot
        found = None if snapshot is None else snapshot.topics.get(topic)
        if snapshot is None or found is None:
            raise _NotFoundError(missing)
        ends = snapshot.end_offsets.values.get(topic, {})
        offsets = [ends.get(index, -1) for index in range(max(found.partitions, default=-1) + 1)]
        return _told("topic offsets returned", offsets=offsets)

    def topic_consumers(self, cluster: str, topic: str) -> dict[str, Any]:
        """Return the groups that committed a topic."""
        snapshot = self._source(cluster, "cluster not found").shown().snapshot
        groups = snapshot.groups.values() if snapshot is not None else ()
        return _told(
            "consumers of topic returned",
            consumers=sorted(group.id for group in groups if topic in group.commits),
        )

    def consumers(self, cluster: str) -> dict[str, Any]:
        """Return the groups' ids."""
        snapshot = self._source(cluster, "cluster not found").shown().snapshot
        names = sorted(snapshot.groups) if snapshot is not None else []
        return _told("consumer list returned", consumers=names)

    def consumer(self, cluster: str, name: str) -> dict[str, Any]:
        """Return the last commits of a group by topic and partition, null-padded at the front."""
        missing = "cluster or consumer not found"
        source = self._source(cluster, missing)
        state = source.current()
        snapshot = state.snapshot
        if snapshot is None or name not in snapshot.groups:
            raise _NotFoundError(missing)
        group, measures = snapshot.groups[name], state.groups[name]
        owners = _owners(group)
        windows = source.commit_windows(name)
        intervals = self._intervals(source)
        topics = {}
        for topic in sorted(group.commits):  # as Go's encoder has the keys of a map
            of_topic = windows.get(topic, {})
            topics[topic] = [
                _partition_detail(
                    _commits(of_topic.get(index), snapshot, intervals),
                    owners.get((topic, index), ("", "")),
                    measures.lag.get(topic, index),
                    is_committed=index in group.commits[topic],
                )
                for index in range(max(group.commits[topic], default=-1) + 1)
            ]
        return _told("consumer detail returned", topics=topics)

    def status(self, cluster: str, name: str, *, every: bool) -> tuple[dict[str, Any], int]:
        """Return a group's status with its partitions: those worse than OK, or every one.

        A group that is not there is 404, and no error: as Burrow has it.
        """
        source = next((s for s in self._sources() if s.current().cluster == cluster), None)
        state = None if source is None else source.current()
        snapshot = None if state is None else state.snapshot
        found = NOT_FOUND
        partitions: list[dict[str, Any]] = []
        worst: dict[str, Any] | None = None
        total = 0
        if source is not None and state is not None and snapshot is not None:
            group = snapshot.groups.get(name)
            if group is not None:
                measures = state.groups[name]
                found = measures.status
                of = _Partitions(snapshot, group, measures, source.commit_windows(name))
                of.intervals = self._intervals(source)
                partitions = of.shown(every=every)
                worst, total = (
                    of.worst(),
                    measures.lag.readable_total,
                )
        told = {
            "cluster": cluster,
            "group": name,
            "status": found.status.name,
            "complete": _float32(found.complete),
            "partitions": partitions,
            "partition_count": found.partition_count,
            "maxlag": worst,
            "totallag": total,
        }
        code = HTTPStatus.NOT_FOUND if found.status is Status.NOTFOUND else HTTPStatus.OK
        return _told("consumer status returned", status=told), code

    # -- /v3/config -------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return the main settings; what the monitor does not have is empty."""
        _, settings = self._settings(0)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        told = _told(
            "main config returned",
            general={"pidfile": "", "stdout-logfile": "", "access-control-allow-origin": ""},
            logging={
                "filename": "",
                "max-size": 0,
                "max-backups": 0,
                "max-age": 0,
                "use-local-time": False,
                "use-compression": False,
                "level": _LEVELS[settings.log_level],
            },
            zookeeper={"servers": [], "timeout": 0, "root-path": ""},
            httpserver={
                "default": {
                    "address": f"{host}:{settings.port}",
                    "tls": "" if settings.tls_certfile is None else "default",
                    "timeout": 0,
                }
            },
        )
        return _request_third(told)

    def modules(self, kind: str) -> dict[str, Any]:
        """Return the names of the modules of one kind."""
        names = {"cluster": sorted(s.current().cluster for s in self._sources())}
        names |= {"storage": ["default"], "evaluator": ["default"]}
        told = _told("module list returned", coordinator=kind, modules=names.get(kind, []))
        return _request_third(told)

    def module(self, kind: str, name: str) -> dict[str, Any]:
        """Return a module's settings."""
        if kind == "cluster":
            return self.cluster(name)
        _, settings = self._settings(0)
        modules: dict[str, dict[str, Any]] = {
            "storage": {
                "class-name": "inmemory",
                "intervals": settings.status_polls,
                "min-distance": 0,
                "group-whitelist": settings.groups_allow.pattern if settings.groups_allow else "",
                "expire-group": 0,
            },
            "evaluator": {"class-name": "caching", "expire-cache": int(settings.poll_interval)},
        }
        if name != "default" or kind not in modules:
            raise _NotFoundError(f"{kind} module not found")
        return _told(f"{kind} module detail returned", module=modules[kind])

    def log_level(self) -> dict[str, Any]:
        """Return from which level up is logged."""
        _, settings = self._settings(0)
        return _told("log level returned", level=_LEVELS[settings.log_level])

    @property
    def is_ready(self) -> bool:
        """Say whether every cluster's figures can be relied on."""
        return all(source.unready_reason() is None for source in self._sources())

    def _source(self, cluster: str, missing: str) -> BurrowSource:
        for source in self._sources():
            if source.current().cluster == cluster:
                return source
        raise _NotFoundError(missing)

    def _settings(self, index: int) -> Watched:
        watched = self._watched()
        if index < len(watched):
            return watched[index]
        return Watched(KafkaSettings.model_construct(), MonitorSettings.model_construct())

    def _intervals(self, source: BurrowSource) -> int:
        index = next((i for i, each in enumerate(self._sources()) if each is source), 0)
        return self._settings(index).settings.status_polls if self._watched() else WINDOW


class _Partitions:
    """A group's partitions as a status has them."""

    intervals = WINDOW

    def __init__(
        self, snapshot: Snapshot, group: Group, measures: GroupMeasures, windows: Windows
    ) -> None:
        self._snapshot = snapshot
        self._measures = measures
        self._windows = windows
        self._owners = _owners(group)
        self._bad = {(p.topic, p.partition): p for p in measures.status.partitions}

    def shown(self, *, every: bool) -> list[dict[str, Any]]:
        """Return those that are worse than OK, or all of which the lag is known."""
        if not every:
            return [self._one(*where) for where in self._bad]
        return [
            self._one(topic, index)
            for topic, lags in self._measures.lag.partitions.items()
            for index in lags
        ]

    def worst(self) -> dict[str, Any] | None:
        """Return the one with the largest lag, None where there is no lag."""
        lag = self._measures.lag
        unread = (
            (messages, topic, index)
            for topic in lag.partitions
            for index, messages in lag.readable(topic).items()
        )
        messages, topic, index = max(unread, default=(0, "", 0))
        return self._one(topic, index) if messages else None

    def _one(self, topic: str, index: int) -> dict[str, Any]:
        bad: PartitionStatus | None = self._bad.get((topic, index))
        window = self._windows.get(topic, {}).get(index)
        owner, client_id = self._owners.get((topic, index), ("", ""))
        commits = [each for each in _commits(window, self._snapshot, 0) if each is not None]
        watched = 0.0 if window is None else min(1.0, window.polls / self.intervals)
        readable = self._measures.lag.readable(topic)
        return {
            "topic": topic,
            "partition": index,
            "owner": owner,
            "client_id": client_id,
            "status": Status.OK.name if bad is None else bad.status.name,
            "start": commits[0] if commits else None,
            "end": commits[-1] if commits else None,
            "current_lag": max(0, readable.get(index, 0)) if bad is None else bad.current_lag,
            "complete": _float32(watched),
        }


def burrow_routes(burrow: Burrow) -> Blueprint:
    """Return the routes; a name may hold slashes."""
    blueprint = Blueprint("burrow", __name__)
    kinds = "<any(storage, evaluator, cluster, consumer, notifier):kind>"
    for path, make in (
        ("/v3/kafka", burrow.clusters),
        ("/v3/kafka/<name>", burrow.cluster),
        ("/v3/kafka/<cluster>/topic", burrow.topics),
        ("/v3/kafka/<cluster>/topic/<path:topic>", burrow.topic),
        ("/v3/kafka/<cluster>/topic/<path:topic>/consumers", burrow.topic_consumers),
        ("/v3/kafka/<cluster>/consumer", burrow.consumers),
        ("/v3/kafka/<cluster>/consumer/<path:name>", burrow.consumer),
        ("/v3/config", burrow.config),
        (f"/v3/config/{kinds}", burrow.modules),
        (f"/v3/config/{kinds}/<name>", burrow.module),
        ("/v3/admin/loglevel", burrow.log_level),
    ):
        blueprint.add_url_rule(path, endpoint=path.replace(".", "_"), view_func=_answered(make))
    for last, every in (("status", False), ("lag", True)):

        def status(cluster: str, name: str, *, every: bool = every) -> Response:
            return _json(*burrow.status(cluster, name, every=every))

        blueprint.add_url_rule(
            f"/v3/kafka/<cluster>/consumer/<path:name>/{last}", last, view_func=status
        )

    @blueprint.route("/v3/kafka/<cluster>/consumer/<path:name>", methods=["DELETE"])
    @blueprint.route("/v3/admin/loglevel", methods=["POST"])
    def refuse(**_: str) -> Response:
        return _error(HTTPStatus.FORBIDDEN, _READ_ONLY[request.method])

    @blueprint.get("/burrow/admin")
    def alive() -> Response:
        return Response("GOOD", mimetype="text/plain")

    @blueprint.get("/burrow/admin/ready")
    def ready() -> Response:
        if burrow.is_ready:
            return Response("READY", mimetype="text/plain")
        return Response("STARTING", HTTPStatus.SERVICE_UNAVAILABLE, mimetype="text/plain")

    @blueprint.get("/v3/<path:_>")
    @blueprint.get("/burrow/<path:_>")
    def unknown(_: str) -> Response:
        body = '{"error":true,"message":"invalid request type","result":{}}\n'
        return Response(body, HTTPStatus.NOT_FOUND, mimetype="text/plain")

    return blueprint


def _answered(make: Callable[..., dict[str, Any]]) -> Callable[..., Response]:
    def view(**names: str) -> Response:
        try:
            return _json(make(**names))
        except _NotFoundError as error:
            return _error(HTTPStatus.NOT_FOUND, str(error))

    return view


def _told(message: str, **payload: Any) -> dict[str, Any]:
    return {"error": False, "message": message, **payload, "request": _request()}


def _request_third(told: dict[str, Any]) -> dict[str, Any]:
    """Return it with `request` before what was asked for, as the lists of settings have it."""
    names = ("error", "message", "request")
    return {name: told[name] for name in (*names, *(n for n in told if n not in names))}


def _request() -> dict[str, str]:
    return {"url": request.path, "host": socket.gethostname()}


def _error(status: HTTPStatus, message: str) -> Response:
    return _json({"error": True, "message": message, "request": _request()}, status)


def _json(told: dict[str, Any], status: int = HTTPStatus.OK) -> Response:
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False).translate(_GO_ESCAPES)
    return Response(text, status, mimetype="application/json")


def _float32(share: float) -> float | int:
    """Return a share as Go writes a float32: 1 and not 1.0, in as few digits as tell it."""
    (single,) = struct.unpack("f", struct.pack("f", share))
    shortest = next(
        short
        for digits in range(1, 10)
        if struct.pack("f", short := float(f"{single:.{digits}g}")) == struct.pack("f", single)
    )
    return int(shortest) if shortest.is_integer() else shortest


def _owners(group: Group) -> dict[tuple[str, int], tuple[str, str]]:
    """Return (topic, partition) -> (host, client id) of the member that holds it."""
    return {
        (topic, index): (member.host, member.client_id)
        for member, topic, index in group.assignments()
    }


def _commits(
    window: CommitWindow | None, snapshot: Snapshot, intervals: int
) -> list[dict[str, Any] | None]:
    """Return the commits of a window, oldest first, behind as many nulls as `intervals` want."""
    if window is None:
        return []
    commits: list[dict[str, Any] | None] = []
    for offset, milliseconds, lag in zip(window.offsets, window.times, window.lags, strict=True):
        at = int(milliseconds + snapshot.wall_offset * 1000)
        commits.append(
            {
                "offset": offset,
                "timestamp": at,
                "observedAt": at,
                "lag": None if lag < 0 else lag,
            }
        )
    return [*[None] * max(0, intervals - len(commits)), *commits]


def _partition_detail(
    commits: list[dict[str, Any] | None],
    owner: tuple[str, str],
    lag: int | None,
    *,
    is_committed: bool,
) -> dict[str, Any]:
    return {
        "offsets": commits,
        "owner": owner[0],
        "client_id": owner[1],
        "current-lag": lag if is_committed else 0,
    }


def _cluster_module(kafka: KafkaSettings, settings: MonitorSettings) -> dict[str, Any]:
    has_tls = kafka.security_protocol.endswith("SSL")
    tls = {
        "name": "default",
        "noverify": not kafka.ssl_check_hostname,
        "certfile": str(kafka.ssl_certfile or ""),
        "keyfile": str(kafka.ssl_keyfile or ""),
        "cafile": str(kafka.ssl_cafile or ""),
    }
    sasl = {
        "name": "default",
        "handshake-first": True,
        "username": kafka.sasl_username or "",
    }
    return {
        "class-name": "kafka",
        "servers": list(kafka.bootstrap_servers),
        "client-profile": {
            "name": "default",
            "client-id": CLIENT_ID,
            "kafka-version": "",
            "tls": tls if has_tls else None,
            "sasl": sasl if kafka.sasl_mechanism else None,
        },
        "topic-refresh": int(settings.metadata_interval),
        "offset-refresh": int(settings.poll_interval),
    }
