"""Colours that people with any of the common colour-vision deficiencies can tell apart.

Okabe and Ito's palette (https://jfly.uni-koeln.de/color/). Colour is never the only sign: a level
also has its value or text, a series its row in the legend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COLOURS: Final[Mapping[str, str]] = {
    "blue": "#0072B2",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "orange": "#E69F00",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#BBBBBB",  # theirs is black, which a dark theme swallows
}

LEVELS: Final[Mapping[str, str]] = {
    "ok": COLOURS["blue"],
    "warn": COLOURS["orange"],
    "bad": COLOURS["vermillion"],
    "none": COLOURS["grey"],
}

# One entity has one colour in every panel: regular expression of series names -> colour. A service,
# its consumer group and the topic that it writes share theirs.
SERIES: Final[Mapping[str, Mapping[str, str]]] = {
    "services": {
        "^(gateway|order-status|orders)": COLOURS["blue"],
        "^payment": COLOURS["orange"],
        "^inventory": COLOURS["green"],
        "^ship(ping|ment)": COLOURS["purple"],
        "^analytics": COLOURS["sky"],
        "^monitor": COLOURS["grey"],
    },
    "quantiles": {
        "p50$": COLOURS["sky"],
        "p95$": COLOURS["orange"],
        "p99$": COLOURS["vermillion"],
    },
    "partitions": {
        f"[ -]{digits}$": colour
        for digits, colour in zip(
            ("[08]", "[19]", "2", "3", "4", "5", "6", "7"), COLOURS.values(), strict=True
        )
    },
}
