"""How commands print what they found."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import click
import orjson

from order_services.domain.events import Headers

WIDTH: Final = 80
LABEL_WIDTH: Final = 12

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print it.",
)


def print_json(body: object) -> None:
    """Print a result for programs."""
    click.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())


def print_field(name: str, text: str) -> None:
    """Print one field of a message, on as many lines as it takes."""
    # what others sent must not move the cursor or colour the terminal
    lines = textwrap.wrap(_printable(text), WIDTH - LABEL_WIDTH) or [""]
    for label, line in zip([name, *[""] * len(lines)], lines, strict=False):
        click.echo(f"{label:<{LABEL_WIDTH}}{line}")


def print_message(key: bytes | None, headers: Headers, value: bytes | None) -> None:
    """Print a message, its value as indented JSON where it is that."""
    print_field("key", text_of(key) or "none")
    for name, header in headers:
        print_field("header", f"{name}: {text_of(header)}")
    click.echo("value")
    for line in value_lines(value):
        click.echo(line)


def message_for_programs(
    key: bytes | None, headers: Headers, value: bytes | None
) -> dict[str, Any]:
    """Return a message's parts as JSON can hold them."""
    return {
        "key": text_of(key),
        "value": text_of(value),
        "headers": [[name, text_of(header)] for name, header in headers],
    }


def value_lines(value: bytes | None) -> Sequence[str]:
    """Return the lines that show a value; none is wider than the screen or moves its cursor."""
    if value is None:
        return ["  none"]
    try:
        text = json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except ValueError:
        text = text_of(value) or ""
    return [
        "  " + part
        for line in text.splitlines() or [""]
        for part in textwrap.wrap(
            _printable(line), WIDTH - 2, drop_whitespace=False, subsequent_indent="      "
        )
        or [""]
    ]


def text_of(data: bytes | None) -> str | None:
    """Return bytes as text, whatever they are."""
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def time_of(moment: datetime | None) -> str:
    """Return a moment as people read it."""
    return "unknown" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")
