"""Small pieces of SVG."""

from __future__ import annotations

from html import escape

PANEL = "#181b1f"
GRID = "#2c2f36"
MUTED = "#9b9ba7"


def element(name: str, content: str = "", **attributes: object) -> str:
    """Return an element; underscores in attribute names stand for hyphens."""
    text = " ".join(
        f'{key.rstrip("_").replace("_", "-")}="{escape(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name} {text}>{content}</{name}>"


def _written(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def label(
    x: float, y: float, content: str, *, anchor: str = "start", size: int = 12, fill: str = MUTED
) -> str:
    """Return a text; x and y are its anchor on the base line."""
    return element("text", escape(content), x=x, y=y, text_anchor=anchor, font_size=size, fill=fill)


def line(
    x1: float, y1: float, x2: float, y2: float, stroke: str, *, dash: str | None = None
) -> str:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_dasharray=dash)


def box(x: float, y: float, width: float, height: float, fill: str, *, opacity: float = 1.0) -> str:
    """Return a rectangle."""
    return element(
        "rect", x=x, y=y, width=width, height=height, fill=fill, fill_opacity=f"{opacity:.2f}"
    )


def picture(width: float, height: float, content: str) -> str:
    """Return an SVG of this size."""
    return element(
        "svg", content, width=width, height=height, viewBox=f"0 0 {width:.0f} {height:.0f}"
    )


def clip(text: str, width: float, size: int = 12) -> str:
    """Return the text, shortened to what fits into a width."""
    room = max(1, int(width / (size * 0.56)))
    return text if len(text) <= room else text[: room - 1] + "…"
