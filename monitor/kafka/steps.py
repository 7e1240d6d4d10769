"""The steps of a poll: a fault of our own in one of them costs what that step would have told.

To whoever reads the snapshot it is as if no broker had answered the step's questions: what was seen
before is kept and marked silent, and nothing is concluded from what was not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import ParamSpec, TypeVar

from monitor.analysis.guard import Guard

Result = TypeVar("Result")
Given = ParamSpec("Given")


class Step(StrEnum):
    """What a poll does, by the name that the metric of our own faults has for it."""

    RECOVERED = "recovered_brokers"
    METADATA = "metadata"
    LOG_STARTS = "log_starts"
    GROUPS = "groups"  # who is there, and who speaks for each
    COMMITS = "commits"
    MEMBERS = "members"
    GROUP = "group"  # one group, put together
    ABSENCE = "absence"  # whether a group that was not seen does not exist
    LOG_ENDS = "log_ends"
    STABLE_OFFSETS = "stable_offsets"
    SAME_LOGS = "same_logs"  # whether starts and ends are of the same logs
    TOPIC_CONFIGS = "topic_configs"
    LOG_SIZES = "log_sizes"
    NEWER_METADATA = "newer_metadata"  # whether it is to be read soon
    CAUSES = "causes"  # in words, why brokers did not answer
    REQUESTS = "requests"  # how many were sent
    ANSWER = "answer"  # one broker's answer to one question


class Steps:
    """Runs the steps of a poll.

    `fault` is the first that was raised in this poll.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.fault: Exception | None = None

    def start_poll(self) -> None:
        """Begin a poll: what failed in the last one is tried again."""
        self.guard.start_poll()
        self.fault = None

    def attempt(
        self,
        step: Step,
        subject: str,
        do: Callable[Given, Result],
        *args: Given.args,
        **kwargs: Given.kwargs,
    ) -> Result | None:
        """Return what `do` returns, None when it raises."""
        try:
            return do(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must cost this step only
            self.failed(step, subject, error)
            return None

    def runs(
        self,
        step: Step,
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

    def failed(self, step: Step, subject: str, error: Exception) -> None:
        """Note that a step raised; its cause is logged at the first time."""
        self.fault = self.fault or error
        self.guard.failed(step, subject, error)
