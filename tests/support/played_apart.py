"""Scenes on real brokers, played in a process of their own.

librdkafka aborts its process now and then when a broker of many clients is killed (seen once in four runs), and
a commit of it sometimes waits for ever while the broker that is not its coordinator is stopped (twice in a row on a
machine with much to do): that is no answer of the monitor's, and must not take the tests with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import psutil

from tests.support.causes_table import INNOCENT, SCENES
from tests.support.cluster import Cluster
from tests.support.lagging_on_broker import SESSION_TIMEOUT_MS, on_brokers

TRIES: Final = 4
# all of them take three minutes on two cores, less than twice that beside other tests
PLAYED_WITHIN_SECONDS: Final = 480.0

Answers = Mapping[str, Mapping[str, Any]]


def answers_of(directory: Path, ids: Sequence[str]) -> Answers:
    """Return what the API answers in each scene; raises BrokenProcessPool where each try is aborted or hangs."""
    for left in reversed(range(TRIES)):
        place = directory / f"try-{TRIES - left}"
        place.mkdir()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            player = psutil.Process(apart.submit(os.getpid).result())
            deadline = threading.Timer(PLAYED_WITHIN_SECONDS, player.kill)
            deadline.start()
            try:
                return apart.submit(_play, place, ids).result()
            except BrokenProcessPool:
                if not left:
                    raise
            finally:
                deadline.cancel()
                _end_what_runs_in(place)
    raise AssertionError("no try at all")


def _play(directory: Path, ids: Sequence[str]) -> Answers:
    cluster = Cluster(directory, SESSION_TIMEOUT_MS)
    numbers = count()
    by_id = {scene.id: scene for scene in (*SCENES, *INNOCENT)}
    try:
        told = on_brokers(cluster, [by_id[each] for each in ids], lambda s: f"{s}-{next(numbers)}")
    finally:
        cluster.stop()
    return {scene: dict(of.answer) for scene, of in told.items()}


def _end_what_runs_in(directory: Path) -> None:
    """End the brokers that an aborted process left: they name the directory, which is ours alone."""
    for process in psutil.process_iter(["cmdline"]):
        if any(str(directory) in part for part in process.info["cmdline"] or ()):
            process.kill()
