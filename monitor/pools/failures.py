"""How a source fails; apart from `session`, because it needs no driver."""

from __future__ import annotations

from typing import Final

NO_ANSWER: Final = "no answer in time"


class AskError(Exception):
    """A question got no answer; the message says why, without any secret."""
