"""Carries questions to brokers: the one package that knows kafka-python.

It uses kafka-python's message classes and its connection manager, and none of its clients: those
raise at the first group's error, ask brokers one after the other, and hide why a connection failed.
"""

from __future__ import annotations

import logging

from monitor.kafka.wire.client import KafkaWire
from monitor.kafka.wire.connecting import CLIENT_ID, OptionsError

__all__ = ["CLIENT_ID", "KafkaWire", "OptionsError"]

# kafka-python logs every lost connection with its trace; what happened is in our own failures.
_log = logging.getLogger("kafka")
_log.addHandler(logging.NullHandler())
_log.propagate = False
_log.setLevel(logging.CRITICAL + 1)
