"""Count what a healthy and a broken system alert: `python -m benchmarks.order_alerts`.

Real broker, database, services, monitor, Prometheus and Alertmanager, with all rules. Their times are
divided by `--factor`, so three minutes are an hour and a half of the rules. First nothing is broken, under
load; then each fault is inflicted and repaired. Fails when health alerts anybody, or when a fault is not
told, is told with anything beside it, or does not clear.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.support import say, table
from tests.support.alert_pace import Pace
from tests.support.anger import FAULTS, Fault, check
from tests.support.faults import Scene, scene

MINUTES = 3.0
FACTOR = 30.0
ORDERS_PER_SECOND = 50.0
AS_EXPECTED = "as expected"
MAX_VERDICT = 80


def main() -> None:
    """Run, print both tables, and fail when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of health")
    parser.add_argument("--factor", type=float, default=FACTOR, help="of the rules' times")
    parser.add_argument("--rate", type=float, default=ORDERS_PER_SECOND, help="orders a second")
    parser.add_argument("--only", default="", help="inflict faults whose name matches: a|b")
    parser.add_argument("--healthy-only", action="store_true", help="inflict no faults")
    chosen = parser.parse_args()
    faults = [] if chosen.healthy_only else [f for f in FAULTS if re.search(chosen.only, f.name)]
    if chosen.only and not faults:
        parser.error(f"--only {chosen.only}: there are {', '.join(f.name for f in FAULTS)}")
    say(f"{chosen.minutes:g} minutes of health at {chosen.rate:g} orders/s, then faults")
    with (
        tempfile.TemporaryDirectory(prefix="alerts-") as directory,
        scene(Path(directory), Pace(factor=chosen.factor), chosen.rate) as running,
    ):
        good = _health(running, 60 * chosen.minutes)
        rows = list(_anger(running, faults))
    if rows:
        header = ("fault", "told after s", "cleared after s", "told", "verdict")
        table("Faults of a running system", header, rows)
        good_ones = {row[0] for row in rows if row[-1] == AS_EXPECTED}
        proven = {a.name for fault in FAULTS if fault.title in good_ones for a in fault.fired}
        print(f"\n{len(proven)} alerts fired by {len(good_ones)} of {len(rows)} faults")
    sys.exit(not good or any(row[-1] != AS_EXPECTED for row in rows))


def _health(running: Scene, seconds: float) -> bool:
    before = running.system.traffic.accepted
    time.sleep(seconds)
    accepted = running.system.traffic.accepted - before
    samples = running.alerting.query("count_over_time(ALERTS[1d])")
    rows = [
        (
            labels["alertname"],
            labels.get("consumergroup") or labels.get("service") or labels.get("long_window", ""),
            labels["alertstate"],
            f"{float(value):.0f}",
        )
        for labels, value in ((one["metric"], one["value"][1]) for one in samples)
    ]
    table(
        f"A healthy system: {accepted:,} orders in {seconds:.0f} s",
        ("alert", "of", "state", "seconds"),
        rows or [("none", "", "", "")],
    )
    fired, told = [row for row in rows if row[2] == "firing"], running.alerting.told()
    print(f"\n{len(fired)} fired, {len(told)} told")
    return not fired and not told


def _anger(running: Scene, faults: Sequence[Fault]) -> Iterator[tuple[str, str, str, str, str]]:
    for fault in faults:
        say(fault.title)
        try:
            outcome = check(running, fault)
        except Exception as error:  # noqa: BLE001  # one that cannot be inflicted must not cost the others
            say(f"  {error}")
            yield fault.title, "", "", "", f"{type(error).__name__}: {error}"[:MAX_VERDICT]
            continue
        told = ", ".join(f"{name} {count}" for name, count in sorted(outcome.told.items()))
        times = (f"{outcome.told_s:.0f}", f"{outcome.cleared_s:.0f}")
        say(f"  told: {told}")
        yield fault.title, *times, told, AS_EXPECTED


if __name__ == "__main__":
    main()
