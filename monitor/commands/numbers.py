"""Numbers as options take them: finite, and within limits."""

from __future__ import annotations

from math import isfinite
from typing import Any

import click


class Number(click.FloatRange):
    """A number of the real ones: a range alone lets "nan" pass, and "inf" where it has no upper limit.

    What waits, divides or rounds by those fails far from the option that brought them in.
    """

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; fails with what it is not, or not within."""
        number = click.FLOAT.convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return float(super().convert(number, param, ctx))
