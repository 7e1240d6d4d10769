from __future__ import annotations

import re
from pathlib import Path

import monitor

WIRE = Path("kafka", "wire")


def test_only_the_wire_knows_the_client_library() -> None:
    root = Path(monitor.__file__).parent
    users = {
        path.relative_to(root).parent
        for path in root.rglob("*.py")
        if re.search(r"^\s*(from|import) kafka\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert users == {WIRE}
