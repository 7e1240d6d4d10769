"""One control plane for all tests of this folder, and the order system on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes import building
from tests.kubernetes.api import Api
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.system import System


@pytest.fixture(scope="session")
def helm() -> Path:
    return building.built("helm")["helm"]


# not for the session: what runs after this folder needs the memory
@pytest.fixture(scope="package")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API server, with the definitions of KEDA's and the Prometheus operator's resources."""
    programs = building.built(*building.CONTROL_PLANE)
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), programs)
    try:
        api = plane.start()
        crds = building.source(building.KEDA) / "config" / "crd" / "bases"
        api.run("apply", "--server-side", "-f", str(crds))
        operator = building.source(building.PROMETHEUS_OPERATOR)
        for kind in ("prometheusrules", "servicemonitors"):
            file = operator / f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
            api.run("apply", "--server-side", "-f", str(file))
        api.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=240s")
        yield api
        api.close()
    finally:
        plane.stop()


@pytest.fixture
def namespace(api: Api) -> Iterator[None]:
    """Nothing in the namespace before a test, nor after."""
    api.empty_namespace()
    yield
    api.empty_namespace()


@pytest.fixture(scope="module")
def system(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The overlay that scales by lag, which is production's with KEDA, its pods running."""
    programs = building.built("keda", "keda-adapter")
    api.empty_namespace()
    system = System(api, tmp_path_factory.mktemp("system"), programs)
    try:
        system.start()
        yield system
    finally:
        system.stop()
