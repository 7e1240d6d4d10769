from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from order_services.cli import cli


@pytest.mark.parametrize(
    "address", ["", "localhost", ":9092", "host:", "host:0", "host:99999", "h:x"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    answer = CliRunner().invoke(cli, ["topics", "list", "--kafka", f"good:1,{address}"])
    assert answer.exit_code == 2
    assert f"'{address}' must be HOST:PORT" in answer.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "nobody"],
        ["topics", "alter", "orders"],
        ["topics", "alter", "orders", "--partitions", "0"],
        ["topics", "create", "--replication-factor", "0"],
        ["unknown"],
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, arguments).exit_code == 2


def test_up_is_listed_with_the_other_commands() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    assert all(name in output for name in ("run", "topics", "up"))


def test_without_the_local_extra_up_says_so_and_the_rest_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "order_services.cli.up", raising=False)
    monkeypatch.setitem(sys.modules, "order_services.local.up", None)
    refused = CliRunner().invoke(cli, ["up", "--rate", "5"])
    assert refused.exit_code == 2
    assert "extra packages of 'local'" in refused.output
    assert CliRunner().invoke(cli, ["topics", "--help"]).exit_code == 0


@pytest.mark.parametrize("url", ["postgresql://u:secret@h:port/n", "mysql://u:secret@h/n", "x", ""])
@pytest.mark.parametrize("command", [["up"], ["refused", "list"], ["migrate"]])
def test_an_address_of_a_database_that_is_none_is_refused_without_its_password(
    command: list[str], url: str
) -> None:
    answer = CliRunner().invoke(cli, [*command, "--database", url])
    assert answer.exit_code == 2
    assert "say postgresql://USER:PASSWORD@HOST:PORT/NAME" in answer.output
    assert "secret" not in answer.output
