"""The kustomizations as kubectl builds them: the fast tests build them without."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.kubernetes import building
from tests.unit.deploy import kustomize

# what kustomize puts behind the name of a ConfigMap or Secret that it generates
HASHED = re.compile(r'"([a-z-]+)-[a-z0-9]{10}"')


def kubectl() -> str:
    """Return kubectl: the one that is built for tests/kubernetes, as Debian's is of 2020."""
    return shutil.which("kubectl") or str(building.built("kubectl")["kubectl"])


@pytest.mark.parametrize("overlay", kustomize.OVERLAYS)
def test_the_builder_of_the_fast_tests_builds_what_kubectl_does(overlay: str) -> None:
    done = subprocess.run(
        [kubectl(), "kustomize", str(kustomize.KUBERNETES / "overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours: dict[Any, Any] = {
        (each["kind"], each["metadata"]["name"]): json.loads(json.dumps(each))
        for each in kustomize.build(overlay)
    }
    generated = {name for kind, name in ours if kind in ("ConfigMap", "Secret")}
    built = {}
    for loaded in yaml.safe_load_all(done.stdout):
        text = HASHED.sub(
            lambda found: f'"{found[1]}"' if found[1] in generated else found[0], json.dumps(loaded)
        )
        resource = json.loads(text)
        if resource["kind"] == "Secret":
            del resource["type"]
            resource["stringData"] = {
                key: base64.b64decode(value).decode() for key, value in resource.pop("data").items()
            }
        built[resource["kind"], resource["metadata"]["name"]] = resource
    assert ours == built
