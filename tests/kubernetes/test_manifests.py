"""Every overlay and the chart, as a real API server judges them; no pod is started here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.kubernetes import CHART
from tests.kubernetes.api import Api
from tests.support.waiting import wait_for
from tests.unit.deploy import kustomize
from tests.unit.deploy.compose import REPOSITORY
from tests.unit.deploy.test_chart import SCHEMA

# the first test builds the programs where they are not yet
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(6000)]

SWITCHES = [
    f"{name}.enabled=true" for name, each in SCHEMA["properties"].items() if "enabled" in each.get("properties", {})
]  # fmt: skip


def wait_for_pods(api: Api) -> None:
    """Wait until every Deployment has pods; the namespace lets in only those without rights that they don't need."""
    for deployment in api.all("Deployment"):
        name = deployment["metadata"]["name"]

        def is_made(name: str = name) -> bool:
            found = api.get("Deployment", name)
            assert found is not None
            conditions = found["status"].get("conditions", [])
            assert [c for c in conditions if c["type"] == "ReplicaFailure"] == []
            return bool(found["status"].get("replicas", 0) >= 1)

        wait_for(f"pods of {name}", is_made, 240)


@pytest.mark.parametrize("overlay", kustomize.OVERLAYS)
def test_the_api_server_takes_an_overlay_and_makes_its_pods(
    api: Api, namespace: None, overlay: str
) -> None:
    built = api.run("kustomize", str(kustomize.KUBERNETES / "overlays" / overlay))
    api.apply(built)
    api.apply(built)  # a second time changes nothing and is refused nothing
    wait_for_pods(api)


def test_the_api_server_refuses_a_pod_with_rights(api: Api, namespace: None) -> None:
    for resource in kustomize.build("production"):
        if (resource["kind"], resource["metadata"]["name"]) == ("Namespace", api.namespace):
            api.apply([resource])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": api.namespace},
    }
    pod["spec"] = {"containers": [{"name": "any", "image": "any"}]}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        api.apply([pod])


@pytest.mark.parametrize("switches", [[], SWITCHES], ids=["defaults", "everything"])
def test_the_api_server_takes_the_chart(
    api: Api, namespace: None, helm: Path, switches: list[str]
) -> None:
    api.apply([kustomize.find("production", "Namespace", api.namespace)])
    rendered = _helm(
        helm,
        "template",
        "lag",
        str(REPOSITORY / CHART),
        "--namespace",
        api.namespace,
        switches=switches,
    )
    assert rendered.returncode == 0, rendered.stderr
    # Helm gives the namespace when it applies, not when it renders
    resources = [each for each in yaml.safe_load_all(rendered.stdout) if each]
    for each in resources:
        each["metadata"]["namespace"] = api.namespace
    api.apply(resources)
    wait_for_pods(api)
    kinds = {each["kind"] for each in resources}
    assert {"Deployment", "Service", "ConfigMap", "ServiceAccount"} <= kinds
    wanted = {"ServiceMonitor", "PrometheusRule", "Ingress", "NetworkPolicy", "PodDisruptionBudget"}
    assert kinds & wanted == (wanted if switches else set())


def test_helm_refuses_a_misspelt_value(helm: Path) -> None:
    answer = _helm(
        helm,
        "template",
        "lag",
        str(REPOSITORY / CHART),
        switches=["serviceMonitor.enable=true"],
    )
    assert answer.returncode != 0
    assert "serviceMonitor" in answer.stderr


def test_a_claim_keeps_the_history_of_one_replica(helm: Path) -> None:
    claim = ["history.existingClaim=mine"]
    one = _helm(helm, "template", "lag", str(REPOSITORY / CHART), switches=claim)
    assert one.returncode == 0, one.stderr
    deployment = next(
        each for each in yaml.safe_load_all(one.stdout) if each["kind"] == "Deployment"
    )
    # two pods at a time would not both get the volume, nor the history
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "history", "persistentVolumeClaim": {"claimName": "mine"}} in volumes
    two = _helm(
        helm, "template", "lag", str(REPOSITORY / CHART), switches=[*claim, "replicaCount=2"]
    )
    assert two.returncode != 0
    assert "one replica" in two.stderr


def test_helm_finds_nothing_to_say_about_the_chart(helm: Path) -> None:
    answer = _helm(helm, "lint", "--strict", str(REPOSITORY / CHART))
    assert answer.returncode == 0, answer.stdout + answer.stderr


def _helm(
    helm: Path, *arguments: str, switches: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    given = [word for switch in switches or [] for word in ("--set", switch)]
    return subprocess.run(
        [str(helm), *arguments, *given],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
