"""docs/versions.md is what the versions under test say."""

from __future__ import annotations

from pathlib import Path

from tests.support.versions import document


def test_the_document_is_the_one_that_the_versions_make(repository: Path) -> None:
    written = (repository / "docs" / "versions.md").read_text()
    assert written == document(), "run: python -m tests.support.versions > docs/versions.md"
