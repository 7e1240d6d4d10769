from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[3] / "docs" / "unmet-requests.md"
# a link to a file of tests, and the tests that are named after it
CITED = re.compile(r"\[(\w+)\]\(([^)]+\.py)\)((?:,?\s+`test_\w+`)+)")


def test_every_test_that_an_answer_rests_on_exists() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    found = CITED.findall(text)
    assert len(found) == text.count(".py)"), "a file is linked without the name of a test"
    for name, link, tests in found:
        path = (DOCUMENT.parent / link).resolve()
        assert path.stem == name
        source = path.read_text(encoding="utf-8")
        for test in re.findall(r"test_\w+", tests):
            assert f"def {test}(" in source, f"{name} has no {test}"


def test_each_of_the_fifteen_has_a_test_or_says_not_yet() -> None:
    rows = re.findall(r"^\| (\d+) \|.*$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [str(number) for number in range(1, 16)]
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if re.match(r"\| \d+ \|", line):
            assert "`test_" in line or "not yet" in line, line
