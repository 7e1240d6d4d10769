from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.words import columns, duration, plural, rate, safe, shorten


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (720, "12 min"),
        (19_080, "5.3 h"),
        (1_814_400, "21 d"),
    ],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("payments", "payments"),
        ("team:svc ä", "team:svc ä"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("a\x9b2Jb", r"a\x9b2Jb"),  # a C1 control: CSI in one byte
        ("a\u202eb", r"a\u202eb"),  # turns what follows around
        ("a\u2028b", r"a\u2028b"),
        ("a\\b", "a\\b"),
        ("", "(empty id)"),
    ],
)
def test_a_name_is_safe_on_a_terminal(name: str, shown: str) -> None:
    assert safe(name) == shown


@given(st.text())
def test_no_name_controls_a_terminal_or_breaks_a_line(name: str) -> None:
    shown = safe(name)
    assert shown
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)


def test_names_are_cut_in_the_middle() -> None:
    assert shorten("consumer-1-0a1b2c", 9) == "cons…1b2c"
    assert shorten("short", 9) == "short"


def test_columns_align_numbers_to_the_right() -> None:
    assert columns([["A", "N"], ["bc", 12], ["d", None]], left={0}) == "A    N\nbc  12\nd    -\n"


def test_one_is_not_several() -> None:
    assert plural(1, "partition") == "1 partition"
    assert plural(2, "partition") == "2 partitions"


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(0.0, "0"), (0.04, "0.04"), (0.5, "0.5"), (2.0, "2"), (99.96, "100"), (12_345.6, "12,346")],
)
def test_a_slow_rate_is_not_none_and_a_fast_one_no_power_of_ten(
    per_second: float, text: str
) -> None:
    assert rate(per_second) == text
