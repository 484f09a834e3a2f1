"""The wire: commands as they are sent. Pure.

Most of a call's arguments are the same for every call of a session. They are
written out once, as a fragment.
"""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Argument", "Fragment", "evalsha", "packed"]

Argument = bytes | str | int
"""What goes into a command; numbers as decimal strings."""


class Fragment(NamedTuple):
    """Some arguments, written out."""

    size: int
    data: bytes

    @classmethod
    def of(cls, arguments: Sequence[Argument]) -> "Fragment":
        """Writes arguments out."""
        parts: list[bytes] = []
        for argument in arguments:
            if isinstance(argument, bytes):
                text = argument
            elif isinstance(argument, str):
                text = argument.encode()
            else:
                text = b"%d" % argument
            parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
        return cls(len(parts), b"".join(parts))

    def then(self, *others: "Fragment") -> "Fragment":
        """Returns these arguments and others behind them."""
        size, data = self
        for other in others:
            size += other.size
            data += other.data
        return Fragment(size, data)


def packed(command: Sequence[Argument]) -> bytes:
    """Writes a whole command."""
    size, data = Fragment.of(command)
    return b"*%d\r\n%b" % (size, data)


def evalsha(sha: bytes, keys: Fragment, arguments: Fragment) -> bytes:
    """Writes the call of a script."""
    size = 3 + keys.size + arguments.size
    names = b"%d" % keys.size
    head = b"*%d\r\n$7\r\nEVALSHA\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        size,
        len(sha),
        sha,
        len(names),
        names,
    )
    return b"%b%b%b" % (head, keys.data, arguments.data)
