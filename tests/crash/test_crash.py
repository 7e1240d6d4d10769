"""The promise, counted: short runs of what `make bench` runs long."""

from pathlib import Path

import pytest

from tests.crash.chaos import AT_THE_WORST_MOMENT
from tests.crash.run import crash_run
from tests.crash.sabotage import SABOTAGES, sabotaged_command

SABOTAGE_KILLS = 4  # each of two services, before and after its transaction


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [8, pytest.param(40, marks=pytest.mark.heavy)])
def test_no_accepted_order_is_lost_or_done_twice_through_kills(tmp_path: Path, kills: int) -> None:
    report = crash_run(tmp_path, kills=kills, seed=11, pause_s=0.4, say=print)
    print(report)
    assert report.verdict.clean, report
    assert report.kills >= kills
    assert report.accepted > 100
    assert report.verdict.fulfilled > 0
    assert report.verdict.cancelled > 0


@pytest.mark.timeout(600)
@pytest.mark.heavy
@pytest.mark.parametrize("how", SABOTAGES)
def test_the_count_notices_a_guarantee_that_is_switched_off(tmp_path: Path, how: str) -> None:
    report = crash_run(
        tmp_path,
        kills=SABOTAGE_KILLS,
        seed=5,
        pause_s=0.3,
        mishaps=AT_THE_WORST_MOMENT,
        targets=("analytics", "payment"),
        command=sabotaged_command(how),
        quiet_timeout_s=30,
        say=print,
    )
    print(report)
    found = report.verdict
    if how == "without-event-keys":
        assert found.duplicated, report
    else:
        assert found.lost or found.unfinished, report
