"""Colours stay apart for people with colour-vision deficiencies, as a simulation of them says."""

from __future__ import annotations

import itertools
import math

import pytest

from dashboards.builder.palette import COLOURS, LEVELS

Colour = tuple[float, float, float]

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SIMULATIONS = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
# CIE76: 2.3 is just noticeable side by side; lines and tiles that are apart need several times that
APART = 10.0


def linear(colour: str) -> Colour:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return r, g, b


def seen_with(matrix: tuple[Colour, ...], colour: Colour) -> Colour:
    r, g, b = (min(1.0, max(0.0, _dot(row, colour))) for row in matrix)
    return r, g, b


def _dot(one: Colour, other: Colour) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def lab(colour: Colour) -> Colour:
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    x, y, z = (
        f ** (1 / 3) if f > 0.008856 else 7.787 * f + 16 / 116
        for f in (_dot(row, colour) / w for row, w in zip(to_xyz, white, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("deficiency", SIMULATIONS)
@pytest.mark.parametrize("palette", [COLOURS, LEVELS], ids=["series", "levels"])
def test_any_two_colours_are_told_apart(deficiency: str, palette: dict[str, str]) -> None:
    matrix = SIMULATIONS[deficiency]
    for (one, a), (other, b) in itertools.combinations(palette.items(), 2):
        distance = math.dist(*(lab(seen_with(matrix, linear(colour))) for colour in (a, b)))
        assert distance >= APART, f"{one} and {other}: {distance:.1f}"
