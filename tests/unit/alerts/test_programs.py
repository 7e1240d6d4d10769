"""A program that is missing is a skip at home and a failure on CI."""

from __future__ import annotations

import pytest

from tests.support.programs import program


def test_a_program_that_is_there_is_found() -> None:
    assert program("sh", "dash").endswith("/sh")


def test_at_home_a_missing_program_is_a_skip_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install nothing"):
        program("no-such-program", "nothing")


def test_on_ci_a_missing_program_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install nothing"):
        program("no-such-program", "nothing")
