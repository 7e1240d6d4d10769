"""The monitor, whose own patience is shortened as `alert_pace` shortens that of the rules.

`python -m tests.support.paced_monitor serve` is `python -m monitor serve`, but for how long a group may be
silent: nobody can wait ten minutes for each stuck consumer of a test.
"""

from __future__ import annotations

import importlib
import runpy
from typing import Final

PATIENCE: Final = {
    "STUCK_SECONDS": 20.0,
    "SHORTEST_PATIENCE_SECONDS": 10.0,
    "UNKNOWN_RHYTHM_SECONDS": 30.0,
}


def main() -> None:
    """Run the monitor's command line."""
    activity = vars(importlib.import_module("monitor.analysis.activity"))
    missing = PATIENCE.keys() - activity.keys()
    assert not missing, f"monitor.analysis.activity has no {missing} any more"
    activity.update(PATIENCE)
    runpy.run_module("monitor", run_name="__main__")


if __name__ == "__main__":
    main()
