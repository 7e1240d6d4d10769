"""KEDA's operator and metrics adapter as processes of this machine, registered as in a cluster."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Final

import trustme

from order_services.local.ports import LOOPBACK, free_port
from tests.kubernetes.api import Api
from tests.kubernetes.network import Network
from tests.kubernetes.processes import Processes, answers
from tests.support.waiting import wait_for

NAMESPACE: Final = "keda"
# what the API server asks for when it passes a question on
METRICS_NAME: Final = "keda-metrics-apiserver.keda.svc"


class Keda:
    """One KEDA, which reaches Services by the network's proxy: they have no names outside a cluster."""

    def __init__(
        self, api: Api, folder: Path, programs: dict[str, Path], source: Path, network: Network
    ) -> None:
        self.api = api
        self.folder = folder
        self.source = source
        self.network = network
        self._processes = Processes(folder, programs)

    def start(self) -> None:
        """Install its rights, start both programs, and register the adapter; the network is open."""
        config = self.source / "config"
        for file in (
            "general/namespace.yaml",
            "service_account/service_account.yaml",
            "rbac/role.yaml",
            "rbac/role_binding.yaml",
            "metrics-server/role.yaml",
            "metrics-server/role_binding.yaml",
        ):
            self.api.run("apply", "--server-side", "-f", str(config / file))
        authority = self._write_certificates()
        grpc, health, metrics, adapter = (free_port() for _ in range(4))
        certificates = f"--cert-dir={self.folder}"
        environment = self._environment()
        self._processes.run(
            "keda",
            certificates,
            f"--metrics-bind-address={LOOPBACK}:{metrics}",
            f"--health-probe-bind-address={LOOPBACK}:{health}",
            f"--metrics-service-bind-address={LOOPBACK}:{grpc}",
            *("--zap-log-level=info", "--zap-encoder=console"),
            ready=lambda: answers(f"http://{LOOPBACK}:{health}/readyz"),
            environment=environment,
        )
        self._processes.run(
            "keda-adapter",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={adapter}",
            # its own /metrics, on every address of the machine: it takes no address for it
            f"--port={free_port()}",
            certificates,
            f"--tls-cert-file={self.folder / 'tls.crt'}",
            f"--tls-private-key-file={self.folder / 'tls.key'}",
            *(
                f"--{name}-kubeconfig={self.api.kubeconfig}"
                for name in ("authentication", "authorization", "lister")
            ),
            f"--metrics-service-address=localhost:{grpc}",
            ready=lambda: answers(f"https://{LOOPBACK}:{adapter}/readyz"),
            environment=environment,
        )
        self._register(adapter, authority)

    def stop(self) -> None:
        """Take the adapter out of the API first: a namespace can't be deleted without its answers."""
        try:
            self.api.delete(
                "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io"
            )
        finally:
            self._processes.stop()

    def _register(self, port: int, authority: bytes) -> None:
        name, version = "keda-metrics-apiserver", "v1beta1"
        self.api.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": NAMESPACE},
                    "spec": {"type": "ExternalName", "externalName": "localhost"},
                },
                {
                    "apiVersion": "apiregistration.k8s.io/v1",
                    "kind": "APIService",
                    "metadata": {"name": f"{version}.external.metrics.k8s.io"},
                    "spec": {
                        "service": {"name": name, "namespace": NAMESPACE, "port": port},
                        "group": "external.metrics.k8s.io",
                        "version": version,
                        "groupPriorityMinimum": 100,
                        "versionPriority": 100,
                        "caBundle": base64.b64encode(authority).decode(),
                    },
                },
            ]
        )
        # "Available" says nothing of TLS: only an answer does
        wait_for(
            "answer of the adapter",
            lambda: self.api.raw(f"/apis/external.metrics.k8s.io/{version}").status_code == 200,
        )

    def _write_certificates(self) -> bytes:
        self.folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost", LOOPBACK, METRICS_NAME, "keda-operator.keda.svc")
        # the names of the files are KEDA's
        authority.cert_pem.write_to_path(str(self.folder / "ca.crt"))
        leaf.private_key_pem.write_to_path(str(self.folder / "tls.key"))
        leaf.cert_chain_pems[0].write_to_path(str(self.folder / "tls.crt"))
        return authority.cert_pem.bytes()

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "KUBECONFIG": str(self.api.kubeconfig),
            "WATCH_NAMESPACE": "",
            "POD_NAMESPACE": NAMESPACE,
            "KEDA_HTTP_DEFAULT_TIMEOUT": "3000",
            # else it looks for the file of a pod's service account
            "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
            "HTTP_PROXY": self.network.http_proxy,
            "NO_PROXY": LOOPBACK,
        }
