"""What is wrong with a source file."""

from __future__ import annotations


class DefinitionError(ValueError):
    """A source says something that no dashboard can be built from; names the place and the key."""
