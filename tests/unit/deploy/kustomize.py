"""kustomizations as `kubectl kustomize` builds them, as far as ours go, without it.

tests/integration/deploy/test_kustomize.py holds this to the real one.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.unit.deploy.compose import REPOSITORY

KUBERNETES: Final = REPOSITORY / "deploy" / "kubernetes"
OVERLAYS: Final = ("development", "production", "keda")
_CLUSTER_WIDE: Final = frozenset({"Namespace"})
_KNOWN: Final = frozenset(
    {
        "apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator",
        "secretGenerator", "images", "replicas", "patches",
    }
)  # fmt: skip
# lists whose entries are one thing when this key is the same
# (`patchMergeKey` in Kubernetes' API); all other lists are replaced
_MERGE_KEYS: Final = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
}

Resource = dict[str, Any]


@cache
def build(overlay: str) -> tuple[Resource, ...]:
    """Return what an overlay is; generated ConfigMaps and Secrets without a hash in their names.

    Callers share what they get: it is for reading only.
    """
    return tuple(_build(KUBERNETES / "overlays" / overlay, []))


def find(overlay: str, kind: str, name: str) -> Resource:
    """Return the one resource of that kind and name."""
    found = [r for r in build(overlay) if (r["kind"], r["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{overlay} has {len(found)} {kind} {name}"
    return found[0]


def of_kind(overlay: str, kind: str) -> list[Resource]:
    """Return all resources of that kind."""
    return [resource for resource in build(overlay) if resource["kind"] == kind]


def pod_specs(overlay: str) -> dict[str, Resource]:
    """Return the spec of each pod, by the name of what makes it."""
    found = {}
    for resource in build(overlay):
        spec = resource.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None and "spec" in template:
            found[resource["metadata"]["name"]] = template["spec"]
    return found


def _build(folder: Path, resources: list[Resource]) -> list[Resource]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = kustomization.keys() - _KNOWN
    assert not unknown, f"{folder}: {unknown} is not understood here"
    for entry in kustomization.get("resources", []):
        path = folder / entry
        if path.is_dir():
            resources += _build(path, [])
        else:
            resources += yaml.safe_load_all(path.read_text())
    for entry in kustomization.get("components", []):
        resources = _build(folder / entry, resources)
    _generate(kustomization, folder, resources)
    for patch in kustomization.get("patches", []):
        resources = _patched(resources, patch, folder)
    for image in kustomization.get("images", []):
        _set_image(resources, image)
    for entry in kustomization.get("replicas", []):
        named = [
            r
            for r in resources
            if r["kind"] in ("Deployment", "StatefulSet") and r["metadata"]["name"] == entry["name"]
        ]
        assert len(named) == 1, f"{folder}: replicas of {entry['name']}"
        named[0]["spec"]["replicas"] = entry["count"]
    if namespace := kustomization.get("namespace"):
        for resource in resources:
            if resource["kind"] not in _CLUSTER_WIDE:
                resource["metadata"]["namespace"] = namespace
    return resources


def _generate(kustomization: Resource, folder: Path, resources: list[Resource]) -> None:
    for kind, field, store in (
        ("ConfigMap", "configMapGenerator", "data"),
        ("Secret", "secretGenerator", "stringData"),
    ):
        for generator in kustomization.get(field, []):
            values = dict(literal.split("=", 1) for literal in generator.get("literals", []))
            values |= {Path(f).name: (folder / f).read_text() for f in generator.get("files", [])}
            if generator.get("behavior") == "merge":
                [target] = [
                    r
                    for r in resources
                    if (r["kind"], r["metadata"]["name"]) == (kind, generator["name"])
                ]
                target[store].update(values)
            else:
                resources.append(
                    {
                        "apiVersion": "v1",
                        "kind": kind,
                        "metadata": {"name": generator["name"]},
                        store: values,
                    }
                )


def _patched(resources: list[Resource], entry: Resource, folder: Path) -> list[Resource]:
    text = entry["patch"] if "patch" in entry else (folder / entry["path"]).read_text()
    patch = yaml.safe_load(text)
    target = entry.get("target") or {
        "kind": patch["kind"],
        "name": patch["metadata"]["name"],
    }
    chosen = [resource for resource in resources if _is_chosen(resource, target)]
    assert chosen, f"{folder}: a patch of {target} finds nothing"
    if patch.get("$patch") == "delete":
        return [resource for resource in resources if not any(resource is c for c in chosen)]
    body = {key: value for key, value in patch.items() if key in ("spec", "data")}
    return [
        _merged(resource, body) if any(resource is c for c in chosen) else resource
        for resource in resources
    ]


def _is_chosen(resource: Resource, target: Resource) -> bool:
    metadata = resource["metadata"]
    label, _, value = target.get("labelSelector", "").partition("=")
    return (
        target.get("kind", resource["kind"]) == resource["kind"]
        and target.get("name", metadata["name"]) == metadata["name"]
        and (not label or metadata.get("labels", {}).get(label) == value)
    )


def _merged(base: Any, patch: Any, key: str = "") -> Any:
    if isinstance(base, dict) and isinstance(patch, dict):
        result = dict(base)
        for name, value in patch.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = _merged(base.get(name), value, name)
        return result
    if isinstance(base, list) and isinstance(patch, list) and key in _MERGE_KEYS:
        merge_key = _MERGE_KEYS[key]
        added = {entry[merge_key]: entry for entry in patch}
        kept = [_merged(entry, added.pop(entry[merge_key], entry)) for entry in base]
        return [*copy.deepcopy(list(added.values())), *kept]
    return copy.deepcopy(patch)


def _set_image(resources: list[Resource], image: Resource) -> None:
    for resource in resources:
        spec = resource.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
        for container in template.get("spec", {}).get("containers", []):
            if container["image"].split(":")[0] == image["name"]:
                container["image"] = f"{image['name']}:{image['newTag']}"
