"""The screens of the documentation are what the commands show."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.screens.screens import (
    COMMANDS,
    DEMO,
    FOLDER,
    LOGS,
    WIDTHS,
    a_shop,
    page,
    pages,
    piped,
    screen,
)

PAGES = {
    path.name: path.read_text("utf-8") for path in FOLDER.glob("*.txt") if path != DEMO
}
"""All but the demo, whose own tests look at its screen."""

COLOUR = re.compile(r"\x1b\[[\d;]*(?:3[0-7]|9[0-7])m")

SLOW = {"doctor", "watch"}
"""One tries LangChain and MCP each time, one waits for a receiver."""

QUICK = sorted(COMMANDS.keys() - SLOW)


@pytest.fixture(scope="module")
def shop() -> Iterator[Path]:
    """The folder of the ledger, which is written once."""
    with a_shop():
        yield Path.cwd()


@pytest.fixture(autouse=True)
def in_the_shop(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_the_screens_of_the_documentation_are_up_to_date() -> None:
    assert dict(pages()) == PAGES, "make screens"


@pytest.mark.parametrize("name", QUICK)
def test_colours_change_no_text(name: str) -> None:
    """A terminal without them shows the same, and NO_COLOR takes them away."""
    for width in WIDTHS:
        assert (
            page(name, screen(name, width=width, TERM="dumb"))
            == (PAGES[f"{name}.{width}.txt"])
        )
    assert not COLOUR.search(screen(name, width=80, NO_COLOR="1"))


def test_what_is_to_be_seen_is_coloured() -> None:
    """So the screens above were coloured, and lost that."""
    assert COLOUR.search(screen("costs", width=80))


def test_a_pipe_gets_no_escapes() -> None:
    assert not [name for name in QUICK if "\x1b" in piped(name)]


def test_every_screen_fits_its_terminal() -> None:
    """Commands to copy stay on one line, however long it is."""
    for name, text in PAGES.items():
        if name.partition(".")[0] in LOGS:
            continue
        width = 140 if ".140." in name else 80
        lines = [line for line in text.splitlines()[1:] if "  → guardrails" not in line]
        assert not [line for line in lines if cell_len(line) > width], name
        assert not [line for line in lines if line != line.rstrip()], name
