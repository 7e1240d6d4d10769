"""What the running system is broken by: each is broken inside its block, and repaired at its end."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from order_services.domain import topics
from order_services.local.ports import LOOPBACK
from order_services.local.process import ManagedProcess
from order_services.local.traffic import Traffic
from order_services.storage.outbox_slice import LOCK_CLASS
from tests.crash.shop import DATABASE
from tests.support import foreign
from tests.support.alert_pace import Pace
from tests.support.alerting import Alerting, Targets, targets_of
from tests.support.cluster import Cluster
from tests.support.waiting import wait_for
from tests.support.watched_system import ADMIN_TOKEN, CLUSTER, Monitor, WatchedSystem, watched

POISON_PER_SECOND: Final = 2
HOT_PER_SECOND: Final = 400
# more than the gateway has connections, and more than it has threads
READERS: Final = 12
READ_TIMEOUT_S: Final = 30.0
# longer than the time from one poll of the monitor to the next
SEEN_BY_A_POLL_S: Final = 1.2
CUSTOMERS: Final = 10
CUSTOMER_ORDERS_PER_SECOND: Final = 0.5
# A batch of a slow service. A rate's window, shortened, is to hold the end of one at any time.
SLOW_BATCH_S: Final = 6.0
BATCH_MAX_MESSAGES: Final = 100
MINUTE_S: Final = 60
# With the 10 to 22 of PgBouncer and the monitor more than 80 of 100, and never all.
FORGOTTEN_CONNECTIONS: Final = 75

OLD: Final = "old-events"
REWIND_EVERY_S: Final = 5.0
SLOW: Final = "slow-events"
CUT: Final = "cut-events"
GROWN: Final = "grown-events"
FLAPPING: Final = "flapping-events"
LONE: Final = "lone-events"
ASSIGNED: Final = "assigned-events"
NEVER: Final = "never-read-events"
TRUNCATED: Final = "truncated-events"
HANGING: Final = "hanging-events"


@dataclass(frozen=True, slots=True)
class Scene:
    """What is broken, and who tells of it."""

    system: WatchedSystem
    alerting: Alerting

    @property
    def servers(self) -> str:
        """The broker's address."""
        return self.system.shop.broker.bootstrap_servers

    @property
    def targets(self) -> Targets:
        """What is to be scraped."""
        return targets_of(self.system.monitor.url, self.system.service_urls, CLUSTER)

    def sees(self, expression: str) -> None:
        """Wait until Prometheus finds something."""
        wait_for(expression, lambda: self.alerting.query(expression))


@contextmanager
def scene(directory: Path, pace: Pace, orders_per_second: float) -> Iterator[Scene]:
    """Have the system and its alerting running inside the block."""
    settings = {
        "BATCH_MAX_MESSAGES": str(BATCH_MAX_MESSAGES),
        # what waits for a lock or a connection fails sooner, and is tried again sooner
        "DB_LOCK_TIMEOUT_SECONDS": "6",
        "DB_POOL_TIMEOUT_SECONDS": "2",
    }
    with watched(directory, orders_per_second, settings=settings) as system:
        targets = targets_of(system.monitor.url, system.service_urls, CLUSTER)
        with Alerting(directory / "alerting", targets, pace) as alerting:
            yield Scene(system, alerting)


# -- programs -------------------------------------------------------------------------------------


@contextmanager
def paused(scene: Scene) -> Iterator[None]:
    with scene.system.frozen("analytics"):
        yield


@contextmanager
def killed(scene: Scene) -> Iterator[None]:
    scene.system.replica("payment").kill()
    try:
        yield
    finally:
        scene.system.start_again("payment")


@contextmanager
def slow(scene: Scene) -> Iterator[None]:
    with service_faults(scene.system, "inventory", batchDelaySeconds=SLOW_BATCH_S):
        yield


@contextmanager
def bad_release(scene: Scene) -> Iterator[None]:
    with service_faults(scene.system, "analytics", poisonRate=1):
        yield
    # the runbook asks for it: a consumer that has stopped does not go on by itself
    scene.system.replica("analytics").stop()
    scene.system.start_again("analytics")


@contextmanager
def without_relay(scene: Scene) -> Iterator[None]:
    """Restart a service with its relay switched off: nobody publishes what it writes."""
    process = scene.system.replica("payment")

    def restart() -> None:
        process.stop()
        scene.system.start_again("payment")

    with _environment(process, restart, RELAY_ENABLED="false"):
        yield


@contextmanager
def monitor_gone(scene: Scene) -> Iterator[None]:
    scene.system.monitor.kill()
    try:
        yield
    finally:
        scene.system.monitor.start()


# -- servers --------------------------------------------------------------------------------------


@contextmanager
def broker_gone(scene: Scene) -> Iterator[None]:
    # in good order: after a crash it recovers its logs first, which a busy machine takes a minute for
    scene.system.shop.broker.stop()
    try:
        yield
    finally:
        scene.system.shop.broker.start()


@contextmanager
def one_of_two_brokers_gone(scene: Scene) -> Iterator[None]:
    """Watch another cluster as well, with two brokers, and kill the second one.

    The only group there reads what only the second one has: its lag is not known any more.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        cluster = Cluster(directory)
        stack.callback(cluster.stop)
        both = NewTopic("replicated", 1, replica_assignment=[[1, 2]])
        cluster.admin.create_topics([both])["replicated"].result()
        lone = NewTopic(LONE, 1, replica_assignment=[[2]])
        cluster.admin.create_topics([lone])[LONE].result()
        producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0})
        for number in range(500):
            producer.produce(LONE, str(number), partition=0)
        producer.flush(10)
        group = cluster.group_of_first(LONE)
        stack.enter_context(foreign.Reader(cluster.bootstrap_servers, group, LONE, offset=0))
        settings = {"KAFKA_BROKERS": cluster.bootstrap_servers, "MONITOR_CLUSTER": "second"}
        monitor = Monitor(directory, settings)
        stack.callback(monitor.stop)
        monitor.start()
        of_first = scene.targets["kafka-monitor"]
        of_second = targets_of(monitor.url, ())["kafka-monitor"]

        def leave() -> None:
            scene.alerting.write_targets(scene.targets)
            # stopped before Prometheus has dropped it, it would be a monitor that is down
            instance = monitor.url.removeprefix("http://")
            scene.sees(f'absent(up{{instance="{instance}"}})')

        stack.callback(leave)
        scene.alerting.write_targets({"kafka-monitor": [*of_first, *of_second]})
        scene.sees('kafka_monitor_broker_up{broker="2"} == 1')
        scene.sees(f'kafka_consumergroup_lag_sum{{topic="{LONE}"}}')
        cluster.second.kill()
        yield
        cluster.revive_second()


@contextmanager
def database_gone(scene: Scene) -> Iterator[None]:
    scene.system.shop.postgres.stop()
    try:
        yield
    finally:
        scene.system.shop.postgres.start()


@contextmanager
def pgbouncer_gone(scene: Scene) -> Iterator[None]:
    scene.system.pgbouncer.kill()
    try:
        yield
    finally:
        scene.system.pgbouncer.start()


@contextmanager
def exhausted_pool(scene: Scene) -> Iterator[None]:
    """Lock a table that requests of the gateway read, and the consumer of analytics writes to."""
    lock = scene.system.shop.postgres.connect(DATABASE)
    with lock.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE analytics_daily IN ACCESS EXCLUSIVE MODE")
    gateway = scene.system.shop.specs["gateway-1"]

    def read() -> None:
        with urllib.request.urlopen(f"{gateway.url}/api/analytics", timeout=READ_TIMEOUT_S):
            pass

    with ExitStack() as stack:
        stack.enter_context(_repeated(read, 10, threads=READERS))
        # the lock goes first: readers end when they are served
        stack.enter_context(closing(lock))
        # customers come whether others are served or not; one that sent all orders would wait
        for _ in range(CUSTOMERS):
            customer = Traffic(LOOPBACK, gateway.port, CUSTOMER_ORDERS_PER_SECOND)
            stack.callback(customer.stop)
            customer.start()
        yield


@contextmanager
def many_connections(scene: Scene) -> Iterator[None]:
    """Leave connections open until few are left, as a program does that forgets to close them."""
    with ExitStack() as stack:
        for _ in range(FORGOTTEN_CONNECTIONS):
            stack.enter_context(closing(scene.system.shop.postgres.connect("postgres")))
        yield


@contextmanager
def waiting_client(scene: Scene) -> Iterator[None]:
    """Pause a database in PgBouncer that nobody but a client of ours uses."""
    pgbouncer = scene.system.pgbouncer
    with (
        closing(pgbouncer.connect("postgres")) as client,
        closing(pgbouncer.connect("pgbouncer")) as console,
    ):
        with console.cursor() as cursor:
            cursor.execute("PAUSE postgres")

        def ask() -> None:
            with client.cursor() as asking:
                asking.execute("SELECT 1")

        waiting = threading.Thread(target=ask, daemon=True)
        waiting.start()
        try:
            yield
        finally:
            with console.cursor() as cursor:
                cursor.execute("RESUME postgres")
            waiting.join(READ_TIMEOUT_S)


@contextmanager
def relay_locked_out(scene: Scene) -> Iterator[None]:
    """Hold the lock by which relays of a slice stand by for each other."""
    with closing(scene.system.shop.postgres.connect(DATABASE)) as lock, lock.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, hashtext('payment'))", (LOCK_CLASS,))
        yield


@contextmanager
def outbox_rows_held(scene: Scene) -> Iterator[None]:
    """Forget a transaction that holds rows of the outbox: they are published, and never done with."""
    with closing(scene.system.shop.postgres.connect(DATABASE)) as forgotten:

        def hold() -> bool:
            with forgotten.cursor() as cursor:
                # what locks nothing is given up, or it would see no row that is written later
                cursor.execute(
                    "ROLLBACK; BEGIN; SELECT 1 FROM outbox WHERE slice = 'payment' FOR UPDATE"
                )
                return cursor.rowcount > 0

        wait_for("messages in the outbox", hold)
        yield


# -- topics ---------------------------------------------------------------------------------------


@contextmanager
def poisoned(scene: Scene) -> Iterator[None]:
    producer = Producer({"bootstrap.servers": scene.servers, "log_level": 0})

    def poison() -> None:
        producer.produce(topics.SHIPPING, b"no event", key=b"poison")
        producer.flush(10)

    with _repeated(poison, POISON_PER_SECOND):
        yield


@contextmanager
def narrow_topic(scene: Scene) -> Iterator[None]:
    """Have a topic refuse all messages as too large; publish them when it takes them again."""
    limit = ConfigEntry("max.message.bytes", "10", incremental_operation=AlterConfigOpType.SET)
    unlimited = ConfigEntry(
        "max.message.bytes", None, incremental_operation=AlterConfigOpType.DELETE
    )
    _configure(scene, topics.SHIPPING, limit)
    try:
        yield
    finally:
        _configure(scene, topics.SHIPPING, unlimited)
        # the runbook asks for it: what was set aside stays so
        postgres = scene.system.shop.postgres
        url = f"postgresql://{postgres.user}@{postgres.host}:{postgres.port}/{DATABASE}"
        retry = [
            sys.executable,
            "-m",
            "order_services",
            "refused",
            "retry",
            "--all",
            "--database",
            url,
        ]

        def published() -> bool:
            # the topic hears of its settings a moment later, and may refuse some once more
            return subprocess.check_output(retry, text=True).startswith("0 ")

        wait_for("end of refused messages", published)


@contextmanager
def hot_partition(scene: Scene) -> Iterator[None]:
    """Deliver one order's event again and again: consumers know it, only its partition is hot."""
    settings: dict[str, str | int] = {"bootstrap.servers": scene.servers, "log_level": 0}
    consumer = Consumer({**settings, "group.id": "no-group", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topics.ORDERS, 0, 0)])
    message = wait_for("message of the first partition", lambda: consumer.poll(1))
    consumer.close()
    producer = Producer(settings)

    def deliver() -> None:
        for _ in range(HOT_PER_SECOND // 10):
            producer.produce(
                topics.ORDERS,
                message.value(),
                key=message.key(),
                headers=message.headers(),
                partition=0,
            )
        producer.flush(10)

    with _repeated(deliver, 10):
        yield


# -- groups of others -----------------------------------------------------------------------------


@contextmanager
def slow_reader(scene: Scene) -> Iterator[None]:
    """Have a group that reads a message a second of 2,000 that are two minutes old."""
    with (
        foreign.topic(scene.servers, SLOW, messages=2_000, age_s=2 * MINUTE_S),
        foreign.Reader(scene.servers, SLOW, SLOW, offset=100),
    ):
        yield


@contextmanager
def rewound(scene: Scene) -> Iterator[None]:
    """Reset a group's offset to messages an hour old, of a topic that keeps them half an hour more.

    Again and again: one step back is told for no longer than the rule's window, which a whole round of
    faults at a fast pace may outlast before anybody looks.
    """
    keeps_ms = str(90 * MINUTE_S * 1000)
    old = {"messages": 2_000, "age_s": 60 * MINUTE_S, "settings": {"retention.ms": keeps_ms}}
    with (
        foreign.topic(scene.servers, OLD, **old),  # type: ignore[arg-type]
        foreign.Reader(scene.servers, OLD, OLD, offset=1_900) as reader,
    ):
        scene.sees(f'kafka_consumergroup_current_offset{{consumergroup="{OLD}"}} >= 1900')
        over = threading.Event()

        def rewind() -> None:
            while not over.is_set():
                reader.rewind(100)
                over.wait(REWIND_EVERY_S)

        thread = threading.Thread(target=rewind, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def cut(scene: Scene) -> Iterator[None]:
    """Delete messages that a group has not read."""
    with (
        foreign.topic(scene.servers, CUT, messages=500) as admin,
        foreign.Reader(scene.servers, CUT, CUT, offset=10),
    ):
        scene.sees(f'kafka_consumergroup_messages_lost_total{{consumergroup="{CUT}"}}')
        partition = TopicPartition(CUT, 0, 400)
        admin.delete_records([partition])[partition].result()
        yield


@contextmanager
def grown(scene: Scene) -> Iterator[None]:
    """Give a topic more partitions, of which its readers do not hear."""
    deaf: Mapping[str, str | int] = {"topic.metadata.refresh.interval.ms": -1}
    with (
        foreign.topic(scene.servers, GROWN) as admin,
        foreign.Reader(scene.servers, GROWN, GROWN, settings=deaf),
    ):
        admin.create_partitions([NewPartitions(GROWN, 3)])[GROWN].result()
        yield


@contextmanager
def flapping(scene: Scene) -> Iterator[None]:
    """Have a member of a group join and leave all the time."""

    def come_and_go() -> None:
        consumer = foreign.member(scene.servers, FLAPPING)
        consumer.subscribe([FLAPPING])
        wait_for("assignment", lambda: consumer.poll(0.1) or consumer.assignment(), 10)
        consumer.poll(SEEN_BY_A_POLL_S)
        consumer.close()

    with foreign.topic(scene.servers, FLAPPING):
        with _repeated(come_and_go, 1 / SEEN_BY_A_POLL_S):
            yield
        foreign.delete_group(scene.servers, FLAPPING)


@contextmanager
def committer_gone(scene: Scene) -> Iterator[None]:
    """End a consumer that reads without membership, while messages go on coming."""
    with foreign.topic(scene.servers, ASSIGNED, messages=10):
        producer = Producer({"bootstrap.servers": scene.servers, "log_level": 0})

        def produce() -> None:
            producer.produce(ASSIGNED, b"one more", partition=0)
            producer.flush(10)

        with _repeated(produce, 5):
            consumer = foreign.member(scene.servers, ASSIGNED)
            consumer.assign([TopicPartition(ASSIGNED, 0, 0)])

            def is_seen() -> bool:
                message = consumer.poll(1)
                if message is not None and message.error() is None:
                    consumer.commit(message=message, asynchronous=False)
                active = (
                    f'kafka_consumergroup_active{{consumergroup="{ASSIGNED}", by="commits"}} == 1'
                )
                return bool(scene.alerting.query(active))

            wait_for("commits without members that the monitor has seen", is_seen)
            consumer.close()
            yield
        foreign.delete_group(scene.servers, ASSIGNED)


@contextmanager
def never_read(scene: Scene) -> Iterator[None]:
    """Have a group that only has committed offsets, as a mirrored or a dead one."""
    with foreign.topic(scene.servers, NEVER, messages=100) as admin:
        foreign.commit(admin, NEVER, NEVER, 10)
        yield
        foreign.delete_group(scene.servers, NEVER)


@contextmanager
def past_end(scene: Scene) -> Iterator[None]:
    """Have a group commit what its topic does not have, as after the topic was created anew."""
    with (
        foreign.topic(scene.servers, TRUNCATED, messages=10),
        foreign.Reader(scene.servers, TRUNCATED, TRUNCATED, offset=5_000),
    ):
        yield


@contextmanager
def hanging_transaction(scene: Scene) -> Iterator[None]:
    """Leave a transaction open whose records are older than the rule waits for."""
    settings: dict[str, str | int] = {
        "bootstrap.servers": scene.servers,
        "transactional.id": HANGING,
        "transaction.timeout.ms": 600_000,
        "log_level": 0,
    }
    producer = Producer(settings)
    producer.init_transactions(30)
    # at once: what the monitor has seen coming it knows to be young, whatever its timestamp says
    with foreign.topic(scene.servers, HANGING) as admin:
        producer.begin_transaction()
        began_ms = int((time.time() - 20 * MINUTE_S) * 1000)
        for number in range(50):
            producer.produce(HANGING, str(number), partition=0, timestamp=began_ms)
        producer.flush(30)
        foreign.commit(admin, HANGING, HANGING, 0)
        try:
            yield
        finally:
            producer.abort_transaction(30)
        foreign.delete_group(scene.servers, HANGING)


# -- what is scraped ------------------------------------------------------------------------------


@contextmanager
def service_not_scraped(scene: Scene) -> Iterator[None]:
    services = [one for one in scene.system.service_urls if one[0] != "shipping"]
    with _targets(scene, targets_of(scene.system.monitor.url, services, CLUSTER)):
        yield


@contextmanager
def monitor_not_scraped(scene: Scene) -> Iterator[None]:
    with _targets(scene, {"kafka-monitor": []}):
        yield


# -- what they share ------------------------------------------------------------------------------


@contextmanager
def _targets(scene: Scene, targets: Targets) -> Iterator[None]:
    scene.alerting.write_targets(targets)
    try:
        yield
    finally:
        scene.alerting.write_targets(scene.targets)


def _configure(scene: Scene, topic: str, entry: ConfigEntry) -> None:
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = foreign.admin_client(scene.servers)
    admin.incremental_alter_configs([resource])[resource].result()


@contextmanager
def service_faults(system: WatchedSystem, service: str, **faults: float) -> Iterator[None]:
    """Have a service do something badly inside the block: see its `PUT /admin/faults`."""
    url = f"{system.url(service)}/admin/faults"
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}

    def ask(method: str, body: Mapping[str, float] | None) -> None:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, content, headers, method=method)
        with urllib.request.urlopen(request, timeout=10):
            pass

    ask("PUT", faults)
    try:
        yield
    finally:
        ask("DELETE", None)


@contextmanager
def _environment(
    process: ManagedProcess, restart: Callable[[], None], **settings: str
) -> Iterator[None]:
    """Have a program restarted with other settings."""
    before = process.environment or {}
    process.environment = {**before, **settings}
    restart()
    try:
        yield
    finally:
        process.environment = before
        restart()


@contextmanager
def _repeated(action: Callable[[], None], per_second: float, threads: int = 1) -> Iterator[None]:
    """Do something again and again, whatever becomes of it, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(1 / per_second):
            try:
                action()
            except OSError:
                continue  # being refused is what some faults are about

    workers = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        ended.set()
        for worker in workers:
            worker.join(READ_TIMEOUT_S)
