"""Keeps a fault in the analysis of one group, topic or partition from costing any other.

A step that raises has no result for its subject in this poll. It is named (a metric shows it), its
cause is logged at the first time and not at each poll, and what the step remembered of the subject
is dropped, so that the next poll starts anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

import structlog

from monitor.every import cause_of

if TYPE_CHECKING:
    from collections.abc import Callable

Failure: TypeAlias = tuple[str, str]
"""The step that failed, and the group, topic or partition on which it did."""

# One fault in the program may hit every group of a large cluster.
MAX_LOGGED = 100

Result = TypeVar("Result")
Given = ParamSpec("Given")

_log = structlog.get_logger(__name__)


class Guard:
    """Runs steps; `failures` has those that failed in this poll and why."""

    def __init__(self) -> None:
        self.failures: dict[Failure, str] = {}
        self._last: dict[Failure, str] = {}

    def start_poll(self) -> None:
        """Begin a poll: what failed in the last one is tried again."""
        self._last, self.failures = self.failures, {}

    def attempt(
        self,
        step: str,
        subject: str,
        do: Callable[Given, Result],
        *args: Given.args,
        **kwargs: Given.kwargs,
    ) -> Result | None:
        """Return what `do` returns, None when it raises."""
        try:
            return do(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must cost this subject only
            self.failed(step, subject, error)
            return None

    def runs(
        self,
        step: str,
        subject: str,
        do: Callable[Given, None],
        *args: Given.args,
        **kwargs: Given.kwargs,
    ) -> bool:
        """Call `do`, and say whether it did not raise."""
        try:
            do(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # as above
            self.failed(step, subject, error)
            return False
        return True

    def failed(self, step: str, subject: str, error: Exception) -> None:
        """Note that a step raised, and log its cause unless it did in the last poll too."""
        cause = cause_of(error)
        is_known = (step, subject) in self._last or (step, subject) in self.failures
        self.failures[step, subject] = cause
        if not is_known and len(self.failures) <= MAX_LOGGED:
            _log.error("a part failed", step=step, subject=subject, cause=cause, exc_info=error)
