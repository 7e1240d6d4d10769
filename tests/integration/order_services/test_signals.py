"""Signals as a terminal, make, timeout and service managers send them, to a program of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

TRIES = 500
# Each round: wait with the helper, say what was asked, begin anew.
ROUNDS = """
import sys
from order_services.process.signals import stop_signals
while True:
    with stop_signals() as stop:
        print("ready", flush=True)
        assert stop.wait(600)
        sys.stdin.readline()
        print(stop.is_set(), stop.insisted(), flush=True)
"""


@contextmanager
def program(code: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def ask(running: subprocess.Popen[str]) -> str:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()
    return line(running)


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@pytest.mark.timeout(60)
def test_two_terms_within_microseconds_are_one_stop_however_they_fall() -> None:
    choice = random.Random(13)
    with program(ROUNDS) as running:
        for number in range(TRIES):
            assert line(running) == "ready"
            # before the wait begins, while it begins, and after
            spin(choice.uniform(0, 300e-6))
            os.kill(running.pid, signal.SIGTERM)
            spin(choice.uniform(0, 120e-6))
            os.kill(running.pid, signal.SIGTERM)
            assert ask(running) == "True False", f"try {number}"


def test_only_a_second_interrupt_a_second_later_insists() -> None:
    with program(ROUNDS) as running:
        for numbers, pause_s, expected in (
            ((signal.SIGINT, signal.SIGINT), 0.1, False),
            ((signal.SIGTERM, signal.SIGTERM), 1.2, False),
            ((signal.SIGTERM, signal.SIGINT), 1.2, False),
            ((signal.SIGINT, signal.SIGTERM), 1.2, False),
            ((signal.SIGINT, signal.SIGINT), 1.2, True),
        ):
            assert line(running) == "ready"
            os.kill(running.pid, numbers[0])
            time.sleep(pause_s)
            os.kill(running.pid, numbers[1])
            time.sleep(0.05)
            assert ask(running) == f"True {expected}", numbers


def test_a_wait_ends_with_its_time_and_a_signal_reaches_whoever_waits() -> None:
    code = """
import os, signal, threading, time
from order_services.process.signals import stop_signals
before = signal.getsignal(signal.SIGTERM)
with stop_signals() as stop:
    print(stop.wait(0.05), stop.is_set(), flush=True)
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(stop.wait(30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    for thread in threads:
        thread.join(10)
    print(seen, stop.wait(0), stop.wait(None), flush=True)
print(signal.getsignal(signal.SIGTERM) == before, flush=True)
"""
    with program(code) as running:
        assert line(running) == "False False"
        assert line(running) == "[True, True, True] True True"
        assert line(running) == "True"
