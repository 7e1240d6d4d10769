"""The clusters that are watched: a poller each, one page of all. One that is away costs only itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from monitor.configuration import Configuration, Watched
from monitor.exposition.families import monitor as own
from monitor.exposition.families.monitor import faults
from monitor.exposition.metric import Metric
from monitor.exposition.render import Page, Parts, Renderer, page_of
from monitor.exposition.series import Block
from monitor.guard import Failure, Guard
from monitor.poller import Poller
from monitor.state import State

_log = structlog.get_logger(__name__)

UNNAMED: Final = ""
"""The key of the only cluster, where no list names it."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A cluster that is watched: its settings, its poller, and what closes its connections."""

    watched: Watched
    poller: Poller
    close: Callable[[], None]

    def start(self) -> None:
        """Begin to poll."""
        self.poller.start(self.watched.settings.poll_interval)

    def stop(self) -> None:
        """End polling, and what is asked at the moment with it."""
        self.poller.stop()
        self.close()


Open = Callable[[Watched, Callable[[], None]], Watch]
"""Makes a watch that calls the function whenever its poller has published."""


class Fleet:
    """All watches, and one page of them; `page` may be asked for by any thread at any time.

    `own_blocks` are of the process and of what it watches beside the clusters, `own_failed` what of
    that fails. With a list of clusters they have no `cluster` label: they belong to none of them.
    `record` gets each state, new or not.
    """

    def __init__(
        self,
        configuration: Configuration,
        open_watch: Open,
        *,
        own_blocks: Callable[[], Iterable[Block]] = tuple,
        own_failed: Callable[[], Mapping[Failure, str]] = dict,
        record: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._configuration = configuration
        self._open = open_watch
        self._own_blocks, self._own_failed, self._record = own_blocks, own_failed, record
        self._guard = Guard()
        only = None if configuration.names_clusters else configuration.process.cluster
        self._renderer = Renderer(cluster=only)
        # published by the threads of several pollers
        self._joining = threading.Lock()
        # the clusters of which the joined page has figures
        self._shown: set[str] = set()
        self._reloaded_at = time.time()
        self._reload_failed = False
        self._watches = {
            _name(each): self._open(each, self._join) for each in configuration.clusters
        }
        self._join()

    @property
    def pollers(self) -> Mapping[str, Poller]:
        """Return the poller of each cluster by its name, which is empty for one that no list names."""
        return {name: watch.poller for name, watch in self._watches.items()}

    @property
    def watched(self) -> Sequence[Watched]:
        """Return the settings of each, in the same order."""
        return [watch.watched for watch in self._watches.values()]

    @property
    def names_clusters(self) -> bool:
        """Say whether the clusters have names."""
        return self._configuration.names_clusters

    def start(self) -> None:
        """Begin to poll all clusters."""
        for watch in self._watches.values():
            watch.start()

    def stop(self) -> None:
        """End polling, and close the connections."""
        for watch in self._watches.values():
            watch.stop()

    def reload(self, configuration: Configuration) -> None:
        """Watch what is wanted now; a cluster whose settings are the same goes on as it is.

        Raises what opening a new one raises; then everything stays as it was.
        """
        wanted = {_name(each): each for each in configuration.clusters}
        same = {n for n, watch in self._watches.items() if wanted.get(n) == watch.watched}
        opened: dict[str, Watch] = {}
        try:
            for name in wanted.keys() - same:
                opened[name] = self._open(wanted[name], self._join)
        except Exception:
            for watch in opened.values():
                watch.close()
            raise
        before, self._configuration = self._watches, configuration
        self._watches = {name: opened.get(name) or before[name] for name in wanted}
        for name in before.keys() - same:
            before[name].stop()
        for watch in opened.values():
            watch.start()
        _log.info(
            "settings read again",
            new=sorted(opened.keys() - before.keys()),
            changed=sorted(opened.keys() & before.keys()),
            gone=sorted(before.keys() - wanted.keys()),
        )
        self.note_reload(failed=False)

    def note_reload(self, *, failed: bool) -> None:
        """Note how reading the settings again has ended, for the page."""
        self._reload_failed = failed
        if not failed:
            self._reloaded_at = time.time()
        self._join()

    def page(self) -> Page:
        """Return the page of all clusters, with the age of what it shows as of now."""
        return self._with_ages(self._joined, self._watches.values())

    def page_of(self, cluster: str) -> Page | None:
        """Return the page of one cluster, None where no cluster has this name."""
        watch = self._watches.get(cluster)
        return None if watch is None else watch.poller.page()

    def unready_reason(self) -> str | None:
        """Say why no data can be relied on, None when that of any cluster can."""
        reasons = {name: self._unready(name, watch) for name, watch in self._watches.items()}
        if not all(reasons.values()):
            return None
        return "; ".join(f"{name}: {why}" if name else str(why) for name, why in reasons.items())

    def _unready(self, name: str, watch: Watch) -> str | None:
        if (reason := watch.poller.unready_reason()) is not None:
            return reason
        # who is told "ready" must not be served a page without the cluster
        return None if name in self._shown else "its first page is being made"

    def _join(self) -> None:
        """Make the page of what each poller published last, and of the process."""
        with self._joining:
            latest = {name: watch.poller.latest for name, watch in self._watches.items()}
            for published in latest.values():
                self._guard.attempt(
                    "history", published.state.cluster, self._record, published.state
                )
            parts = [published.parts for published in latest.values()]
            self._joined = page_of(self._own_parts(), *parts)
            self._shown = {
                n for n, published in latest.items() if published.succeeded_at is not None
            }

    def _own_parts(self) -> Parts:
        self._guard.start_poll()
        clusters = [watch.poller.latest.state.cluster for watch in self._watches.values()]
        cluster = clusters[0] if len(clusters) == 1 and not self.names_clusters else ""
        return self._renderer.parts(
            (
                *self._own_blocks(),
                Block((), self._reload_samples, name="reload"),
                faults(cluster, lambda: {**self._own_failed(), **self._guard.failures}),
            ),
            self._guard,
        )

    def _reload_samples(self) -> Mapping[Metric, Mapping[tuple[str, ...], float]]:
        return {
            own.RELOAD_SUCCESSFUL: {(): int(not self._reload_failed)},
            own.RELOADED_AT: {(): round(self._reloaded_at, 3)},
        }

    def _with_ages(self, page: Page, watches: Iterable[Watch]) -> Page:
        ages: dict[tuple[str, ...], float] = {
            (watch.poller.latest.state.cluster,): age
            for watch in watches
            if (age := watch.poller.data_age()) is not None
        }
        if not ages:
            return page
        return page.ending_with(self._renderer.lines(own.DATA_AGE, ages))


def _name(watched: Watched) -> str:
    return watched.settings.cluster or UNNAMED
