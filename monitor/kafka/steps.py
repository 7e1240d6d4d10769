"""The steps of a poll: a fault of our own in one of them costs what that step would have told.

To whoever reads the snapshot it is as if no broker had answered the step's questions: what was seen
before is kept and marked silent, and nothing is concluded from what was not seen.
"""

from __future__ import annotations

from enum import StrEnum

from monitor.guard import Guard


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
    RIGHTS = "rights"  # whether an empty cluster is one
    CAUSES = "causes"  # in words, why brokers did not answer
    REQUESTS = "requests"  # how many were sent
    ANSWER = "answer"  # one broker's answer to one question


class Steps(Guard):
    """Runs the steps of a poll; `fault` is the first that was raised in it."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None

    def start_poll(self) -> None:
        """Begin a poll: what failed in the last one is tried again."""
        super().start_poll()
        self.fault = None

    def failed(self, step: str, subject: str, error: Exception) -> None:
        """Note that a step raised; its cause is logged at the first time."""
        self.fault = self.fault or error
        super().failed(step, subject, error)
