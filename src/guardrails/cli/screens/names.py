"""Names: shows what came from outside, in a terminal and without harm."""

import re

__all__ = ["escaped", "safe"]

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]"
)
"""Control characters, those that reorder what is beside them, and two that are none."""


def safe(name: str) -> str:
    """Makes a name inert on a terminal: it stays where it is and changes nothing."""
    return _UNSAFE.sub("\ufffd", name)


def escaped(text: str) -> str:
    """Makes a quoted text of JSON or YAML inert, and leaves it what it means."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
