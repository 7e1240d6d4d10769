"""A stand-in for the kubelet and a container runtime: starts each pod's command as a process.

Of a pod it does what ours need: one container, its variables and arguments, startup, liveness and
readiness probes by HTTP, preStop sleep, SIGTERM, the grace period, restarts. A command is that of the image's
stage in deploy/Dockerfile, from this tree. What only a real one can do is not tried: volumes,
users, images; of limits, what is used of memory is measured.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from order_services.local.process import ManagedProcess
from tests.kubernetes.api import NO_ANSWER, STRATEGIC, Api, Resource
from tests.kubernetes.memory import Memory
from tests.kubernetes.network import Network, pod_address
from tests.support import pods
from tests.unit.deploy import dockerfile
from tests.unit.deploy.compose import REPOSITORY

NODE: Final = "this-machine"
LOOK_SECONDS: Final = 0.3
RESTART_PAUSE_SECONDS: Final = 1.0
OURS: Final = "kafka-lag-monitor/"


class Kubelet:
    """Runs the pods of one namespace; call `start` once the namespace is there."""

    def __init__(self, api: Api, network: Network, folder: Path) -> None:
        self.api = api
        self.network = network
        self.folder = folder
        self.running: dict[str, Pod] = {}
        self.memory: dict[str, Memory] = {}
        """By app: what the pod that used most has used."""
        self._started = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kubelet", daemon=True)

    def start(self) -> None:
        """Register the node and begin."""
        self.api.apply([{"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}])
        self._thread.start()

    def stop(self) -> None:
        """End every process, asking each first."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for pod in self.running.values():
            pod.abandon()
        for pod in self.running.values():
            pod.join()

    def of(self, app: str) -> list[Pod]:
        """Return the pods of an app whose process runs."""
        return [
            pod
            for pod in list(self.running.values())
            if pod.labels.get("app") == app and pod.process.running
        ]

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                found = {pod["metadata"]["uid"]: pod for pod in self.api.all("Pod")}
            except NO_ANSWER:
                continue  # pods go on while the API server is away, as on a node
            for uid, resource in found.items():
                if uid not in self.running:
                    self._take(resource)
                elif "deletionTimestamp" in resource["metadata"]:
                    self.running[uid].end(resource["metadata"]["deletionGracePeriodSeconds"])
            for uid in self.running.keys() - found.keys():
                self.running[uid].abandon()
            self.running = {
                uid: pod for uid, pod in self.running.items() if uid in found or pod.is_alive()
            }

    def _take(self, resource: Resource) -> None:
        metadata = resource["metadata"]
        if "deletionTimestamp" in metadata or resource["status"].get("phase") in (
            "Succeeded",
            "Failed",
        ):
            return
        with contextlib.suppress(*NO_ANSWER):  # deleted meanwhile
            self.api.post(
                f"{self.api.path('Pod', metadata['name'])}/binding",
                {
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {"name": metadata["name"]},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
                },
            )
            self._started += 1
            pod = Pod(self, resource, pod_address(self._started))
            self.running[metadata["uid"]] = pod
            pod.start()


@dataclass
class _Probe:
    """One probe's description, and how it went so far."""

    description: dict[str, Any]
    due_at: float = 0.0
    failures: int = 0

    def is_due(self, now: float) -> bool:
        if now < self.due_at:
            return False
        self.due_at = now + self.description.get("periodSeconds", 10)
        return True

    def failed_for_good(self, *, succeeded: bool) -> bool:
        self.failures = 0 if succeeded else self.failures + 1
        return self.failures >= int(self.description.get("failureThreshold", 3))


class Pod(threading.Thread):
    """One pod: its process, from its start to its end, and what the API server is told of it."""

    def __init__(self, kubelet: Kubelet, resource: Resource, address: str) -> None:
        super().__init__(name=resource["metadata"]["name"], daemon=True)
        self.kubelet = kubelet
        self.resource = resource
        self.address = address
        [self.container] = resource["spec"]["containers"]
        self.labels: dict[str, str] = resource["metadata"].get("labels", {})
        self.restarts = 0
        self._memory = kubelet.memory.setdefault(
            self.labels.get("app", self.name), Memory.of(self.container)
        )
        self.ready = False
        self.started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.process = self._new_process()
        self._grace: float | None = None
        self._told: Any = None
        self._deleted = threading.Event()

    def end(self, grace_seconds: float) -> None:
        """Take the pod down within so many seconds; returns at once."""
        self._grace = grace_seconds
        self._deleted.set()

    def abandon(self) -> None:
        """End a pod that the API server knows no more, or because the node goes."""
        self.end(0 if self._grace is None else self._grace)

    def run(self) -> None:
        """Start it, probe it, restart it, until it is done or deleted."""
        self._live()
        # one that has succeeded stays until somebody deletes it
        self._deleted.wait()
        self._take_down()

    def _live(self) -> None:
        while not self._deleted.is_set():
            try:
                self.process = self._new_process(self._environment())
            except (pods.MissingReferenceError, *NO_ANSWER) as error:
                # tried again, as a kubelet does
                self._tell("Pending", waiting=str(error))
                self._deleted.wait(1)
                continue
            self.process.start()
            self.ready = False
            self._tell("Running")
            self._probe_until_it_ends()
            if self._deleted.is_set():
                return
            self.process.stop()  # one that is alive and not well
            done = self.process.exit_code == 0
            self.ready = False
            if done and self.resource["spec"]["restartPolicy"] == "OnFailure":
                self._tell("Succeeded")
                return
            self.restarts += 1
            self._tell("Running")
            self._deleted.wait(RESTART_PAUSE_SECONDS)

    def _probe_until_it_ends(self) -> None:
        startup, liveness, readiness = (
            _Probe(self.container[name]) if name in self.container else None
            for name in ("startupProbe", "livenessProbe", "readinessProbe")
        )
        if readiness is None:
            self.ready = True
            self._tell("Running")
        while self.process.running and not self._deleted.wait(0.2):
            now = time.monotonic()
            if startup is not None:
                if startup.is_due(now):
                    succeeded = self._ask(startup)
                    if startup.failed_for_good(succeeded=succeeded):
                        return
                    if succeeded:
                        startup = None
                continue
            if (
                liveness is not None
                and liveness.is_due(now)
                and liveness.failed_for_good(succeeded=self._ask(liveness))
            ):
                return
            if readiness is not None and readiness.is_due(now):
                self._memory.see(self.process.pid)
                succeeded = self._ask(readiness)
                gone = readiness.failed_for_good(succeeded=succeeded)
                self.ready = succeeded or (self.ready and not gone)
                self._tell("Running")

    def _take_down(self) -> None:
        deadline = time.monotonic() + (self._grace or 0)
        stop = self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        if self.process.running:
            time.sleep(min(stop.get("seconds", 0), self._grace or 0))
            self.process.request_stop()
            # the grace period counts from the deletion, preStop included
            self.process.wait(max(1.0, deadline - time.monotonic()))
        with contextlib.suppress(*NO_ANSWER):
            self.kubelet.api.delete(
                self.kubelet.api.path("Pod", self.name),
                {
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "gracePeriodSeconds": 0,
                    "preconditions": {"uid": self.resource["metadata"]["uid"]},
                },
            )

    def _ask(self, probe: _Probe) -> bool:
        target = probe.description.get("httpGet")
        assert target is not None, "only probes by HTTP are known here"
        [port] = [
            p["containerPort"] for p in self.container["ports"] if p["name"] == target["port"]
        ]
        url = f"http://{self.kubelet.network.reached_at(self.address)}:{port}{target['path']}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=probe.description.get("timeoutSeconds", 1)) as answer:
                return bool(200 <= answer.status < 400)
        except (urllib.error.URLError, OSError):
            return False

    def _new_process(self, environment: dict[str, str] | None = None) -> ManagedProcess:
        variables = environment or {}
        return ManagedProcess(
            self.name,
            [*self._entrypoint(), *pods.arguments(self.container, variables)],
            self.kubelet.folder / f"{self.name}.log",
            environment=variables,
            working_directory=REPOSITORY,
        )

    def _entrypoint(self) -> list[str]:
        """Return the image's command, with what the image has at /opt in its place here."""
        words = dockerfile.stages()[self._image].words("ENTRYPOINT")
        programs = Path(sys.executable).parent
        return [
            str(programs / word)
            if (programs / word).exists()
            else word.replace("/opt/deploy", str(REPOSITORY / "deploy"))
            for word in words
        ]

    @property
    def _image(self) -> str:
        image: str = self.container["image"].split(":")[0]
        assert image.startswith(OURS), f"{image} is not built from this tree"
        return image.removeprefix(OURS)

    def _environment(self) -> dict[str, str]:
        def lookup(kind: str, name: str) -> dict[str, str] | None:
            found = self.kubelet.api.get(kind, name)
            if found is None:
                return None
            data: dict[str, str] = found.get("data", {})
            return data if kind == "ConfigMap" else _decoded(data)

        fields = {"metadata.name": self.name}
        variables = {
            **dockerfile.environment(self._image),
            **pods.environment(self.container, lookup, fields),
            # the machine's programs, and what Python needs to find them
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOSTNAME": self.name,
            # what it keeps goes when the tests' files go
            "HOME": str(self.kubelet.folder / f"{self.name}-home"),
            "STATE_DIRECTORY": str(self.kubelet.folder / f"{self.name}-state"),
        }
        # all addresses of a pod's network are its one address here
        here = self.kubelet.network.reached_at(self.address)
        return {
            name: here if value == "0.0.0.0" else self.kubelet.network.resolved(value)
            for name, value in variables.items()
        }

    def _tell(self, phase: str, waiting: str = "") -> None:
        """Write the pod's status, if it is another one than was told last."""
        state: dict[str, Any] = {"running": {"startedAt": self.started_at}}
        if waiting:
            state = {"waiting": {"reason": "CreateContainerConfigError", "message": waiting}}
        elif phase == "Succeeded":
            state = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        ready = "True" if self.ready else "False"
        status = {
            "phase": phase,
            "startTime": self.started_at,
            "hostIP": "192.0.2.10",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {"type": "ContainersReady", "status": ready},
                {"type": "Ready", "status": ready},
            ],
            "containerStatuses": [
                {
                    "name": self.container["name"],
                    "image": self.container["image"],
                    "imageID": "this-tree",
                    "ready": self.ready,
                    "started": phase == "Running",
                    "restartCount": self.restarts,
                    "state": state,
                }
            ],
        }
        if status == self._told:
            return
        with contextlib.suppress(*NO_ANSWER):
            self.kubelet.api.patch(
                f"{self.kubelet.api.path('Pod', self.name)}/status", {"status": status}, STRATEGIC
            )
            self._told = status


def _decoded(data: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in data.items()}
