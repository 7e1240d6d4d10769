"""The API server, as a client sees it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tests.support.waiting import wait_for

MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
TIMEOUT_S: Final = 30.0
KUBECTL_TIMEOUT_S: Final = 280.0

GONE_TIMEOUT_S: Final = 600.0

Resource = dict[str, Any]

# what asking may raise while the API server is away, or has just forgotten what is asked about
NO_ANSWER: Final = (httpx.HTTPError, AssertionError, ValueError)


@dataclass
class Api:
    """One API server. `namespace` is where plain paths lead."""

    url: str
    token: str
    kubectl: Path
    kubeconfig: Path
    namespace: str = "order-system"

    def __post_init__(self) -> None:
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            # its certificate is made at its start, by itself
            verify=False,
            timeout=TIMEOUT_S,
            # nothing of the machine's proxies: all of it is on this machine
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def path(self, kind: str, name: str = "") -> str:
        """Return the path of a resource, or of all of that kind, in the namespace."""
        group, plural = _PLACES[kind]
        base = "/api/v1" if group == "v1" else f"/apis/{group}"
        return f"{base}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def get(self, kind: str, name: str) -> Resource | None:
        """Return a resource, or None when there is none."""
        answer = self._client.get(self.path(kind, name))
        return None if answer.status_code == 404 else _content(answer)

    def all(self, kind: str) -> list[Resource]:
        """Return every resource of the kind."""
        items = _content(self._client.get(self.path(kind)))["items"]
        assert isinstance(items, list)
        return items

    def raw(self, path: str) -> httpx.Response:
        """Ask for any path."""
        return self._client.get(path)

    def post(self, path: str, body: Mapping[str, Any]) -> Resource:
        """Create what `body` is."""
        return _content(self._client.post(path, json=body))

    def patch(self, path: str, body: Mapping[str, Any], form: str = MERGE) -> Resource | None:
        """Change a resource; None when it is gone."""
        answer = self._client.patch(path, content=json.dumps(body), headers={"Content-Type": form})
        return None if answer.status_code == 404 else _content(answer)

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """Delete a resource, if it is still that one."""
        answer = self._client.request("DELETE", path, json=body or {})
        if answer.status_code not in (404, 409):
            _content(answer)

    def empty_namespace(self) -> None:
        """Delete the namespace with all that is in it, and wait until it is gone."""
        path = f"/api/v1/namespaces/{self.namespace}"
        self.delete(path)
        wait_for(
            "namespace that is gone", lambda: self.raw(path).status_code == 404, GONE_TIMEOUT_S
        )

    def apply(self, resources: str | Sequence[Resource]) -> None:
        """Apply by server-side apply; an AssertionError tells unknown fields and warnings, too."""
        text = (
            resources
            if isinstance(resources, str)
            # no aliases: an API server takes JSON
            else "---\n".join(yaml.safe_dump(json.loads(json.dumps(r))) for r in resources)
        )
        done = self._kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=text)
        warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning")]
        assert warnings == []

    def run(self, *arguments: str) -> str:
        """Run kubectl and return what it printed; an AssertionError has what went wrong."""
        return self._kubectl(*arguments).stdout

    def _kubectl(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=KUBECTL_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}:\n{done.stderr[-4000:]}"
        return done


_PLACES: Final = {
    "Pod": ("v1", "pods"),
    "Service": ("v1", "services"),
    "Secret": ("v1", "secrets"),
    "ConfigMap": ("v1", "configmaps"),
    "Deployment": ("apps/v1", "deployments"),
    "Job": ("batch/v1", "jobs"),
    "EndpointSlice": ("discovery.k8s.io/v1", "endpointslices"),
    "HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
    "ScaledObject": ("keda.sh/v1alpha1", "scaledobjects"),
}


def _content(answer: httpx.Response) -> Resource:
    assert answer.is_success, f"{answer.request.method} {answer.url}: {answer.text[:2000]}"
    content = answer.json()
    assert isinstance(content, dict)
    return content
