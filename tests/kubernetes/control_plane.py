"""etcd, kube-apiserver and kube-controller-manager as processes of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from order_services.local.ports import LOOPBACK, free_port
from tests.kubernetes.api import Api
from tests.kubernetes.processes import Processes, answers

TOKEN: Final = "of-the-tests"
FRONT_PROXY: Final = "front-proxy-client"
# any address that is not a loopback one: endpoints of the Service `kubernetes`, which nobody uses
ADVERTISED: Final = "192.0.2.10"


class ControlPlane:
    """One control plane. There is no node: tests/kubernetes/kubelet.py starts what pods say."""

    def __init__(self, folder: Path, programs: dict[str, Path]) -> None:
        self.folder = folder
        self.programs = programs
        self._processes = Processes(folder, programs)
        self.kubeconfig = folder / "kubeconfig"
        self._etcd, self._peers, self._secure = free_port(), free_port(), free_port()
        self.url = f"https://{LOOPBACK}:{self._secure}"

    def start(self) -> Api:
        """Start all three and return the API server."""
        self._write_certificates()
        self._write_kubeconfig()
        etcd = f"http://{LOOPBACK}:{self._etcd}"
        peers = f"http://{LOOPBACK}:{self._peers}"
        self._processes.run(
            "etcd",
            *("--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"default={peers}"),
            ready=lambda: answers(f"{etcd}/health"),
        )
        self._processes.run(
            "kube-apiserver",
            *self._apiserver_flags(etcd),
            ready=lambda: answers(f"{self.url}/readyz", TOKEN),
        )
        self._processes.run(
            "kube-controller-manager",
            *(
                f"--{name}={self.kubeconfig}"
                for name in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
            ),
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            "--secure-port=0",
            "--leader-elect=false",
            "--horizontal-pod-autoscaler-sync-period=1s",
            # the one node never reports: nobody is to decide that it is dead
            "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller,-node-ipam-controller",
        )
        return Api(self.url, TOKEN, self.programs["kubectl"], self.kubeconfig)

    def stop(self) -> None:
        """Stop all three."""
        self._processes.stop()

    def _apiserver_flags(self, etcd: str) -> list[str]:
        folder = self.folder
        return [
            f"--etcd-servers={etcd}",
            f"--secure-port={self._secure}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={ADVERTISED}",
            f"--cert-dir={folder / 'apiserver'}",
            f"--service-account-key-file={folder / 'sa.pub'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            # nobody would make the token's volume
            "--disable-admission-plugins=ServiceAccount",
            f"--client-ca-file={folder / 'front-proxy-ca.crt'}",
            # whom the adapter of KEDA believes that it is the API server
            f"--requestheader-client-ca-file={folder / 'front-proxy-ca.crt'}",
            f"--requestheader-allowed-names={FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={folder / 'front-proxy.crt'}",
            f"--proxy-client-key-file={folder / 'front-proxy.key'}",
        ]

    def _write_certificates(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "front-proxy-ca.crt"))
        leaf = authority.issue_cert(FRONT_PROXY, common_name=FRONT_PROXY)
        leaf.private_key_pem.write_to_path(str(self.folder / "front-proxy.key"))
        leaf.cert_chain_pems[0].write_to_path(str(self.folder / "front-proxy.crt"))
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "sa.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        (self.folder / "sa.pub").write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        (self.folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")

    def _write_kubeconfig(self) -> None:
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(content))
