"""How fast the status page is in a real Chromium: 2,000 groups, 20,000 partitions, one group with 19,000.

The cluster is in memory and moves at each poll; the page is served as `monitor serve` does. *First rows*
is from the start of the navigation to rows of the page's scripts in the document; an interaction is
from the event to the frame that shows what it did. Each is the median and the worst of `--rounds`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Final

from playwright.sync_api import Page

from benchmarks.support import say, table
from tests.support.browser import chromium
from tests.support.shown_cluster import large, serve

GROUPS: Final = 2_000
PARTITIONS: Final = 19_000  # and 1,000 of other topics
FIRST_ROWS_GOAL_MS: Final = 1_000
INTERACTION_GOAL_MS: Final = 100

FIRST_ROWS: Final = """() => new Promise(done => {
    const look = () => document.querySelector("table.rows tbody tr[aria-rowindex]")
        ? done(performance.now()) : requestAnimationFrame(look);
    look();
})"""
# two frames later what was done is on the screen
INTERACTION: Final = """async act => {
    const start = performance.now();
    (0, eval)(act)();
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - start;
}"""
SEARCH: Final = """() => {
    const input = document.querySelector("input[type=search]");
    input.value = input.value ? "" : "12";
    input.dispatchEvent(new Event("input", { bubbles: true }));
}"""
SORT: Final = "() => document.querySelector('th.lag button').click()"
SCROLL: Final = "() => scrollTo(0, scrollY ? 0 : document.body.scrollHeight / 2)"


def first_rows(page: Page, url: str) -> float:
    """Return the milliseconds from the start to the first rows."""
    page.goto(url, wait_until="commit")
    return float(page.evaluate(FIRST_ROWS))


def interaction(page: Page, act: str) -> float:
    """Return the milliseconds until what was done is shown."""
    return float(page.evaluate(INTERACTION, act))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    say(f"making {GROUPS:,} groups and {PARTITIONS + 1_000:,} partitions")
    cluster = large(GROUPS, PARTITIONS)
    cluster.warm_up(polls=3)
    server, port = serve(0, cluster)
    base = f"http://127.0.0.1:{port}"
    rows = []
    with chromium() as browser:
        # the policy of the page allows no eval, which is how its speed is asked for
        context = browser.new_context(
            base_url=base, viewport={"width": 1920, "height": 1080}, bypass_csp=True
        )
        page = context.new_page()

        def measure(what: str, goal: float, ask: Callable[[], float]) -> None:
            found = [ask() for _ in range(rounds)]
            rows.append(
                [what, f"{statistics.median(found):.0f}", f"{max(found):.0f}", f"{goal:.0f}"]
            )

        for name, path in (("groups", "/"), ("partitions", "/group?group=large-0")):
            measure(
                f"{name}: first rows",
                FIRST_ROWS_GOAL_MS,
                lambda path=path: first_rows(page, path),  # type: ignore[misc]
            )
            for what, act in (("search", SEARCH), ("sort", SORT), ("scroll", SCROLL)):
                measure(
                    f"{name}: {what}",
                    INTERACTION_GOAL_MS,
                    lambda act=act: interaction(page, act),  # type: ignore[misc]
                )
        context.close()
    server.stop()
    table("The status page in Chromium", ["what", "median ms", "worst ms", "goal ms"], rows)


if __name__ == "__main__":
    main()
