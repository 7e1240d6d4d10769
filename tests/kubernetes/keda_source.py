"""KEDA's source as it is published, with those of its scalers that are used here.

It has some seventy, each with the SDK of a cloud, a database or a broker: more than half of what there is
to compile. They are left out, as whole files, with their lines in the table of kinds of triggers; nothing
else is changed. A trigger of another kind is refused by KEDA as one that it does not know.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

SCALERS: Final = {"metrics-api": "metrics_api_scaler.go"}
"""By what a trigger calls them: the files, of those in pkg/scalers."""
# what all scalers share; a name that all of them use is in the file of one
SHARED: Final = ("scaler.go", "azure_queue_scaler.go")
SCALERS_FOLDER: Final = Path("pkg/scalers")
TABLE: Final = Path("pkg/scaling/scalers_builder.go")
_CASE: Final = re.compile(r'\tcase "([^"]+)":\n\t\treturn scalers\.New\w+\(.*\)\n')


def copy(source: Path, target: Path) -> None:
    """Copy what is compiled; raises ValueError where the source is another one than was expected."""
    kept = {*SHARED, *SCALERS.values()}
    for file in source.rglob("*"):
        path = file.relative_to(source)
        is_other_scaler = path.parent == SCALERS_FOLDER and path.name not in kept
        if file.is_file() and not path.name.endswith("_test.go") and not is_other_scaler:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            # not its mode: nobody may write to a module that Go has fetched
            shutil.copyfile(file, target / path)
    (target / TABLE).write_text(without_other_scalers((source / TABLE).read_text()))


def without_other_scalers(table: str) -> str:
    """Return KEDA's table of kinds of triggers with ours; raises ValueError where it lacks one of them."""
    if lacking := SCALERS.keys() - set(_CASE.findall(table)):
        raise ValueError(f"KEDA has no scaler {', '.join(sorted(lacking))} in {TABLE}")
    return _CASE.sub(lambda case: case[0] if case[1] in SCALERS else "", table)
