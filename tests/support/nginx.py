"""The real nginx with the configuration that compose mounts, in front of servers of a test."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from order_services.local.ports import LOOPBACK, free_port
from order_services.local.process import ManagedProcess
from tests.support.programs import program
from tests.support.waiting import wait_for
from tests.unit.deploy.compose import REPOSITORY

CONFIGURATION: Final = REPOSITORY / "deploy" / "nginx" / "nginx.conf"
UPSTREAMS: Final = REPOSITORY / "deploy" / "nginx" / "upstream"
BALANCING: Final = ("round-robin", "least-conn", "ip-hash")
# who answered, for the test to see
SERVED_BY: Final = "x-served-by"


@dataclass(frozen=True, slots=True)
class Balancer:
    """Where a running nginx listens."""

    port: int
    analytics_port: int

    @property
    def url(self) -> str:
        """What stands for the gateway's address."""
        return f"http://{LOOPBACK}:{self.port}"


def adapted(text: str, replicas: Mapping[str, Sequence[int]]) -> str:
    """Put a test's ports in the place of names that only Docker's DNS knows.

    `replicas` has the ports by the name and port that stand in the file, as `api-gateway:4000`.
    """
    for name, ports in replicas.items():
        found = re.search(rf"^ *server {re.escape(name)} resolve (.*);$", text, re.MULTILINE)
        if found is not None:
            servers = "".join(f"server {LOOPBACK}:{port} {found[1]};" for port in ports)
            text = text.replace(found[0], servers)
    assert " resolve " not in text, "replicas that this test knows nothing of"
    return text


@contextmanager
def balancer(
    folder: Path,
    gateways: Sequence[int],
    *,
    analytics: Sequence[int] = (1,),
    balancing: str = "least-conn",
) -> Iterator[Balancer]:
    """Run nginx in front of these ports inside the block."""
    nginx = program("nginx", "nginx-light")
    running = Balancer(free_port(), free_port())
    replicas = {"api-gateway:4000": gateways, "analytics-service:4004": analytics}
    upstream = folder / "upstream.conf"
    upstream.write_text(adapted((UPSTREAMS / f"{balancing}.conf").read_text(), replicas))
    text = adapted(CONFIGURATION.read_text(), replicas)
    for written, ours in (
        ("listen 4000;", f"listen {LOOPBACK}:{running.port};"),
        ("listen 4004;", f"listen {LOOPBACK}:{running.analytics_port};"),
        ("include /etc/nginx/upstream.conf;", f"include {upstream};"),
        # one process counts the connections of all
        ("worker_processes auto;", "worker_processes 1;"),
        (
            "proxy_pass http://api_gateway;",
            f"proxy_pass http://api_gateway; add_header {SERVED_BY} $upstream_addr always;",
        ),
    ):
        assert text.count(written) == 1, written
        text = text.replace(written, ours)
    configuration = folder / "nginx.conf"
    configuration.write_text(text.replace("/run/nginx/", f"{folder}/"))
    # as root, its workers would be somebody else, who can't pass through this test's folder
    directives = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
    command = [nginx, "-c", str(configuration), "-p", str(folder), "-g", directives]
    checked = subprocess.run(
        [*command, "-t"], capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    process = ManagedProcess(name="nginx", command=command, log_file=folder / "nginx.log")
    process.start()
    try:
        wait_for("nginx", lambda: _answers(running), timeout_s=60)
        yield running
        assert process.running, process.log_tail()
    finally:
        process.stop(timeout_s=10)


def _answers(running: Balancer) -> bool:
    try:
        return httpx.get(f"{running.url}/nginx-health").text == "ok\n"
    except httpx.HTTPError:
        return False
