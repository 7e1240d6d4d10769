"""Numbers of options and settings: what is none, or infinite, is refused where it is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic_settings import BaseSettings

from monitor.commands import main
from monitor.commands.numbers import Number
from monitor.configuration import read_configuration
from monitor.pools.settings import DatabaseSettings
from monitor.settings import KafkaSettings, MonitorSettings, SettingsError

NO_NUMBERS = ["nan", "-nan", "inf", "-inf", "Infinity", "1e999", "yes", "", "1:30", "0x10"]


def commands(
    group: click.Group = main, *path: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


OPTIONS = [
    (path, option)
    for path, command in commands()
    for option in command.params
    if isinstance(option.type, (click.types.FloatParamType, click.types.IntParamType))
]


@pytest.mark.parametrize(
    ("path", "option"),
    OPTIONS,
    ids=[" ".join((*path, option.opts[-1])) for path, option in OPTIONS],
)
def test_an_option_takes_no_number_that_is_none(
    path: tuple[str, ...], option: click.Parameter
) -> None:
    assert isinstance(option.type, (Number, click.types.IntParamType))
    for value in NO_NUMBERS:
        result = CliRunner().invoke(main, [*path, option.opts[-1], value])
        assert result.exit_code == (3 if path == ("check",) else 2), value
        assert option.opts[-1] in result.output
        assert "the monitor failed" not in result.output
        assert len(result.output.splitlines()) < 5


@pytest.mark.parametrize(
    ("expected", "per_consumer"), [("1e308", "1e-300"), ("1e12", "1e-300"), ("1e12", "1e-6")]
)
def test_rates_of_any_size_are_answered_or_refused(expected: str, per_consumer: str) -> None:
    result = CliRunner().invoke(
        main, ["advise", "--expected", expected, "--per-consumer", per_consumer]
    )
    assert "the monitor failed" not in result.output
    assert result.exit_code == (0 if per_consumer == "1e-6" else 2)


@pytest.mark.parametrize("limit", ["nan", "inf", "9" * 400, f"{'9' * 400}s", "-1"])
@pytest.mark.parametrize("option", ["--lag-over", "--fail-above"])
def test_a_lag_that_is_no_number_is_refused(option: str, limit: str) -> None:
    result = CliRunner().invoke(main, ["lag", option, limit])
    assert result.exit_code == 2
    assert "Invalid value" in result.output


def fields() -> Iterator[tuple[type[BaseSettings], str]]:
    for model in (MonitorSettings, DatabaseSettings, KafkaSettings):
        for name, field in model.model_fields.items():
            kinds = {field.annotation, *getattr(field.annotation, "__args__", ())}
            if {int, float} & {getattr(kind, "__origin__", kind) for kind in kinds}:
                yield model, name


@pytest.mark.parametrize(("model", "name"), [*fields()])
@pytest.mark.parametrize(
    "value", [each for each in NO_NUMBERS if each] + [".inf", ".nan", "on", "[1]"]
)
def test_a_setting_takes_no_number_that_is_none(
    model: type[BaseSettings],
    name: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "settings.yml"
    file.write_text(f"{name}: {value}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=rf"settings.yml:1: {name}: Input should be"):
        read_configuration(file)
    monkeypatch.setenv(f"{model.model_config['env_prefix']}{name}".upper(), value)
    with pytest.raises(SettingsError, match=f"{name.upper()}: Input should be"):
        read_configuration()


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("port: 8080", "port", 8080),
        ("port: '8080'", "port", 8080),
        ("poll_interval: 1.5e1", "poll_interval", 15.0),
        ("member_metrics: off", "member_metrics", False),
        ("member_metrics: no", "member_metrics", False),
        ("member_metrics: True", "member_metrics", True),
        ("cluster: 2024-01-01", "cluster", "2024-01-01"),
        ("cluster: off", "cluster", "off"),
        ("cluster: 007", "cluster", "007"),
        ("stale_after: ~", "stale_after", None),
        ("stale_after:", "stale_after", None),
        ("families: kminion", "families", ("kminion",)),
    ],
)
def test_what_the_file_says_is_read_as_it_is_written(
    line: str, name: str, value: Any, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yml"
    file.write_text(f"{line}\n", encoding="utf-8")
    assert getattr(read_configuration(file).process, name) == value


def test_no_history_can_be_said_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("history_url: off\n", encoding="utf-8")
    said = read_configuration(file).process.history_url
    assert said is not None
    assert said.get_secret_value() == "off"
