"""Builds etcd, Kubernetes' control plane, Helm and KEDA from their Go modules, once for each version.

`python -m tests.kubernetes.building` builds all of them, in a quarter of an hour on two idle cores; tests use what is built.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import platformdirs
import pytest

from tests.kubernetes import keda_source
from tests.support.programs import missing, program

CACHE: Final = platformdirs.user_cache_path("kafka-lag-monitor") / "kubernetes"
# Kubernetes and etcd publish modules that can't be built by themselves; this one has what is lacking
OURS: Final = Path(__file__).parent / "programs"
# these are built as their authors do, with the versions that their own go.mod and go.sum name
KEDA: Final = "github.com/kedacore/keda/v2@v2.21.0"
HELM: Final = "helm.sh/helm/v4@v4.3.1"
# only its definitions of resources are used
PROMETHEUS_OPERATOR: Final = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
# where each is built, and from which package
PROGRAMS: Final = {
    "kubectl": ("", "k8s.io/kubernetes/cmd/kubectl"),
    "etcd": ("", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "helm": (HELM, "./cmd/helm"),
    "keda": (KEDA, "./cmd/operator"),
    "keda-adapter": (KEDA, "./cmd/adapter"),
}
# what the modules' go.mod ask for
OLDEST_GO: Final = (1, 26)
# Without the tables for debuggers: they are half of each program, and a fifth of the compiler's time.
FLAGS: Final = ("-trimpath", "-gcflags=all=-dwarf=false", "-ldflags=-s -w")
# The longest is the first to compile Kubernetes' libraries: minutes on two cores that have nothing else to do.
BUILD_TIMEOUT_S: Final = 5400

CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")


def built(*names: str) -> dict[str, Path]:
    """Return the paths of programs; skips the test where one is not built, or fails it where CI=true."""
    paths = _paths(names)
    if lacking := [name for name, path in paths.items() if not path.exists()]:
        missing(
            f"{', '.join(lacking)} not built; build once with: python -m tests.kubernetes.building"
        )
    return paths


def build(*names: str) -> dict[str, Path]:
    """Build what is not there yet, telling of each, and return the paths."""
    paths = _paths(names)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # two runs that build the same would take twice as long
        fcntl.flock(lock, fcntl.LOCK_EX)
        lacking = [name for name, path in paths.items() if not path.exists()]
        for number, name in enumerate(lacking, 1):
            print(f"building {name}, {number} of {len(lacking)}, once", flush=True)
            _build(name, paths[name])
    return paths


def _paths(names: Iterable[str]) -> dict[str, Path]:
    return {name: CACHE / f"{name}-{_version(*PROGRAMS[name])}" for name in names}


@functools.cache
def source(module: str) -> Path:
    """Return the folder of a module's source, `PATH@VERSION`."""
    return Path(json.loads(_go("mod", "download", "-json", module, folder=OURS))["Dir"])


def _version(module: str, package: str) -> str:
    """Return a name that is another one whenever the program would be."""
    told = hashlib.sha256(" ".join((module, package, *FLAGS)).encode())
    if not module:
        for name in ("go.mod", "go.sum"):
            told.update((OURS / name).read_bytes())
    if module == KEDA:
        told.update(" ".join((*keda_source.SHARED, *keda_source.SCALERS.values())).encode())
    return told.hexdigest()[:16]


def _build(name: str, path: Path) -> None:
    module, package = PROGRAMS[name]
    began, worked = time.monotonic(), _cpu_seconds()
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with _folder(module) as folder:
            _go("build", *FLAGS, "-o", str(unfinished), package, folder=folder)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    took, worked = time.monotonic() - began, _cpu_seconds() - worked
    print(f"built {name} in {took:.0f} s, {worked:.0f} s of CPU", flush=True)


def _cpu_seconds() -> float:
    """Return what all programs that were started from here, and have ended, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def _folder(module: str) -> Iterator[Path]:
    """Where to build what is in a module."""
    if module != KEDA:
        yield source(module) if module else OURS
        return
    with tempfile.TemporaryDirectory(prefix="keda-") as folder:
        keda_source.copy(source(KEDA), Path(folder))
        yield Path(folder)


@functools.cache
def _find_go() -> str:
    """Return Go; skip the test where it is missing or too old, or fail it where CI=true."""
    go = program("go", "golang-go")
    # here, as Go may fetch the version that the module asks for
    told = subprocess.run(
        [go, "env", "GOVERSION"], cwd=OURS, capture_output=True, text=True, check=False
    )
    found = re.match(r"go(\d+)\.(\d+)", told.stdout)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_GO:
        wanted = ".".join(map(str, OLDEST_GO))
        missing(f"{told.stdout.strip() or go} is too old: install Go {wanted} from go.dev/dl")
    return go


def _go(*arguments: str, folder: Path) -> str:
    # whoever works at the machine comes first; Ctrl-C reaches Go as well, and it stops
    done = subprocess.run(
        ["nice", "-n", "15", _find_go(), *arguments],
        cwd=folder,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"go {' '.join(arguments)}:\n{done.stderr[-4000:]}"
    return done.stdout


def main() -> None:
    """Build every program."""
    try:
        paths = build(*PROGRAMS)
    except KeyboardInterrupt:
        sys.exit(130)
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        sys.exit(str(error))
    for path in paths.values():
        print(path)


if __name__ == "__main__":
    main()
