"""What a cluster's network does: an address for each pod and Service, and names for the latter.

Pods have addresses of 10.77.0.0/16 for Kubernetes, which takes no loopback ones for endpoints, and are
really in a part of 127.0.0.0/8 that no other run has, as every Linux machine lets them. So each listens
at the port that its manifest says.
"""

from __future__ import annotations

import contextlib
import random
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from order_services.local.ports import LOOPBACK
from tests.kubernetes.api import NO_ANSWER, Api

LOOK_SECONDS: Final = 0.3
CONNECT_TIMEOUT_S: Final = 2.0
_CHUNK: Final = 65_536
_HOST: Final = re.compile(r"(?<=://)([a-z][a-z0-9-]*)(?=[.:/])")
# `GET http://HOST:PORT/PATH HTTP/1.1`, as a client asks a proxy
_PROXIED: Final = re.compile(rb"^([A-Z]+) http://([a-z0-9-]+)[a-z0-9.-]*:(\d+)(/\S*) ", re.ASCII)


# whoever listens here has 127.N.0.0/16
_CLAIM: Final = ("127.{}.255.254", 4000)


def pod_address(number: int) -> str:
    """Return the address of the nth pod, as Kubernetes knows it."""
    return f"10.77.{number // 250}.{number % 250 + 1}"


class Network:
    """Forwards what comes for a Service to one of its ready pods, as kube-proxy does.

    `http_proxy` is an HTTP proxy for programs that run outside and know Services by name.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._endpoints: dict[str, list[tuple[str, int]]] = {}
        self._turn = 0
        self._listening: dict[str, tuple[str, int]] = {}
        claim, self._own = _claimed()
        self._sockets = [claim]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.http_proxy = ""

    def start(self) -> None:
        """Begin to look for endpoints, and open the proxy."""
        host, port = self._listen(LOOPBACK, 0, self._proxy)
        self.http_proxy = f"http://{host}:{port}"
        threading.Thread(target=self._look, name="endpoints", daemon=True).start()

    def stop(self) -> None:
        """Close every port."""
        self._stop.set()
        for each in self._sockets:
            # a thread that waits in accept() is not woken by close() alone
            _close(each)

    def reached_at(self, address: str) -> str:
        """Return where a pod's address is on this machine."""
        return address.replace("10.77.", f"127.{self._own}.", 1)

    def open(self, service: str, port: int) -> tuple[str, int]:
        """Give a Service an address of its own; return where it is reached."""
        with self._lock:
            if service not in self._listening:
                address = f"127.{self._own}.255.{len(self._listening) + 1}"
                self._listening[service] = self._listen(
                    address, port, lambda client: self._forward(client, service)
                )
            return self._listening[service]

    def expose(self, service: str) -> int:
        """Open a port of this machine for a Service, as an Ingress would; return it."""
        return self._listen(LOOPBACK, 0, lambda client: self._forward(client, service))[1]

    def resolved(self, text: str) -> str:
        """Put addresses in the place of Services' names in URLs, as DNS would."""
        with self._lock:
            known = dict(self._listening)
        return _HOST.sub(lambda found: known.get(found[1], (found[1],))[0], text)

    def endpoints(self, service: str) -> list[tuple[str, int]]:
        """Return where a Service's ready pods listen."""
        with self._lock:
            return list(self._endpoints.get(service, []))

    def _look(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                slices = self._api.all("EndpointSlice")
            except NO_ANSWER:
                continue  # an API server that is away changes nothing, as in a cluster
            found: dict[str, list[tuple[str, int]]] = {}
            for each in slices:
                name = each["metadata"]["labels"].get("kubernetes.io/service-name", "")
                [port, *_] = [p["port"] for p in each.get("ports") or [{"port": 0}]]
                ready = [e for e in each.get("endpoints") or [] if e["conditions"].get("ready")]
                found.setdefault(name, []).extend(
                    (self.reached_at(address), port) for e in ready for address in e["addresses"]
                )
            with self._lock:
                self._endpoints = found

    def _listen(
        self, address: str, port: int, serve: Callable[[socket.socket], None]
    ) -> tuple[str, int]:
        server = socket.create_server((address, port))
        self._sockets.append(server)

        def accept() -> None:
            while not self._stop.is_set():
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, name=f"listen-{address}", daemon=True).start()
        host, number = server.getsockname()[:2]
        return str(host), int(number)

    def _connect(self, service: str) -> socket.socket | None:
        pods = self.endpoints(service)
        for _ in pods:
            self._turn += 1
            try:
                return socket.create_connection(
                    pods[self._turn % len(pods)], timeout=CONNECT_TIMEOUT_S
                )
            except OSError:
                continue
        return None

    def _forward(self, client: socket.socket, service: str) -> None:
        with client:
            pod = self._connect(service)
            if pod is not None:
                with pod:
                    _join(client, pod)

    def _proxy(self, client: socket.socket) -> None:
        with client:
            client.settimeout(CONNECT_TIMEOUT_S)
            try:
                head = client.recv(_CHUNK)
            except OSError:
                return
            asked = _PROXIED.match(head)
            pod = self._connect(asked[2].decode()) if asked else None
            if asked is None or pod is None:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            with pod:
                pod.sendall(asked[1] + b" " + asked[4] + b" " + head[asked.end() :])
                _join(client, pod)


def _claimed() -> tuple[socket.socket, int]:
    """Return the N of a network 127.N.0.0/16 that no other run has, and what keeps it so."""
    host, port = _CLAIM
    for number in random.sample(range(64, 128), k=64):
        with contextlib.suppress(OSError):
            return socket.create_server((host.format(number), port)), number
    raise RuntimeError("64 runs have all the networks")


def _close(server: socket.socket) -> None:
    """Close a listening socket, waking whoever waits for its next client."""
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()


def _join(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until one side has ended."""
    with selectors.DefaultSelector() as waiting:
        waiting.register(one, selectors.EVENT_READ, other)
        waiting.register(other, selectors.EVENT_READ, one)
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 60:
            for key, _ in waiting.select(timeout=1):
                source: Any = key.fileobj
                try:
                    data = source.recv(_CHUNK)
                    if not data:
                        return
                    key.data.settimeout(CONNECT_TIMEOUT_S)
                    key.data.sendall(data)
                except OSError:
                    return
                quiet_since = time.monotonic()
