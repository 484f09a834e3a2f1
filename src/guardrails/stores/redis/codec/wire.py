"""The wire: commands as they are sent. Pure.

Most of a call's arguments are the same for every call of a session. They are
written out once, as a fragment.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import hiredis

__all__ = ["Argument", "Fragment", "evalsha", "packed"]

Argument = bytes | str | int
"""What goes into a command; numbers as decimal strings."""

# Its own annotation speaks of commands of one part.
_command = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


class Fragment(NamedTuple):
    """Some arguments, written out."""

    size: int
    data: bytes

    @classmethod
    def of(cls, arguments: Sequence[Argument]) -> "Fragment":
        """Writes arguments out."""
        command = _command(tuple(arguments))
        return cls(len(arguments), command[command.index(b"\n") + 1 :])

    def then(self, *others: "Fragment") -> "Fragment":
        """Returns these arguments and others behind them."""
        size, data = self
        for other in others:
            size += other.size
            data += other.data
        return Fragment(size, data)


def packed(command: Sequence[Argument]) -> bytes:
    """Writes a whole command."""
    return _command(tuple(command))


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
