"""The table is whole: every entry that was found has a row, and rows name tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.states.elsewhere import ELSEWHERE
from tests.states.model import Elsewhere
from tests.states.table import STATES, document

# but for C12: that a restart forgets is a decision
FOUND = {
    *(f"W{n}" for n in range(1, 22)),
    *(f"C{n}" for n in range(1, 18) if n != 12),
    *(f"S{n}" for n in range(1, 4)),
}
REPORTS = {str(n) for n in range(20, 32)} - {"29"}  # 29 is about nothing that we have


def test_every_state_has_a_name_of_its_own() -> None:
    names = [*(row.id for row in STATES), *(row.id for row in ELSEWHERE)]
    assert len(names) == len(set(names))


def test_every_entry_that_was_found_has_a_row() -> None:
    told = " ".join([*(row.entry for row in STATES), *(row.entry for row in ELSEWHERE)])
    assert not FOUND - set(re.findall(r"[WCS]\d+", told))
    assert not REPORTS - set(re.findall(r"\b\d+", told))


@pytest.mark.parametrize("row", ELSEWHERE, ids=lambda row: row.id)
def test_what_is_said_to_be_tested_elsewhere_is(row: Elsewhere, repository: Path) -> None:
    file, _, name = row.test.partition("::")
    assert (repository / file).exists(), file
    assert not name or f"def {name}(" in (repository / file).read_text()


def test_the_document_is_the_table(repository: Path) -> None:
    written = (repository / "docs/states.md").read_text()
    assert written == document(), "say: make docs"
