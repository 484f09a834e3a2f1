"""Screens: what each command shows on a terminal, as text and as it is coloured."""

import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from guardrails.cli import main
from guardrails.testing import FakeClock
from tests.screens.ledger import NOW_MS, at, write_ledger

__all__ = [
    "COMMANDS",
    "DEMO",
    "FOLDER",
    "LOGS",
    "WIDTHS",
    "a_shop",
    "demo_page",
    "page",
    "pages",
    "piped",
    "plain",
    "screen",
]

FOLDER = Path(__file__).parents[2] / "docs" / "screens"
DEMO = FOLDER / "demo.80.txt"

WIDTHS = (80, 140)
HEIGHT = 50

COMMANDS = {
    "costs": "costs --limit 8",
    "costs-by-customer-feature": "costs --by customer,feature --since 7d",
    "costs-by-tool": "costs --by tool --since 7d",
    "costs-every-day": "costs --every day --by agent --since 4d",
    "costs-compare": "costs --compare --by agent",
    "costs-per-session": "costs --per session --since 7d",
    "sessions": "sessions --limit 10 --sort time",
    "session": "session ticket-4098 --limit 6",
    "session-nested": "session welcome-74",
    "top": "top --once",
    "prices": "prices",
    "prices-check": "prices --check prices.yaml",
    "budget-show": "budget show --customer acme --feature triage",
    "budget-show-session": "budget show --session ticket-4098",
    "stops": "stops",
    "stops-log": "stops --log",
    "alerts-log": "alerts log",
    "simulate": "simulate --config stricter.yaml --since 7d --limit 8",
    "simulate-suggest": "simulate --suggest --since 7d",
    "doctor": "doctor",
    "check": "check",
    "watch": "watch --once --config watched.yaml",
    "export": "export --since 7d --output events.jsonl --force",
    "prune": "prune --dry-run",
    "forget": "forget --customer acme --dry-run",
    "init": "init --dry-run",
}
"""Name of a screen, and the command that shows it."""

LOGS = ("watch",)
"""Lines that are the same everywhere, as wide as they are."""

_ERASED = re.compile(r"(?:\r[^\r\n]*)+\r\x1b\[K")
"""Progress, which is gone once there is a result."""

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


_MACHINE = (
    (re.compile(r"\s+will\s+be\s+made;\s+"), " will be made; "),
    (re.compile(r"[\d,.]+\s+\w?B\s+free"), "74 GB free"),
    (re.compile(r"\w+, on this machine"), "ext4, on this machine"),
    (re.compile(r"\s+is\s+private\s+and\s+writable"), " is private and writable"),
)
"""What the doctor tells of a disk, and where it broke the line of a longer path."""


_DEMO_VARIES = (
    (re.compile(r" +[\d,]+ ms"), lambda found: "1 ms".rjust(len(found[0]))),
    (re.compile(r"since \w{3} \d\d, \d\d:00"), lambda _: "since Nov 24, 14:00"),
)
"""What each run of the demo shows of the time."""


class _Terminal(io.StringIO):
    """A text that says that people look at it."""

    def isatty(self) -> bool:
        return True


@contextmanager
def a_shop() -> Iterator[None]:
    """Works in the folder of the ledger, whose path is short enough for a line."""
    with TemporaryDirectory() as home:
        folder = Path(home) / "shop"
        folder.mkdir()
        with chdir(folder):
            write_ledger(folder)
            yield


def screen(name: str, *, width: int, **environ: str) -> str:
    """Returns what a command shows on a terminal, with its colours.

    Args:
        name: Of the screen.
        width: Of the terminal.
        environ: More of the environment, such as `NO_COLOR`.
    """
    shown = _Terminal()
    environ = {"TERM": "xterm-256color", "COLUMNS": f"{width}"} | environ
    _run(name, shown, shown, environ)
    return shown.getvalue()


def piped(name: str) -> str:
    """Returns what a command writes into a pipe: no message, which people get."""
    out = io.StringIO()
    _run(name, out, io.StringIO(), {"COLUMNS": "80"})
    return plain(out.getvalue())


def page(name: str, shown: str) -> str:
    """Returns the file of a screen: the command, and what it shows."""
    return f"$ guardrails {COMMANDS[name]}\n{plain(shown)}"


def pages() -> Iterator[tuple[str, str]]:
    """Yields each file by its name. What a pipe gets has one if it is another."""
    for name in COMMANDS:
        widths = WIDTHS[:1] if name in LOGS else WIDTHS
        screens = {width: page(name, screen(name, width=width)) for width in widths}
        for width, text in screens.items():
            yield f"{name}.{width}.txt", text
        if name in LOGS:
            continue
        in_pipe = page(name, piped(name))
        if in_pipe != screens[80]:
            yield f"{name}.piped.txt", in_pipe


def plain(shown: str) -> str:
    """Takes the colours away, what was erased, and what is of this machine only."""
    text = _ESCAPE.sub("", _ERASED.sub("", shown))
    for here, anywhere in (
        (f"{Path(sys.executable).with_name('guardrails')}", "guardrails"),
        (f"{Path.cwd().parent}", "~"),
    ):
        text = text.replace(here, anywhere)
    for pattern, anywhere in _MACHINE:
        text = pattern.sub(anywhere, text)
    return text


def demo_page(shown: str) -> str:
    """Returns the file of what the demo shows, which takes ten seconds to do."""
    for pattern, usual in _DEMO_VARIES:
        shown = pattern.sub(usual, shown)
    return f"$ guardrails demo\n{shown}"


def _run(
    name: str, out: io.StringIO, err: io.StringIO, environ: dict[str, str]
) -> None:
    # A copy: what was told once is not told again.
    shutil.copy("ledger.sqlite3", "watched.sqlite3")
    home = os.fspath(Path.cwd().parent)
    environ = environ | {"LINES": f"{HEIGHT}", "HOME": home, "XDG_DATA_HOME": home}
    if name == "init":  # Clients start servers in other folders.
        environ["GUARDRAILS_CONFIG"] = "clients.yaml"
    with (
        at(FakeClock(now_ms=NOW_MS)),
        patch.dict(os.environ, environ),
        patch.object(sys, "argv", ["guardrails", *COMMANDS[name].split()]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            if end.code:
                err.write(f"(exit code {end.code})\n")
