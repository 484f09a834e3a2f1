"""Checks: how a diagnosis is shown, for people and for programs."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from guardrails.cli.formats.documents import document
from guardrails.cli.screens.names import safe
from guardrails.stores.diagnosis import Check, Status, worst_of

__all__ = ["checks_json", "show_checks"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

WIDTH_MAX = 100
"""Longer lines are hard to read."""

_LABELS = {
    Status.OK: ("ok", "green"),
    Status.WARN: ("warn", "yellow"),
    Status.FAIL: ("FAIL", "bold red"),
    Status.UNKNOWN: ("unknown", "cyan"),
}
_LABEL_WIDTH = 9
_NAME_WIDTH = 12


def checks_json(checks: Sequence[Check], *, store: str, sources: Sequence[str]) -> str:
    """Writes a diagnosis as one JSON object.

    Args:
        checks: In the order in which they are shown.
        store: Its URL, without credentials.
        sources: Where the configuration came from.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "store": store,
        "sources": list(sources),
        "status": worst_of(checks).value,
        "checks": [
            {
                "name": check.name,
                "status": check.status.value,
                "text": check.text,
                "commands": list(check.commands),
            }
            for check in checks
        ],
    }
    return document(content)


def show_checks(checks: Sequence[Check]) -> None:
    """Prints a line per check, below each problem what mends it, and the sum."""
    # Imported late: JSON has no use for it.
    from rich.console import Console
    from rich.text import Text

    from guardrails.cli.screens.table import console_width

    console = Console(highlight=False)
    width = min(console_width(console), WIDTH_MAX)
    for check in checks:
        label, style = _LABELS[check.status]
        first, *rest = _lines(check, width)
        line = Text(label.ljust(_LABEL_WIDTH), style=style)
        console.print(line.append(first, style="default"), soft_wrap=True)
        for text in rest:
            console.print(Text(text), soft_wrap=True)
        for text in _commands(check, width):
            console.print(Text(text, style="bold"), soft_wrap=True)
    console.print(Text(_sum(checks), style="dim"), soft_wrap=True)


def _lines(check: Check, width: int) -> Iterator[str]:
    """Yields the text in lines; the first is short of its label."""
    indent = " " * (_LABEL_WIDTH + _NAME_WIDTH)
    name = check.name.ljust(_NAME_WIDTH)
    lines = textwrap.wrap(
        safe(check.text),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield name + lines[0].removeprefix(indent)
    yield from lines[1:]


def _commands(check: Check, width: int) -> Iterator[str]:
    """Yields commands that can be copied into a shell as they are shown."""
    indent = " " * (_LABEL_WIDTH + _NAME_WIDTH)
    for command in check.commands:
        pieces = [command] if "\n" in command else _folded(command, width - len(indent))
        for piece in pieces:
            for line in piece.split("\n"):
                yield indent + safe(line)


def _folded(command: str, width: int) -> list[str]:
    """Breaks a long command where a shell allows it, if that makes it fit."""
    if any(len(word) > width - 4 for word in command.split()):
        return [command]  # A long path or URL: broken around it, it still is.
    lines = textwrap.wrap(
        command,
        width - 2,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def _sum(checks: Sequence[Check]) -> str:
    counts = Counter(check.status for check in checks)
    parts = [f"{counts[Status.OK]} ok"]
    for status, noun in (
        (Status.WARN, "warning"),
        (Status.FAIL, "failure"),
        (Status.UNKNOWN, "unknown"),
    ):
        count = counts[status]
        plural = "" if count == 1 or status is Status.UNKNOWN else "s"
        parts += [f"{count} {noun}{plural}"] if count else []
    return f"{len(checks)} checks: {', '.join(parts)}"
