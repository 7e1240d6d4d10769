"""Account for every order after at least 200 kills: `python -m benchmarks.order_crash`.

Prints orders, kills, what was lost or duplicated, and the time to recover.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.run import crash_run

LONG_RUN_KILLS = 200
QUICK_RUN_KILLS = 10


def main() -> None:
    """Run, print the count, and fail when the promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUN_KILLS} kills")
    parser.add_argument("--kills", type=int, default=None)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rate", type=float, default=25.0, help="orders a second")
    chosen = parser.parse_args()
    kills = chosen.kills or (QUICK_RUN_KILLS if chosen.quick else LONG_RUN_KILLS)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash-") as directory:
        report = crash_run(
            Path(directory),
            kills=kills,
            seed=chosen.seed,
            rate=chosen.rate,
            pause_s=0.5,
            say=lambda message: print(
                f"{time.monotonic() - started:7.1f} s  {message}", flush=True
            ),
        )
    print(f"\nseed {chosen.seed}, {time.monotonic() - started:.0f} s\n{report}")
    sys.exit(not report.verdict.clean)


if __name__ == "__main__":
    main()
