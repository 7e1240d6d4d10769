"""The status page in a real Chromium: each promise of it, on clusters in memory.

A broker can't be brought to have 2,000 groups, hostile names and refusals within seconds; what the page
shows is made of the snapshots that the collector makes of one.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from monitor.analysis.causes.finding import WORDS
from monitor.history.summary import Summary
from monitor.web.server import WebServer
from tests.support.browser import PATIENCE_MS, chromium, path_of_chromium
from tests.support.programs import program
from tests.support.shown_cluster import HOSTILE, ShownCluster, large, serve, shop
from tests.support.waiting import wait_for

expect.set_options(timeout=PATIENCE_MS)

PAGES = ("/", "/group?group=payment-service-group", "/topic?topic=audit", "/pools")


def past(_: str, group: str, since: float, until: float) -> Sequence[Summary]:
    """Return an hour in which a member left, the group rebalanced, and fell behind for half of it."""
    step = (until - since) / 10
    return [
        Summary(
            group, since + i * step, lag=i * 100, members=3 if i < 5 else 2,
            status=1 if i < 7 else 5, rebalances=0 if i < 5 else 1,
            behind_since=None if i < 5 else since + 5 * step,
        )
        for i in range(10)
    ]  # fmt: skip


@dataclass
class Site:
    """A monitor that serves a cluster."""

    cluster: ShownCluster
    server: WebServer
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def listeners(self) -> int:
        """Return how many pages are told of polls."""
        app: Any = self.server._app
        return int(app._live._listeners)

    def restart(self) -> None:
        """Serve on the same port again."""
        self.server, _ = serve(self.port, self.cluster, history=past)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if path_of_chromium() is None:
        program("chromium", "chromium")
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> ShownCluster:
    made = shop()
    made.warm_up()
    return made


@pytest.fixture
def site(cluster: ShownCluster) -> Iterator[Site]:
    server, port = serve(0, cluster, history=past)
    made = Site(cluster, server, port)
    yield made
    made.server.stop()


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    made = browser.new_context(
        base_url=site.url, viewport={"width": 1920, "height": 1080}, accept_downloads=True
    )
    made.set_default_timeout(PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Return a page; whatever it says on the console is a fault: so are violations of its policy."""
    made = context.new_page()
    said: list[str] = []
    made.on("console", lambda message: said.append(message.text))
    made.on("pageerror", lambda error: said.append(str(error)))
    yield made
    # of a monitor that was stopped on purpose a browser says so
    assert [line for line in said if "net::" not in line and "404" not in line] == []


def rows(page: Page) -> Any:
    return page.locator("table.rows tbody tr[aria-rowindex]")


def row(page: Page, group: str) -> Any:
    return rows(page).filter(has=page.get_by_role("link", name=group, exact=True))


def opened(page: Page, path: str = "/") -> Page:
    """Open a page and wait until its scripts have drawn it."""
    page.goto(path)
    expect(page.locator("#live [role=status]")).to_have_text("live")
    return page


def test_each_row_tells_what_is_known_and_why_the_rest_is_not(page: Page) -> None:
    opened(page)
    expect(rows(page).first).to_contain_text("payment-service-group")
    expect(row(page, "order-status-group").locator("td.lag")).to_have_text("0")
    expect(row(page, "secret-group").locator("td.lag")).to_have_text("refused")
    expect(row(page, "secret-group").locator("td.cause")).to_contain_text("ACLs")
    expect(row(page, "newcomer").locator("td.lag")).to_have_text("not committed")
    expect(row(page, "payment-service-group").locator("td.trend svg")).to_have_attribute(
        "aria-label", re.compile("growing: from")
    )
    expect(row(page, "shipping-service-group").locator("td.trend svg")).to_have_attribute(
        "aria-label", re.compile("shrinking: from")
    )
    # a status is told by shape and word, whatever the eyes make of its colour
    expect(row(page, "order-status-group").locator(".badge")).to_have_text("✓ OK")
    expect(row(page, "audit-exporter").locator(".badge")).to_have_text(re.compile(r"^[▲✖] \w+"))


def test_hostile_names_are_text_and_have_pages_of_their_own(page: Page) -> None:
    for name in HOSTILE:
        opened(page)
        links = page.locator("table.rows a[data-row]")
        hrefs = [link.get_attribute("href") for link in links.all()]
        shown = [link.inner_text() for link in links.all()]
        (place,) = (
            i
            for i, href in enumerate(hrefs)
            if page.evaluate("href => new URL(href, location).searchParams.get('group')", href)
            == name
        )
        assert "\n" not in shown[place]
        links.nth(place).click()
        expect(page.locator("h1")).to_contain_text(shown[place])
        expect(page.get_by_role("table", name="Partitions")).to_be_visible()
        assert page.title() != "pwned"
        assert page.locator("img").count() == 0


def test_figures_move_without_reload_and_focus_scroll_and_order_stay(
    page: Page, site: Site
) -> None:
    page.set_viewport_size({"width": 1200, "height": 300})
    opened(page)
    lag = row(page, "payment-service-group").locator("td.lag")
    before = lag.inner_text()
    page.evaluate("window.isTheSame = true")
    link = page.get_by_role("link", name="shipping-service-group", exact=True)
    link.focus()
    page.evaluate("scrollTo(0, 120)")
    order = [each.inner_text() for each in page.locator("table.rows a[data-row]").all()]
    site.cluster.go_on()
    expect(lag).not_to_have_text(before)
    expect(link).to_be_focused()
    assert page.evaluate("scrollY") == 120
    assert [each.inner_text() for each in page.locator("table.rows a[data-row]").all()] == order
    assert page.evaluate("window.isTheSame")


def test_what_was_opened_stays_open_while_the_page_of_a_group_goes_on(
    page: Page, site: Site
) -> None:
    page.set_viewport_size({"width": 1200, "height": 400})
    opened(page, "/group?group=payment-service-group")
    lag = page.locator(".facts dd").first
    before = lag.inner_text()
    page.evaluate("window.isTheSame = true")
    details = page.get_by_role("region", name="Why").locator("details")
    details.locator("summary").click()
    expect(details).to_have_attribute("open", "")
    expect(details.locator("summary")).to_be_focused()
    page.evaluate("scrollTo(0, 150)")
    site.cluster.go_on()
    expect(lag).not_to_have_text(before)
    expect(details).to_have_attribute("open", "")
    expect(details.locator("summary")).to_be_focused()
    # a sentence above that takes a line more moves it by that
    assert 100 < page.evaluate("scrollY") < 200
    # and so does what is looked for, and who walks through what was found
    page.get_by_role("searchbox").fill("orders 3")
    expect(rows(page)).to_have_count(1)
    link = rows(page).first.locator("a")
    link.focus()
    before = lag.inner_text()
    site.cluster.go_on()
    expect(lag).not_to_have_text(before)
    expect(rows(page)).to_have_count(1)
    expect(link).to_be_focused()
    expect(page.get_by_role("searchbox")).to_have_value("orders 3")
    assert page.evaluate("window.isTheSame")


@pytest.mark.parametrize("path", ["/", "/group?group=payment-service-group"])
def test_the_first_figures_do_not_wait_for_the_first_event(page: Page, path: str) -> None:
    page.route("**/live", lambda _: None)  # it is never answered
    page.goto(path)
    expect(rows(page).first).to_be_visible()
    expect(page.locator("#live [role=status]")).to_have_text("connecting")
    expect(page.get_by_role("alert")).to_be_empty()
    page.unroute_all(behavior="ignoreErrors")


def test_hidden_tabs_hold_no_connection_and_come_back_with_the_latest(
    page: Page, site: Site
) -> None:
    opened(page)
    wait_for("a listener", lambda: site.listeners == 1)
    turn = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(turn, True)
    wait_for("no listener", lambda: site.listeners == 0)
    lag = row(page, "payment-service-group").locator("td.lag")
    before = lag.inner_text()
    site.cluster.go_on()
    page.evaluate(turn, False)
    expect(lag).not_to_have_text(before)


def test_a_monitor_that_is_restarted_is_told_and_found_again(page: Page, site: Site) -> None:
    opened(page)
    site.server.stop()  # with the page connected: it holds nothing up
    expect(page.get_by_role("alert")).to_contain_text("The monitor has not answered since")
    expect(row(page, "payment-service-group")).to_be_visible()
    lag = row(page, "payment-service-group").locator("td.lag")
    before = lag.inner_text()
    site.cluster.go_on()
    site.restart()
    expect(page.locator("#live [role=status]")).to_have_text("live")
    expect(page.get_by_role("alert")).to_be_empty()
    expect(lag).not_to_have_text(before)


def test_a_cluster_that_is_away_is_told_while_what_was_seen_stays_with_its_age(
    page: Page, site: Site
) -> None:
    opened(page)
    try:
        site.cluster.is_away = True
        site.cluster.poller.poll()
        expect(page.get_by_role("alert")).to_contain_text("kafka-1:9092: connection refused")
        expect(row(page, "payment-service-group")).to_be_visible()
        expect(page.locator("#live time")).to_contain_text("ago")
    finally:
        site.cluster.is_away = False
        site.cluster.poller.poll()
    expect(page.get_by_role("alert")).to_be_empty()


def test_filters_and_order_are_in_the_address(page: Page) -> None:
    opened(page)
    page.get_by_role("searchbox").fill("service")
    page.get_by_role("button", name=re.compile("^OK")).click()
    page.get_by_role("button", name="Group", exact=True).click()
    expect(page.get_by_text("2 of 13 groups")).to_be_visible()
    address = page.url
    opened(page, address)
    expect(page.get_by_text("2 of 13 groups")).to_be_visible()
    expect(page.get_by_role("searchbox")).to_have_value("service")
    expect(page.get_by_role("columnheader", name="Group")).to_have_attribute(
        "aria-sort", "ascending"
    )
    expect(rows(page).first).to_contain_text("inventory-service-group")
    page.get_by_role("button", name="Clear filters").click()
    expect(rows(page)).to_have_count(13)


def test_groups_are_filtered_by_how_far_they_are_behind(page: Page) -> None:
    opened(page)
    behind = page.get_by_label("Further behind than")
    behind.fill("100")
    expect(row(page, "payment-service-group")).to_be_visible()
    expect(row(page, "order-status-group")).to_have_count(0)
    behind.fill("soon")
    expect(page.get_by_text("messages (1000) or time")).to_be_visible()
    behind.fill("")
    page.get_by_label("hide those without members").check()
    expect(row(page, "audit-exporter")).to_have_count(0)
    page.get_by_label("hide those without members").uncheck()
    page.get_by_label("State").select_option("Empty")
    expect(rows(page)).to_have_count(1)


def test_what_is_shown_can_be_saved_and_no_name_is_a_formula(page: Page, tmp_path: Path) -> None:
    opened(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    target = tmp_path / "groups.csv"
    download.value.save_as(target)
    with target.open(newline="", encoding="utf-8") as file:
        saved = list(csv.DictReader(file))
    assert len(saved) == 13
    names = {found["group"] for found in saved}
    assert "payment-service-group" in names
    assert "'=cmd()|' /C calc'!A0" in names
    (refused,) = (found for found in saved if found["group"] == "secret-group")
    assert (refused["lag"], refused["lag_is"]) == ("", "refused")


def test_all_of_it_works_by_keyboard(page: Page) -> None:
    opened(page)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("service-group")
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("Escape")
    expect(rows(page)).to_have_count(13)
    links = page.locator("table.rows a[data-row]")
    links.first.focus()
    page.keyboard.press("ArrowDown")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(links.nth(12)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("payment-service-group")


@pytest.mark.parametrize("path", PAGES)
def test_nobody_is_kept_out_and_nothing_is_wider_than_the_window(
    browser: Browser, site: Site, path: str
) -> None:
    for width, height, theme in ((1920, 1080, "light"), (360, 740, "dark")):
        scheme: Any = theme
        with browser.new_context(
            base_url=site.url,
            viewport={"width": width, "height": height},
            color_scheme=scheme,
        ) as context:
            context.set_default_timeout(PATIENCE_MS)
            page = opened(context.new_page(), path)
            expect(page.locator("table").first).to_be_attached()
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_tables_are_there(browser: Browser, site: Site) -> None:
    with browser.new_context(base_url=site.url, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/")
        expect(page.locator("table tbody tr")).to_have_count(13)
        assert "http-equiv" in page.content()  # it loads itself anew instead
        page.get_by_role("link", name="payment-service-group").click()
        expect(page.get_by_role("heading", name="Partitions")).to_be_visible()
        expect(page.get_by_text("kafka-consumer-groups.sh").first).to_be_visible()
        page.get_by_role("link", name="orders").click()
        expect(page.get_by_role("link", name="inventory-service-group")).to_be_visible()
        page.get_by_role("link", name="pools").click()
        expect(page.get_by_text("exceeds max_connections by 3")).to_be_visible()


def test_the_page_of_a_group_tells_who_holds_what_and_what_happened(page: Page) -> None:
    opened(page, "/group?group=payment-service-group")
    expect(rows(page)).to_have_count(6)
    members = page.get_by_role("region", name="Members")
    expect(members.locator("tbody tr")).to_have_count(2)
    expect(members.locator(".block")).to_have_count(6)
    expect(page.locator(".chart canvas")).to_be_visible()
    happened = page.get_by_role("list", name="What happened")
    expect(happened).to_contain_text("rebalance")
    expect(happened).to_contain_text("members 3 → 2")
    expect(happened).to_contain_text("status STALL")
    alerts = page.get_by_role("list", name="Alerts").locator("li")
    expect(alerts).to_contain_text(
        ["▲ warning: KafkaConsumerLagTimeHigh", "✖ critical: KafkaConsumerLagTimeCritical"]
    )
    expect(alerts.first).to_contain_text(re.compile("to now, more than 60 s behind for 5 min$"))
    why = page.get_by_role("region", name="Why")
    expect(why.get_by_role("heading").first).not_to_be_empty()
    expect(why.locator("summary")).to_contain_text("normal")
    expect(page.locator("pre").last).to_contain_text("--describe --group payment-service-group")
    page.get_by_role("button", name="Partition", exact=True).click()
    page.get_by_role("button", name="Partition", exact=True).click()
    expect(rows(page).first.locator("td.partition")).to_have_text("0")
    page.get_by_role("link", name="orders").first.click()
    expect(page.get_by_role("link", name="inventory-service-group")).to_be_visible()


def test_the_chart_ages_what_was_seen_to_be_unread_and_nothing_between_two_polls(
    page: Page,
) -> None:
    opened(page, "/group?group=payment-service-group")

    def seconds(*past: dict[str, float | None]) -> list[float | None]:
        made: list[list[Any]] = page.evaluate(
            "async (past) => (await import('/static/chart.js')).series(past, 100, 5)", past
        )
        assert made[0] == sorted(set(made[0]))
        return made[2]

    def point(at: float, behind: float, since: float | None, spans: int = 0) -> Any:
        return {"at": at, "lag": 1, "lag_seconds": behind, "behind_since": since, "seconds": spans}

    moving = [point(at, 0.4, at - 0.4) for at in range(50, 101, 5)]
    assert seconds(*moving) == pytest.approx([0.4] * len(moving))
    standing = point(60, 10, 50), point(90, 0, None)
    # at 60; at 85, when it was last seen; at 90; and at the last poll
    assert seconds(*standing) == [10, 35, 0, 0]
    of_five_minutes = point(50, 7, 1, 300), point(90, 0, None)
    assert seconds(*of_five_minutes) == [7, 7, 0, 0]
    nobody = {"at": 70.001, "lag": None, "lag_seconds": None, "behind_since": None, "seconds": 0}
    # at 60; at 70, when it was last seen; nothing until 90
    assert seconds(point(60, 10, 50), nobody, point(90, 40, 50)) == pytest.approx(
        [10, 20, None, None, 40, 50]
    )
    assert seconds(point(60, 10, 50), nobody) == pytest.approx([10, 20, None, None])


def test_what_happened_has_the_time_in_which_nobody_looked(page: Page) -> None:
    opened(page, "/group?group=payment-service-group")

    def point(at: float, members: int | None, lag: int | None = 1) -> dict[str, Any]:
        return {"at": at, "lag": lag, "lag_seconds": None, "members": members, "status": None}

    def told(*past: dict[str, Any]) -> list[str]:
        made: list[dict[str, Any]] = page.evaluate(
            "async (past) => (await import('/static/chart.js')).events(past)", past
        )
        return [each["text"].split(" until ")[0] for each in made]

    assert told(point(1, 3), point(2, None, None), point(9, 2)) == [
        "nobody looked",
        "members 3 → 2",
    ]
    assert told(point(1, 3), point(2, None, None)) == ["nobody looked since"]


@pytest.mark.parametrize("path", PAGES)
def test_headings_are_whole_and_owners_can_be_read(page: Page, path: str) -> None:
    opened(page, path)
    for width in (1024, 1400, 1920):
        page.set_viewport_size({"width": width, "height": 1000})
        cut = page.locator("thead th").evaluate_all(
            "all => all.filter(th => th.offsetWidth && [th, ...th.children].some(each =>"
            " each.scrollWidth > each.clientWidth && getComputedStyle(each).display !== 'inline'))"
            ".map(th => th.innerText)"
        )
        assert cut == [], width
        owners = page.locator("td.owner:visible")
        assert owners.evaluate_all("all => all.every(td => td.clientWidth > 100)"), width


@pytest.mark.parametrize("width", [1024, 1200, 1400, 1920])
def test_each_cause_is_read_whole_beside_the_groups_name(page: Page, width: int) -> None:
    opened(page)
    page.set_viewport_size({"width": width, "height": 1000})
    cut = page.locator("td.cause:visible").first.evaluate(
        "(cell, words) => words.filter(word => {"
        " cell.firstElementChild.textContent = word; return cell.scrollWidth > cell.clientWidth })",
        list(WORDS.values()),
    )
    assert cut == []
    assert page.locator("tbody .group:visible").first.evaluate("cell => cell.clientWidth") > 150


def test_a_group_that_is_not_there_is_told(page: Page) -> None:
    answer = page.goto("/group?group=nobody")
    assert answer is not None
    assert answer.status == 404
    assert "no group 'nobody'" in answer.text()


def test_times_are_in_the_readers_zone(browser: Browser, site: Site) -> None:
    seen = []
    for zone in ("Asia/Tokyo", "America/New_York"):
        with browser.new_context(base_url=site.url, timezone_id=zone) as context:
            page = opened(context.new_page())
            seen.append(page.locator("#live time").get_attribute("title"))
    assert seen[0] != seen[1]


@pytest.mark.heavy
def test_of_2000_groups_only_what_is_in_sight_is_drawn(browser: Browser) -> None:
    cluster = large(2_000, 19_000)
    cluster.warm_up(polls=2)
    server, port = serve(0, cluster)
    try:
        with browser.new_context(base_url=f"http://127.0.0.1:{port}") as context:
            context.set_default_timeout(PATIENCE_MS)
            page = opened(context.new_page())
            expect(page.get_by_text("2,000 of 2,000 groups")).to_be_visible()
            assert rows(page).count() < 150
            rows(page).first.locator("a").focus()
            page.keyboard.press("End")
            expect(page.locator('tr[aria-rowindex="2001"] a')).to_be_focused()
            assert rows(page).count() < 150
            page.get_by_role("searchbox").fill("group-1234")
            expect(row(page, "group-1234")).to_be_visible()
            opened(page, "/group?group=large-0")
            expect(page.get_by_text("19,000 of 19,000 partitions")).to_be_visible()
            assert rows(page).count() < 150
    finally:
        server.stop()


def test_several_clusters_are_one_list_that_can_be_parted(browser: Browser) -> None:
    clusters = [
        ShownCluster(name=name, topics={"t": 1}, reads={"same-name": "t"}, lags={"same-name": lag})
        for name, lag in (("east", 5), ("west", 7))
    ]
    for cluster in clusters:
        cluster.warm_up()
    clusters[1].is_away = True
    clusters[1].poller.poll()
    server, port = serve(0, *clusters)
    try:
        with browser.new_context(base_url=f"http://127.0.0.1:{port}") as context:
            context.set_default_timeout(PATIENCE_MS)
            page = opened(context.new_page())
            expect(rows(page)).to_have_count(2)
            expect(page.get_by_role("alert")).to_contain_text(
                "west: kafka-1:9092: connection refused"
            )
            page.get_by_label("Cluster").select_option("west")
            expect(rows(page)).to_have_count(1)
            assert "cluster=west" in page.url
            page.get_by_role("link", name="same-name").click()
            expect(page.get_by_text("7", exact=True).first).to_be_visible()
            assert "cluster=west" in page.url
    finally:
        server.stop()


def test_the_age_of_what_is_shown_grows_by_the_servers_clock(browser: Browser, site: Site) -> None:
    with browser.new_context(base_url=site.url) as context:
        page = context.new_page()
        page.clock.install(time=time.time() + 86_400)  # theirs is a day ahead
        opened(page)
        expect(page.locator("#live time")).not_to_contain_text(re.compile(" [hd] ago"))
