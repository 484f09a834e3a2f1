"""Names: shows what came from outside, in a terminal and without harm."""

import re

__all__ = ["safe"]

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, and those that reorder what stands beside them."""


def safe(name: str) -> str:
    """Makes a name inert on a terminal: it stays where it is and changes nothing."""
    return _UNSAFE.sub("\ufffd", name)
