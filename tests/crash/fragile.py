"""Run a service whose Kafka clients meet a fatal error at SIGUSR1: `python -m tests.crash.fragile SERVICE`.

A broker cannot be brought to give such errors at will, and a client has no switch for them.
"""

from __future__ import annotations

import runpy
import signal
import sys
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from confluent_kafka import Consumer, KafkaError, Producer

from order_services.messaging import consumer, publishing
from tests.support.fatal import raise_fatal

FATAL_SIGNAL = signal.SIGUSR1

_clients: WeakSet[Any] = WeakSet()


class FragileConsumer(Consumer):
    """A consumer that can be found."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        _clients.add(self)


class FragileProducer(Producer):
    """A producer that can be found."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        _clients.add(self)


def fragile_command(service: str) -> list[str]:
    """Return the command line that starts a service in this way."""
    return [sys.executable, "-m", "tests.crash.fragile", service]


def _break_at_each_signal() -> None:
    while True:
        signal.sigwait({FATAL_SIGNAL})
        for client in list(_clients):
            is_consumer = isinstance(client, Consumer)
            # those that were left behind have met theirs
            with suppress(AssertionError):
                raise_fatal(
                    client,
                    KafkaError.UNKNOWN_MEMBER_ID
                    if is_consumer
                    else KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
                )


if __name__ == "__main__":
    # blocked before the first thread: all inherit it, and only the one below takes it
    signal.pthread_sigmask(signal.SIG_BLOCK, {FATAL_SIGNAL})
    vars(consumer)["KafkaConsumer"] = FragileConsumer
    vars(publishing)["Producer"] = FragileProducer
    threading.Thread(target=_break_at_each_signal, name="fragile", daemon=True).start()
    runpy.run_module(f"order_services.{sys.argv[1]}", run_name="__main__")
