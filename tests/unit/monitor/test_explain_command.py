"""`monitor explain`: one cause, in lines that a terminal has room for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from monitor.commands import main
from tests.support.lagging import GROUP, ModelShop


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModelShop:
    """A shop whose only consumer was gone before anybody looked; time passes while the command sleeps."""
    shop = ModelShop(members=1).run(2)
    shop.members(0)
    shop.run(2)
    monkeypatch.setattr("monitor.commands.watching.KafkaWire", lambda *_: shop.cluster)
    monkeypatch.setattr("monitor.commands.explain.sleep", lambda _: None)
    # three looks: the last one is after the end
    moments = iter((0.0, 1.0, 2.0, 99.0))
    monkeypatch.setattr("monitor.commands.explain.monotonic", lambda: next(moments, 99.0))
    return shop


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["explain", *arguments], env={"MONITOR_CONFIG": None})


@pytest.mark.usefixtures("shop")
def test_it_says_what_is_so_what_else_it_may_be_and_what_to_do() -> None:
    done = run(GROUP)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("g: nobody reads\n")
    assert "It may as well be" in done.stdout
    assert "What to do, the most reversible first:" in done.stdout
    assert "would tell: MONITOR_DATABASE_URL" in done.stdout
    too_long = [
        line for line in done.stdout.splitlines() if len(line) > 80 and "kafka-" not in line
    ]
    assert too_long == []


@pytest.mark.usefixtures("shop")
def test_as_json_it_is_what_the_api_answers() -> None:
    told = json.loads(run(GROUP, "--output", "json").stdout)
    assert told["cause"] == "never_active"
    assert [step["action"] for step in told["next_steps"]]


@pytest.mark.usefixtures("shop")
def test_a_group_that_is_not_there_is_refused() -> None:
    done = run("none")
    assert done.exit_code == 2
    assert "the cluster has no group 'none'" in done.stderr
