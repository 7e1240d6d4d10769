"""The JSON API: what each path answers, from what the pollers publish."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import Any, Final, Protocol

from monitor.analysis.advice import Severity
from monitor.analysis.causes.finding import Finding
from monitor.analysis.causes.ranking import Explainer
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.scaling.advisor import Advisor
from monitor.answers.clusters import cluster_answer, seen, why_incomplete
from monitor.answers.explanation import Explanation, explanation
from monitor.answers.groups import advice_of_group, group_detail, group_summary
from monitor.answers.history import past_point
from monitor.answers.models import (
    AdvicePage,
    ClusterAnswer,
    ClusterList,
    GroupDetail,
    GroupPage,
    HistoryOfGroup,
    Model,
    ScalingAnswer,
    TargetGroup,
    TopicDetail,
    TopicPage,
)
from monitor.answers.scaling import scaling_answer
from monitor.answers.topics import readers, topic_detail, topic_summary
from monitor.guard import Guard
from monitor.history.summary import Summary
from monitor.model import Snapshot, Topic
from monitor.poller import Published
from monitor.pools.exhausted import pools_of
from monitor.pools.report import PoolReport
from monitor.pools.services import ServiceTarget
from monitor.ranking import urgency
from monitor.selection import Amount, Selection
from monitor.state import State
from monitor.web.queries import (
    AdviceQuery,
    GroupsQuery,
    HistoryQuery,
    OfCluster,
    Paged,
    Query,
    RefusedError,
    TopicsQuery,
)
from monitor.words import safe

DEFAULT_HISTORY_SECONDS: Final = 3_600.0
PREFIX: Final = "/api/v1"


ReadHistory = Callable[[str, str, float, float], Sequence[Summary] | None]
"""Returns a group's past polls of a cluster between two Unix times, None while they can't be read."""


class Source(Protocol):
    """One cluster as its poller publishes it."""

    @property
    def latest(self) -> Published:
        """Return what the last poll published: another object after each."""

    def current(self) -> State:
        """Return the last state without what is too old by now."""

    def shown(self) -> State:
        """Return it without the groups that the settings hide."""

    def unready_reason(self) -> str | None:
        """Say why it can't be relied on now, None when it can."""

    @property
    def scaling(self) -> Advisor:
        """Return who decides on replicas."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path of the API: what is asked (`query`), what is answered, and by which function.

    The function gets the name in the path, empty where there is none, and the parameters.
    """

    path: str
    summary: str
    query: type[Query]
    answer: type[Model] | Any  # a list of models where it has to be one
    handle: Callable[[str, Any], Any]
    parameter: str | None = None


class Api:
    """Answers from the clusters that are watched; `services` are told to Prometheus as well."""

    def __init__(
        self,
        sources: Callable[[], Sequence[Source]],
        services: Sequence[ServiceTarget] = (),
        history: ReadHistory | None = None,
        pools: Callable[[], PoolReport | None] = lambda: None,
    ) -> None:
        self._sources = sources
        self._pools = pools
        self._guard = Guard()
        self._history = history
        self._services = services
        self.routes: Final = (
            Route("/clusters", "The clusters that are watched", Query, ClusterList, self._clusters),
            Route(
                "/clusters/{cluster}", "A cluster", Query, ClusterAnswer, self._cluster, "cluster"
            ),
            Route("/groups", "Consumer groups, worst first", GroupsQuery, GroupPage, self._groups),
            Route("/groups/{group}", "A group", OfCluster, GroupDetail, self._group, "group"),
            Route(
                "/explain/{group}",
                "Why a group is behind",
                OfCluster,
                Explanation,
                self._explain,
                "group",
            ),
            Route("/topics", "Topics, by name", TopicsQuery, TopicPage, self._topics),
            Route("/topics/{topic}", "A topic", OfCluster, TopicDetail, self._topic, "topic"),
            Route(
                "/history/{group}",
                "Past polls of a group, oldest first",
                HistoryQuery,
                HistoryOfGroup,
                self._past,
                "group",
            ),
            Route(
                "/scaling/{group}",
                "How many replicas a group should have now, for an autoscaler",
                OfCluster,
                ScalingAnswer,
                self._scaling,
                "group",
            ),
            Route("/advice", "What to do, worst first", AdviceQuery, AdvicePage, self._advice),
        )

    def basis(self) -> tuple[Published, ...] | None:
        """Return what all answers are made of, None where time alone changes them."""
        latest = tuple(source.latest for source in self._sources())
        is_whole = all(
            source.current().snapshot is published.state.snapshot
            for source, published in zip(self._sources(), latest, strict=True)
        )
        return latest if is_whole else None

    # -- what each path answers -------------------------------------------------------------------

    def _clusters(self, _: str, __: Query) -> ClusterList:
        return ClusterList(
            clusters=[cluster_answer(s.current(), s.unready_reason()) for s in self._sources()]
        )

    def _cluster(self, name: str, _: Query) -> ClusterAnswer:
        (source,) = self._meant(name)
        return cluster_answer(source.current(), source.unready_reason())

    def _groups(self, _: str, query: GroupsQuery) -> GroupPage:
        selection = Selection(
            topics=() if query.topic is None else (query.topic,),
            group_pattern=_pattern(query.name),
            states=tuple(state.lower() for state in query.state),
            statuses=tuple(status.lower() for status in query.status),
            lag_over=None if query.lag_over is None else Amount.parse(query.lag_over),
            only_behind=query.only_behind,
        )
        states, page = self._page(query)
        found = [
            (measures, group, state)
            for state in states
            for group, measures in _selected(state, selection).items()
        ]
        # stable: those that are as bad have their ids in order
        found.sort(key=lambda each: (each[1], each[2].cluster))
        if query.sort != "name":
            key = _KEYS[query.sort]
            found.sort(key=lambda each: key(each[0]), reverse=True)
        causes = {state.cluster: self.causes_of(state) for state in states}
        return GroupPage(
            **page,
            total=len(found),
            groups=[
                group_summary(
                    state.cluster,
                    state.snapshot,
                    state.snapshot.groups[group],
                    measures,
                    causes[state.cluster](group),
                )
                for measures, group, state in _part(found, query)
                if state.snapshot is not None
            ],
        )

    def _group(self, name: str, query: OfCluster) -> GroupDetail:
        state = self._one(query.cluster).current()
        snapshot = state.snapshot
        if snapshot is None or name not in snapshot.groups:
            raise _missing("group", name, why_incomplete(state))
        why = self.causes_of(state)(name)
        return group_detail(
            state.cluster, snapshot, snapshot.groups[name], state.groups[name], why=why
        )

    def _explain(self, name: str, query: OfCluster) -> Explanation:
        state = self._one(query.cluster).current()
        snapshot = state.snapshot
        if snapshot is None or name not in snapshot.groups:
            raise _missing("group", name, why_incomplete(state))
        return explanation(state.cluster, snapshot, name, self._explainer(state).explain(name))

    def _explainer(self, state: State) -> Explainer:
        report = self._pools()
        return Explainer(
            state.snapshot or Snapshot(None, 0.0, 0.0),
            state.groups,
            state.findings,
            lambda group: None if report is None else pools_of(report, group),
        )

    def causes_of(self, state: State) -> Callable[[str], Finding | None]:
        """Return what finds the cause of a group's lag: None where that failed, which costs the rest nothing."""
        explainer = self._explainer(state)
        return lambda group: self._guard.attempt("explain", group, explainer.explain, group)

    def _past(self, name: str, query: HistoryQuery) -> HistoryOfGroup:
        if self._history is None:
            message = "no history is kept here: see MONITOR_HISTORY_URL"
            raise RefusedError(HTTPStatus.NOT_FOUND, message)
        state = self._one(query.cluster).current()
        until = time.time() if query.until is None else query.until
        since = until - DEFAULT_HISTORY_SECONDS if query.since is None else query.since
        if since > until:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "it is later than until", "since")
        found = self._history(state.cluster, name, since, until)
        if found is None:
            message = "the history's database can't be read now"
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message)
        return HistoryOfGroup(
            cluster=state.cluster,
            group=name,
            since=since,
            until=until,
            points=[past_point(each) for each in found],
        )

    def _scaling(self, name: str, query: OfCluster) -> ScalingAnswer:
        source = self._one(query.cluster)
        state = source.current()
        snapshot = state.snapshot
        # an autoscaler that gets no number changes nothing: better than an old one
        unknown = source.unready_reason() or state.error
        if unknown is None and (snapshot is None or name not in snapshot.groups):
            raise _missing("group", name, why_incomplete(state))
        decision = None
        if unknown is None and snapshot is not None:
            decision = source.scaling.decision(name, snapshot, state.groups[name])
            unknown = snapshot.groups[name].error or "its members or offsets could not be read"
        if decision is None or snapshot is None:
            message = f"not known how many replicas {safe(name)!r} should have: {unknown}"
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message, "group")
        return scaling_answer(state.cluster, snapshot, name, decision)

    def _topics(self, _: str, query: TopicsQuery) -> TopicPage:
        pattern = _pattern(query.name)
        states, page = self._page(query)
        found = [
            (topic, state)
            for state in states
            if state.snapshot is not None
            for topic in state.snapshot.topics.values()
            if pattern is None or pattern.fullmatch(topic.name)
        ]
        found.sort(key=lambda each: (each[0].name, each[1].cluster))
        part = _part(found, query)
        read_by = {state.cluster: readers(state) for state in states} if part else {}
        return TopicPage(
            **page,
            total=len(found),
            topics=[
                topic_summary(state, topic, read_by[state.cluster].get(topic.name, ()))
                for topic, state in part
            ],
        )

    def _topic(self, name: str, query: OfCluster) -> TopicDetail:
        source = self._one(query.cluster)
        state = source.current()
        topic: Topic | None = None if state.snapshot is None else state.snapshot.topics.get(name)
        if topic is None:
            raise _missing("topic", name, source.unready_reason() or state.error)
        return topic_detail(state, topic)

    def _advice(self, _: str, query: AdviceQuery) -> AdvicePage:
        pattern = _pattern(query.name)
        least = Severity[query.severity.upper()]
        states, page = self._page(query)
        found = [
            (advice.severity, urgency(measures), group, state.cluster, state.snapshot, advice)
            for state in states
            if state.snapshot is not None
            for group, measures in state.groups.items()
            if pattern is None or pattern.fullmatch(group)
            for advice in measures.advice
            if advice.severity >= least
        ]
        # stable: those that are as urgent have their ids in order
        found.sort(key=lambda each: each[2:4])
        found.sort(key=lambda each: each[:2], reverse=True)
        return AdvicePage(
            **page,
            total=len(found),
            advice=[
                advice_of_group(cluster, snapshot, group, advice)
                for _, _, group, cluster, snapshot, advice in _part(found, query)
            ],
        )

    def targets(self, host: str, scheme: str) -> list[TargetGroup]:
        """Return what Prometheus' HTTP service discovery wants: this monitor, and the services.

        `host` is the address by which Prometheus reached the monitor. Several clusters are a target
        each.
        """
        sources = self._sources()
        found = []
        for source in sources:
            cluster = source.current().cluster
            labels = {
                "__scheme__": scheme,
                "__metrics_path__": "/metrics",
                "__meta_kafka_cluster": cluster,
            }
            if len(sources) > 1:
                labels |= {"__metrics_path__": "/probe", "__param_target": cluster}
            found.append(TargetGroup(targets=[host], labels=labels))
        for service in self._services:
            labels = {"__scheme__": service.scheme, "__metrics_path__": service.path}
            if service.name is not None:
                labels["service"] = service.name
            address = f"[{service.host}]" if ":" in service.host else service.host
            found.append(TargetGroup(targets=[f"{address}:{service.port}"], labels=labels))
        return found

    # -- which clusters are meant -----------------------------------------------------------------

    def _meant(self, cluster: str | None) -> Sequence[Source]:
        """Return the cluster of this name, or all; raises RefusedError where there is no such."""
        sources = self._sources()
        if cluster is None:
            return sources
        found = [source for source in sources if source.current().cluster == cluster]
        if not found:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, f"no cluster {safe(cluster)!r} is watched", "cluster"
            )
        return found

    def _one(self, cluster: str | None) -> Source:
        found = self._meant(cluster)
        if len(found) == 1:
            return found[0]
        names = ", ".join(safe(source.current().cluster) for source in found)
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"there are several clusters: say one of {names}", "cluster"
        )

    def _page(self, query: Paged) -> tuple[list[State], dict[str, Any]]:
        """Return the states that a list is made of, and what is told of them."""
        states, told = [], []
        for source in self._meant(query.cluster):
            shown = source.shown()
            states.append(shown)
            told.append(seen(shown, hidden=len(source.current().groups) - len(shown.groups)))
        return states, {"limit": query.limit, "offset": query.offset, "clusters": told}


_KEYS: Final[Mapping[str, Callable[[GroupMeasures], Any]]] = {
    "need": urgency,
    # what is not known is behind those of which it is
    "behind": lambda measures: -inf if measures.behind_since is None else -measures.behind_since,
    "lag": lambda measures: measures.lag.total if measures.lag.partitions else -1,
}


def _selected(state: State, selection: Selection) -> Mapping[str, GroupMeasures]:
    if state.snapshot is None:
        return {}
    wants = selection.wants_group()
    named = {
        group: measures for group, measures in state.groups.items() if wants is None or wants(group)
    }
    return selection.chosen(state.snapshot, named)


def _part(found: Sequence[Any], query: Paged) -> Iterable[Any]:
    return found[query.offset : query.offset + query.limit]


def _pattern(glob: str | None) -> re.Pattern[str] | None:
    return None if glob is None else re.compile(fnmatch.translate(glob))


def _missing(kind: str, name: str, unknown: str | None) -> RefusedError:
    """Return the error of what is not there, or of which nobody can say so."""
    if unknown is None:
        message = f"the cluster has no {kind} {safe(name)!r}, or it is not watched"
        return RefusedError(HTTPStatus.NOT_FOUND, message, kind)
    message = f"not known whether the cluster has a {kind} {safe(name)!r}: {unknown}"
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message, kind)
