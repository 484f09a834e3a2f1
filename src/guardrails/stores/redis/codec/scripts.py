"""Scripts: the texts in `lua/`, as servers are given them."""

import re
from hashlib import sha1
from importlib.resources import files

__all__ = ["Script"]

LIBRARIES = {
    "call": (
        "version",
        "tell",
        "loops",
        "notes",
        "rows",
        "alerts",
        "settle",
        "reserve",
    ),
    "release": ("version",),
    "sweep": ("version",),
    "account": ("version", "tell"),
    "stops": ("version", "tell"),
    "outbox": ("tell",),
    "keeper": ("version", "notes"),
}
"""What stands before a script, because it uses it. They make one text."""


class Script:
    """A script, by its name in `lua/`.

    Args:
        name: Its name, without the ending.
        source: Another text than that in `lua/`.
    """

    def __init__(self, name: str, source: str | None = None) -> None:
        self.name: str = name
        self.source: str = _source(name) if source is None else source
        """As it is written."""
        self.text: bytes = _with_values(self.source).encode()
        """As it is sent."""
        self.sha: bytes = sha1(self.text, usedforsecurity=False).hexdigest().encode()


def _source(name: str) -> str:
    folder = files("guardrails.stores.redis") / "lua"
    parts = (*LIBRARIES.get(name, ()), name)
    return "".join([(folder / f"{part}.lua").read_text("utf-8") for part in parts])


_STRING = r"'[^'\n]*'"
_VALUE = rf"(?:[0-9]+|{_STRING})"
_CONSTANTS = re.compile(
    rf"^local ([A-Z][A-Z_]+(?:, [A-Z][A-Z_]+)*) = ({_VALUE}(?:, {_VALUE})*)(?= --|$)",
    re.MULTILINE,
)
_WORD = re.compile(rf"{_STRING}|\b[A-Z][A-Z_]+\b")


def _with_values(source: str) -> str:
    """Puts the values of constants where a script names them.

    Lua 5.1 has variables only, and a script makes its functions anew in each call: each
    variable that a function uses took the server longer than many a command.
    """
    values: dict[str, str] = {}
    for names, given in _CONSTANTS.findall(source):
        values |= zip(names.split(", "), re.findall(_VALUE, given), strict=True)
    body = _CONSTANTS.sub("", source)
    return _WORD.sub(lambda word: values.get(word[0], word[0]), body)
