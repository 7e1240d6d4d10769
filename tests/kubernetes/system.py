"""The order system on the control plane: applied, awaited, ordered from."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from order_services.local.kafka import EmbeddedKafka
from order_services.local.plan import DatabaseAddress, ServiceReplica
from order_services.local.ports import LOOPBACK
from order_services.local.postgres import EmbeddedPostgres
from tests.crash.customers import Customers
from tests.kubernetes import building
from tests.kubernetes.api import Api
from tests.kubernetes.keda import Keda
from tests.kubernetes.kubelet import Kubelet
from tests.kubernetes.network import Network
from tests.support.waiting import wait_for
from tests.unit.deploy import kustomize
from tests.unit.deploy.test_compose import SETTINGS

DATABASE: Final = "shop"
ROLE: Final = "orders"
PASSWORD: Final = "only-for-this-test"
OVERLAY: Final = "keda"
READY_TIMEOUT_S: Final = 600.0
# a dead member's partitions are handed on within seconds: the tests are not about waiting for it
FAST: Final = {"SESSION_TIMEOUT_SECONDS": "6", "SHIPPING_DELIVERY_DELAY_SECONDS": "0.5"}
# One payment replica manages no more than four orders a second, so that a slow machine can have more than
# two do. Small batches: a stop waits for one.
SLOW_PAYMENT: Final = {"FAULT_MESSAGE_DELAY_SECONDS": "0.25", "BATCH_MAX_MESSAGES": "8"}
# advice within seconds, not minutes
HASTY_MONITOR: Final = {
    "MONITOR_POLL_INTERVAL": "2",
    "MONITOR_SCALING_GOAL": "10",
    "MONITOR_SCALING_START": "5",
    "MONITOR_SCALING_HOLD": "10",
}


class System:
    """One overlay, with a broker and a database of its own in the place of the users'."""

    def __init__(self, api: Api, folder: Path, programs: dict[str, Path]) -> None:
        self.api = api
        self.folder = folder
        self.network = Network(api)
        self.kubelet = Kubelet(api, self.network, folder)
        self.kafka = EmbeddedKafka(folder / "kafka", log_file=folder / "kafka.log")
        self.postgres = EmbeddedPostgres(folder / "postgres", log_file=folder / "postgres.log")
        self.address = DatabaseAddress(
            self.postgres.host,
            self.postgres.port,
            DATABASE,
            self.postgres.user,
            self.postgres.password,
        )
        self.keda = Keda(
            api, folder / "keda", programs, building.source(building.KEDA), self.network
        )
        self.ports: dict[str, int] = {}

    def start(self) -> None:
        """Apply the overlay, and wait until topics and schema are there and every pod is ready."""
        self.kafka.start()
        self.postgres.start()
        self.postgres.create_database(DATABASE)
        with closing(self.postgres.connect(DATABASE)) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
            connection.commit()
        self.network.start()
        self.keda.start()
        self.api.apply(self.api.run("kustomize", str(self._overlay())))
        for service in self.api.all("Service"):
            self.network.open(service["metadata"]["name"], service["spec"]["ports"][0]["port"])
        self.kubelet.start()
        for job in ("topics", "migrate"):
            self._wait_for_job(job)
        self.wait_until_ready()
        self.ports = {name: self.network.expose(name) for name in ("api-gateway", "monitor")}

    def stop(self) -> None:
        """End pods, KEDA, network, database and broker, whatever becomes of the others."""
        with ExitStack() as stack:
            # the last one first
            for each in (self.kafka, self.postgres, self.network, self.kubelet, self.keda):
                stack.callback(each.stop)
            # while somebody is there who ends the pods and the ScaledObjects: without, they would never be gone
            self.api.empty_namespace()

    def customers(self, rate: float, seed: int) -> Customers:
        """Return customers who order through the gateway's Service; enough of them for a slow one."""
        return Customers(
            lambda: [ServiceReplica("gateway", 1, self.ports["api-gateway"])],
            rate,
            seed,
            threads=16,
        )

    def ask(self, service: str, path: str) -> httpx.Response | None:
        """Ask a Service from outside; None while nobody answers, as in the middle of a restart."""
        try:
            return httpx.get(
                f"http://{LOOPBACK}:{self.ports[service]}{path}", timeout=30, trust_env=False
            )
        except httpx.TransportError:
            return None

    def limit_connections(self, most: int) -> None:
        """Let the services have no more connections to the database; -1 is no limit."""
        with closing(self.postgres.connect(DATABASE)) as connection, connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT {most}")
            connection.commit()

    def wait_until_ready(self) -> None:
        """Wait until every replica of every Deployment is ready and of the newest release."""
        for name in (*SETTINGS, "monitor"):
            self.wait_for_deployment(name)

    def wait_until_at_rest(self, consumer: str) -> None:
        """Wait until KEDA has no more replicas of a consumer than it must, and they are ready."""
        least = kustomize.find(OVERLAY, "ScaledObject", consumer)["spec"]["minReplicaCount"]
        wait_for(f"{consumer} at rest", lambda: self.replicas(consumer) == least, READY_TIMEOUT_S)
        self.wait_for_deployment(consumer)

    def replicas(self, deployment: str) -> int:
        """Return how many replicas are wanted now."""
        found = self.api.get("Deployment", deployment)
        assert found is not None
        return int(found["spec"]["replicas"])

    def wait_for_deployment(self, name: str) -> None:
        """Wait until one Deployment is as it is wanted."""
        wait_for(f"ready {name}", lambda: self.is_ready(name), READY_TIMEOUT_S)

    def is_ready(self, deployment: str) -> bool:
        """Say whether a Deployment is as it is wanted, with nothing left of what was before."""
        found = self.api.get("Deployment", deployment)
        assert found is not None
        status, wanted = found["status"], found["spec"]["replicas"]
        return bool(
            status.get("observedGeneration") == found["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == status.get("readyReplicas", 0) == wanted
            and status.get("replicas", 0) == wanted
            # those that end are counted no more
            and len(self.pods(deployment)) == wanted
            and len(self.network.endpoints(deployment)) == wanted
        )

    def pods(self, app: str) -> dict[str, dict[str, Any]]:
        """Return an app's pods by name, those that end included."""
        return {
            pod["metadata"]["name"]: pod
            for pod in self.api.all("Pod")
            if pod["metadata"]["labels"].get("app") == app
        }

    def _wait_for_job(self, job: str) -> None:
        def is_complete() -> bool:
            found = self.api.get("Job", job)
            return found is not None and any(
                (each["type"], each["status"]) == ("Complete", "True")
                for each in found["status"].get("conditions", [])
            )

        wait_for(f"end of the job {job}", is_complete, READY_TIMEOUT_S)

    def _overlay(self) -> Path:
        """Write an overlay of an overlay, as whoever installs it would."""
        folder = self.folder / "overlay"
        folder.mkdir()
        owner = self.address
        servers = {"DB_HOST": owner.host, "DB_PORT": str(owner.port), "DB_NAME": owner.name}
        services = {
            "KAFKA_BROKERS": self.kafka.bootstrap_servers,
            **servers,
            "DB_VIA_PGBOUNCER": "false",
            **FAST,
        }
        secrets = {
            "db-credentials": {"username": ROLE, "password": PASSWORD},
            "db-owner-credentials": {"username": owner.user, "password": owner.password},
            "monitor-credentials": {
                "username": owner.user,
                "password": owner.password,
                "database-url": (
                    f"postgresql://{owner.user}:{owner.password}@{owner.host}:{owner.port}/{owner.name}"
                ),
            },
        }
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.api.namespace,
            "resources": [os.path.relpath(kustomize.KUBERNETES / "overlays" / OVERLAY, folder)],
            "configMapGenerator": [
                {"name": name, "behavior": "merge", "literals": _literals(values)}
                for name, values in (("order-services", services), ("database", servers))
            ],
            "secretGenerator": [
                {"name": name, "literals": _literals(values)} for name, values in secrets.items()
            ],
            "patches": [
                _variables("payment-service", "service", SLOW_PAYMENT),
                _variables("monitor", "monitor", HASTY_MONITOR),
            ],
            # it refuses to run as root, as which tests may run; services reach PostgreSQL itself
            "replicas": [{"name": "pgbouncer", "count": 0}],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return folder


def _literals(values: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]


def _variables(deployment: str, container: str, values: dict[str, str]) -> dict[str, str]:
    """Return a patch that gives a Deployment's container some variables more."""
    env = [{"name": name, "value": value} for name, value in values.items()]
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment},
        "spec": {"template": {"spec": {"containers": [{"name": container, "env": env}]}}},
    }
    return {"patch": yaml.safe_dump(patch)}
