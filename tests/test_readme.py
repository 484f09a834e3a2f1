"""The README: its code runs, and its output is what the code prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guardrails import Guard
from guardrails.testing import ScriptedChatModel
from guardrails_langchain import GuardMiddleware

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
TEXT = [text for language, text in BLOCKS if language == "text"]
CONSOLE = [text for language, text in BLOCKS if language == "console"]

LINES_MAX = 150
SINCE = re.compile(r"since \w{3} \d\d, \d\d:00 UTC")


def run(code: str, folder: Path, *arguments: str) -> str:
    """Runs a script as a user would, on a ledger of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=False,
        cwd=folder,
        encoding="utf-8",
        env={
            **os.environ,
            "COLUMNS": "80",
            "PYTHONIOENCODING": "utf-8",
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
        },
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    """It runs as it stands, and so does the report of what it spent."""
    command, report = CONSOLE[0].split("\n", 1)
    main = "from guardrails.cli import main; main()"

    assert run(PYTHON[0], tmp_path) == TEXT[0]
    shown = run(main, tmp_path, *command.removeprefix("$ guardrails ").split())
    assert SINCE.sub("", shown) == SINCE.sub("", report)


def test_the_middleware_is_one_line() -> None:
    """The second example works with any model and tools."""
    create_agent = pytest.importorskip("langchain.agents").create_agent
    messages = pytest.importorskip("langchain_core.messages")
    model = ScriptedChatModel(script=lambda *_: messages.AIMessage(content="Done."))
    guard = Guard({}, store="memory://", max_cost_usd="0.05")
    names = {
        "create_agent": create_agent,
        "guard": guard,
        "model": model,
        "tools": [],
    }

    exec(PYTHON[1], names)
    agent = names["agent"]
    agent.invoke(
        {"messages": [("user", "Hello")]}, {"configurable": {"thread_id": "t-1"}}
    )

    assert names["GuardMiddleware"] is GuardMiddleware
    assert guard.session(session_id="t-1").steps == 1


def test_the_ways_on_after_a_stop_exist() -> None:
    """The third example needs a guard, and the session of the first."""
    guard = Guard({}, store="memory://", max_cost_usd="0.05")

    exec(PYTHON[2], {"guard": guard})

    assert guard.session(session_id="ticket-7").status == "killed"


def test_every_example_is_run() -> None:
    """A block that nobody runs rots."""
    assert (len(PYTHON), len(CONSOLE)) == (3, 1)


def test_links_lead_somewhere() -> None:
    """Every link of the README is a file of this project."""
    links = re.findall(r"\]\(([^)]+)\)", README)

    assert links
    assert not [link for link in links if not (PROJECT / link).exists()]


def test_it_is_short_enough_to_be_read() -> None:
    """In one sitting, in a window of 90 columns."""
    lines = README.splitlines()

    assert len(lines) <= LINES_MAX
    assert max(map(len, lines)) <= 90
