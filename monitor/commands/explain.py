"""`monitor explain`: why a group is behind, what speaks for it, and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, sleep
from typing import Final

import click

from monitor.analysis.analyst import Analyst
from monitor.analysis.causes.ranking import Explainer
from monitor.analysis.causes.symptoms import Pools
from monitor.answers.explanation import CauseAnswer, Explanation, explanation
from monitor.commands import options
from monitor.commands import selection as selecting
from monitor.commands.numbers import Number
from monitor.commands.watching import cluster_of, collector_of, refuse_unknown_groups, rules_of
from monitor.pools.settings import DatabaseSettings
from monitor.selection import Selection
from monitor.words import safe

WIDTH: Final = 80
POLL_SECONDS: Final = 3.0


@click.command()
@options.connection
@click.argument("group")
@click.option("--for", "seconds", type=Number(5, 3_600), default=30, show_default=True,
              metavar="SECONDS", help="How long to look.")  # fmt: skip
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(*, source: options.Source, group: str, seconds: float, output: str) -> None:
    """Say why GROUP is behind: one cause, what speaks for it, and what to do first.

    And what was checked and is normal, and what could not be checked. `monitor serve` knows more, as
    it has seen what was before: its /api/v1/explain/GROUP answers in the same words.
    """
    watched, databases = source.one(), source.read().databases
    kafka, settings = watched.kafka, watched.settings
    selecting.refuse_left_out(Selection(groups=(group,)), settings)
    # all groups: others of the same broker tell it from the consumer
    with collector_of(kafka, settings) as collector:
        analyst = Analyst(
            collector.offsets_for_times, collector.look_at_logs, rules=rules_of(settings)
        )
        end = monotonic() + seconds
        while True:
            snapshot = collector.poll()
            measured = analyst.measure(snapshot)
            refuse_unknown_groups(snapshot, (group,))
            left = end - monotonic()
            if left <= 0:
                break
            click.echo(f"\rlooking at {safe(group)}: {left:.0f} s more ", err=True, nl=False)
            sleep(min(left, POLL_SECONDS))
    click.echo("", err=True)
    explainer = Explainer(snapshot, measured, analyst.findings, _pools(databases))
    found = explanation(cluster_of(settings, snapshot), snapshot, group, explainer.explain(group))
    click.echo(found.model_dump_json(indent=2) if output == "json" else as_text(found))


def _pools(databases: DatabaseSettings) -> Callable[[str], Pools | None]:
    """Return what tells the pools of a group; nothing where no database is named."""
    if databases.is_empty:
        return lambda _: None
    # here, as the driver takes its time, and most have no database watched
    from monitor.pools.analysis import analyse  # noqa: PLC0415
    from monitor.pools.collector import DatabaseCollector  # noqa: PLC0415
    from monitor.pools.exhausted import pools_of  # noqa: PLC0415

    collector = DatabaseCollector(databases)
    report = analyse(collector.collect(), databases.pool_max)
    collector.close()
    return lambda group: pools_of(report, group)


def as_text(found: Explanation) -> str:
    """Return an explanation in lines of at most 80 columns; a command is never broken."""
    parts = [
        [f"{safe(found.group)}: {found.word}", *_wrapped(found.sentence)],
        [f"  {figure.what}: {figure.value:,.6g} {figure.unit}" for figure in found.figures],
    ]
    if found.alternatives:
        parts.append(["It may as well be, which the data can't tell from it:"])
        for other in found.alternatives:
            parts[-1] += _item(f"{other.word}: {other.sentence}. Decides: {other.would_decide}.")
    if found.also:
        parts.append(["At the same time:"])
        for also in found.also:
            parts[-1] += _item(f"{also.word}: {also.sentence}")
    parts.append(list(_steps(found)))
    if found.checked:
        parts.append(["Checked, and not the cause:"])
        for each in found.checked:
            parts[-1] += _item(f"{each.what}: {each.finding}")
    if found.not_checked:
        parts.append(["Could not be checked:"])
        for unknown in found.not_checked:
            parts[-1] += _item(f"{unknown.what}; would tell: {unknown.would_tell}")
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _steps(found: CauseAnswer) -> Iterator[str]:
    if found.next_steps:
        yield "What to do, the most reversible first:"
    for number, step in enumerate(found.next_steps, start=1):
        yield from _wrapped(step.action, f"  {number}. ", "     ")
        if step.command:
            yield f"     {step.command}"


def _item(text: str) -> Sequence[str]:
    return _wrapped(text, "  ", "    ")


def _wrapped(text: str, first: str = "", others: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=others,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
