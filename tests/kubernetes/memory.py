"""What the pods' processes use of memory, against what their manifests ask for and allow."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MIB: Final = 1024 * 1024
# what our manifests use, of Kubernetes' units
_UNITS: Final = {"Mi": MIB, "Gi": 1024 * MIB}


@dataclass
class Memory:
    """The most that one pod of an app has held so far, what it asks for, and its limit; bytes."""

    requested: int
    limit: int
    most: int = 0

    @classmethod
    def of(cls, container: Mapping[str, Any]) -> Memory:
        """Return what a container's resources say."""
        resources = container["resources"]
        return cls(
            quantity(resources["requests"]["memory"]), quantity(resources["limits"]["memory"])
        )

    def see(self, pid: int) -> None:
        """Take in how much a process has held at most; nothing when it has ended."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.most = max(self.most, 1024 * int(line.split()[1]))

    def __str__(self) -> str:
        return f"{self.most // MIB} of {self.requested // MIB} MiB, limit {self.limit // MIB}"


def quantity(text: str) -> int:
    """Return a quantity of memory in bytes."""
    return int(text[:-2]) * _UNITS[text[-2:]]
