"""How fast the status page is in a real Chromium: 2,000 groups, 20,000 partitions, one group with 19,000.

The cluster is in memory; the page is served as `monitor serve` does. *Rows in sight* is from the start of
the navigation to the first picture, which has the worst groups as the server wrote them; *first rows*
is until those of the page's scripts are there, which search and sort all; the first round has the
documents made, the others find them. An interaction is from the event to the frame that shows what it
did. Each is the median and the worst of `--rounds`. The machine's load is printed, as a browser, the
monitor and all else share its cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import urllib.request
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
IN_SIGHT: Final = """() => new Promise(done => {
    const look = () => {
        const [painted] = performance.getEntriesByName("first-contentful-paint");
        painted ? done(painted.startTime) : setTimeout(look, 5);
    };
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


def loaded(page: Page, url: str) -> tuple[float, float]:
    """Return the milliseconds from the start to the first picture, and to the scripts' rows."""
    page.goto(url, wait_until="commit")
    rows = float(page.evaluate(FIRST_ROWS))
    return float(page.evaluate(IN_SIGHT)), rows


def interaction(page: Page, act: str) -> float:
    """Return the milliseconds until what was done is shown."""
    return float(page.evaluate(INTERACTION, act))


def fetched(url: str) -> tuple[int, float]:
    """Return the bytes of an answer, and the seconds it took."""
    began = time.perf_counter()
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return len(answer.read()), time.perf_counter() - began


def main() -> None:
    """Measure, and print a table."""
    load = os.getloadavg()[0]
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

        def tell(what: str, goal: float, found: list[float]) -> None:
            rows.append(
                [what, f"{statistics.median(found):.0f}", f"{max(found):.0f}", f"{goal:.0f}"]
            )

        def measure(what: str, goal: float, ask: Callable[[], float]) -> None:
            tell(what, goal, [ask() for _ in range(rounds)])

        for name, path in (("groups", "/"), ("partitions", "/group?group=large-0")):
            cluster.go_on()
            times = [loaded(page, path) for _ in range(rounds)]
            tell(f"{name}: rows in sight", FIRST_ROWS_GOAL_MS, [each for each, _ in times])
            tell(f"{name}: first rows", FIRST_ROWS_GOAL_MS, [each for _, each in times])
            for what, act in (("search", SEARCH), ("sort", SORT), ("scroll", SCROLL)):
                measure(
                    f"{name}: {what}",
                    INTERACTION_GOAL_MS,
                    lambda act=act: interaction(page, act),  # type: ignore[misc]
                )
        context.close()
    documents = []
    for path in ("groups", "group?group=large-0"):
        cluster.go_on()
        sizes, seconds = zip(*(fetched(f"{base}/page/{path}") for _ in range(2)), strict=True)
        documents.append(
            [path, f"{sizes[0] / 1e3:.0f}", *(f"{each * 1e3:.0f}" for each in seconds)]
        )
    server.stop()
    say(f"the load of the machine was {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    table("Documents, compressed", ["what", "kB", "ms when made", "ms when made before"], documents)
    table("The status page in Chromium", ["what", "median ms", "worst ms", "goal ms"], rows)


if __name__ == "__main__":
    main()
