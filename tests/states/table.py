"""The whole table, and the document that it makes: `python -m tests.states.table`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from tests.states import broker_states, fake_states
from tests.states.elsewhere import ELSEWHERE
from tests.states.model import State
from tests.states.stage import COURSE_MINUTES

STATES: Final[tuple[State, ...]] = (*broker_states.STATES, *fake_states.STATES)

_INTRODUCTION: Final = f"""\
# States

What the monitor says of the states that a real cluster can be in: made from the table in `tests/states/` by
`make docs`; a test holds this file to it. Each row is a test, and is checked on every surface: `/metrics`,
the advice, `/ready`, the status page, `monitor lag` and `monitor groups` (text and exit code), and the shipped
alerts, which promtool runs over the pages of the whole course. `pytest tests/states -k w4-marker` sets up one.

- **broker**: a real Kafka broker. All such states are on one at once; a monitor whose clock is set ahead polls
  it through {COURSE_MINUTES} minutes in seconds.
- **fake**: a model of a cluster of two brokers behind the seam of the wire, as no broker of a test can be brought
  to the state; {fake_states.MINUTES} minutes.
- What was found where: W and C by trying and reading, numbers are of public reports about other monitors, "right"
  was right before, "debatable" was decided (docs/decisions.md).

Of each group the series stand without their prefix `kafka_consumergroup_`, at the end of the course unless it says
*always*. No warning or critical advice, and no alert, but those named: what may come beside them is in the table's
source.

| state | found as | on | what is right | test |
|---|---|---|---|---|
"""


def document() -> str:
    """Return the whole document."""
    return _INTRODUCTION + "".join(f"{row}\n" for row in (*_rows(), *_others()))


def _rows() -> Iterator[str]:
    for state in STATES:
        settings = ", ".join(
            f"MONITOR_{name.upper()}={value if isinstance(value, str) else str(value).lower()}"
            for name, value in state.settings.items()
            if name != "families"
        )
        title = f"{state.title} ({settings})" if settings else state.title
        yield _line(title, state.entry, state.where, state.right.words(), state.id)


def _others() -> Iterator[str]:
    for other in ELSEWHERE:
        yield _line(other.title, other.entry, "other tests", other.right, other.test)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    sys.stdout.write(document())
