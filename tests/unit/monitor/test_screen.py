"""The screen of `--watch`, as readable transcripts; and that it leaves a terminal as it was."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from dataclasses import replace
from textwrap import dedent

import pytest

from monitor.analysis.analyst import Analyst
from monitor.commands.looks import Look
from monitor.commands.screen import Watcher, keys_of
from monitor.commands.views import Sort, View, screen, spark
from monitor.model import Group, Member, Offsets, Partition, Silent, Snapshot, Topic

PROGRAM = """
import time
import monitor.commands.watching as watching
from monitor.commands import main
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.apis.list_groups import ListedGroup
from tests.unit.monitor.fake_brokers import FakeBrokers
brokers = FakeBrokers(
    groups={1: [ListedGroup("a", "classic", "Empty", "consumer")]},
    commits={"a": GroupCommits({"t": {0: 4}})}, now=time.monotonic(), appended_at=time.time(),
)
watching.KafkaWire = lambda settings: brokers
main(["groups", "--watch", "1"])
"""


def look(*, faults: tuple[str, ...] = ()) -> Look:
    member = Member("consumer-payments-1-0a1b2c3d-4e5f", "client", "/127.0.0.1", {"orders": (0, 1)})
    snapshot = Snapshot(
        "c",
        taken_at=1.0,
        monotonic_at=1.0,
        topics={"orders": Topic("orders", {0: Partition(1), 1: Partition(1)})},
        start_offsets=Offsets({"orders": {0: 0, 1: 0}}, 1.0),
        end_offsets=Offsets({"orders": {0: 1_010, 1: 20}}, 1.0),
        groups={
            "payments": Group(
                "payments", state="Stable", members=(member,), commits={"orders": {0: 4, 1: 20}}
            ),
            "idle": Group("idle", state="Empty", members=(), commits={"orders": {0: 1_010}}),
            "esc\x1b[2J": Group("esc\x1b[2J", state="Empty", members=()),
        },
    )
    trends = {"payments": (1.0, 4.0, None, 8.0)}
    return Look(snapshot, Analyst().measure(snapshot), faults, trends=trends)


def shown(found: Look | None, view: View, *, width: int = 80, height: int = 8) -> str:
    lines = screen(found, view, width=width, height=height, age=3.0)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    return "\n".join(line.plain.rstrip() for line in lines) + "\n"


def test_the_groups_in_eighty_columns() -> None:
    assert shown(look(), View(sort=Sort.LAG, marked="payments")) == dedent("""\
        Kafka lag  c  3 groups, seen 3 s ago, by lag
          GROUP              STATUS         LAG  BEHIND   OUT/s MEMB TREND    ADVICE
        > payments           · new        1,006       -       -    1 ▂▅ █
          esc\\x1b[2J         · -              -       -       -    0
          idle               · new            0     0 s       -    0


        q quit  p pause  s sort  ↑↓ choose  Enter open  Esc back
        """)


def test_a_group_opened() -> None:
    text = shown(look(), View(marked="payments", is_open=True), height=7)
    assert "payments: total lag 1006, 2 partitions (Stable, 1 member)" in text
    assert "TOPIC" in text
    assert "orders" in text
    assert "1006" in text
    assert "consume…2c3d-4e5f" in text or "consume" in text


def test_what_could_not_be_read_is_at_the_top() -> None:
    found = look(faults=("broker two:9092: timed out", "b\x1b", "c", "d"))
    lines = shown(found, View(), height=12).splitlines()
    assert lines[1:5] == [
        "Not read: broker two:9092: timed out",
        r"Not read: b\x1b",
        "Not read: c",
        "and 1 fault more",
    ]


def test_nothing_is_shown_as_zero_before_the_first_poll() -> None:
    assert shown(None, View()).startswith("Asking the cluster ...\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 5), (20, 2), (200, 60), (80, 1)])
@pytest.mark.parametrize("is_open", [False, True])
def test_it_fits_every_terminal(width: int, height: int, *, is_open: bool) -> None:
    shown(look(faults=("x" * 300,)), View(marked="payments", is_open=is_open), width=width,
          height=height)  # fmt: skip


def test_keys_choose_open_sort_and_pause() -> None:
    found, view = look(), View(sort=Sort.NAME)
    names = []
    for _ in range(4):
        view = view.after("down", found)
        names.append(view.marked)
    assert names == ["idle", "payments", "payments", "payments"]
    assert view.after("up", found).marked == "idle"
    opened = view.after("enter", found)
    assert opened.is_open
    assert opened.after("down", found).scrolled == 1
    assert opened.after("up", found).scrolled == 0
    assert not opened.after("escape", found).is_open
    assert view.after("s", found).sort is Sort.NEED
    assert view.after("p", found).is_paused
    assert not view.after("p", found).after("p", found).is_paused


def test_a_group_that_is_gone_is_said_to_be() -> None:
    found = look()
    gone = replace(found, groups={})
    text = shown(gone, View(marked="payments", is_open=True))
    assert "Group payments is gone." in text
    assert "No consumer groups." in shown(gone, View())


def test_keys_are_read_from_what_terminals_send() -> None:
    assert list(keys_of(b"\x1b[A\x1b[Bjk\rq P\x1bx")) == [
        "up", "down", "down", "up", "enter", "q", "p", "p", "escape",
    ]  # fmt: skip


def test_a_trend_is_a_line_of_blocks() -> None:
    assert spark([0.0, 4.0, None, 8.0]) == "▁▅ █"  # blocks
    assert spark([0.0, 0.0]) == "▁▁"
    assert spark([]) == ""


@pytest.mark.parametrize("who", ["its coordinator", "the leaders of what it reads"])
def test_a_trend_has_a_blank_where_nobody_answered(who: str) -> None:
    def answered(poll: int, *, silent: bool) -> Look:
        at = 10.0 * poll
        group = Group("g", state="Empty", members=(), commits={"t": {0: 4}})
        ends = Offsets({"t": {0: 4}}, at)
        if silent and who == "its coordinator":
            group = replace(group, answer=Silent(at - 10, "timed out"))
        elif silent:
            ends = replace(ends, silent={"t": {0: at - 10}})
        snapshot = Snapshot(
            "c", taken_at=at, monotonic_at=at, topics={"t": Topic("t", {0: Partition(1)})},
            start_offsets=Offsets({"t": {0: 0}}, at), end_offsets=ends, groups={"g": group},
        )  # fmt: skip
        return Look(snapshot, analyst.measure(snapshot))

    analyst = Analyst()
    polls = [answered(1, silent=False), answered(2, silent=True), answered(3, silent=False)]
    looks = iter(polls)
    watcher = Watcher(lambda: next(looks), 0.0)
    watcher.start()
    watcher.join(60)  # it ends with the looks
    assert watcher.latest is not None
    assert watcher.latest[0].trends == {"g": (0.0, None, 0.0)}


@pytest.mark.parametrize("ending", ["q", "ctrl-c", "sigterm"])
def test_a_terminal_is_left_as_it_was(ending: str) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
    )  # fmt: skip
    try:
        # ended before its first look, it has seen nothing, and ends with another code
        output = _read(ours, b"  1 group, seen ")
        assert b"\x1b[?1049h" in output  # the alternate screen
        if ending == "q":
            os.write(ours, b"q")
        else:
            process.send_signal(signal.SIGINT if ending == "ctrl-c" else signal.SIGTERM)
        output += _read(ours, b"\x1b[?1049l")
        process.wait(10)
    finally:
        process.kill()
        os.close(theirs)
    assert process.returncode == 0
    assert b"\x1b[?25h" in output.rpartition(b"\x1b[?25l")[2]  # the cursor is there again
    assert b"Traceback" not in output
    assert termios.tcgetattr(ours)[3] == before[3]
    os.close(ours)


def _read(terminal: int, until: bytes, seconds: float = 20.0) -> bytes:
    """Return what comes until some bytes have come."""
    found, ends = b"", time.monotonic() + seconds
    while until not in found and time.monotonic() < ends:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                found += os.read(terminal, 65_536)
            except OSError:
                break
    assert until in found, found[-2_000:]
    return found
