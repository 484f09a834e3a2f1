"""Progress: a line on standard error while something takes long, on a terminal."""

import sys
from types import TracebackType
from typing import Self

__all__ = ["Progress"]

EVERY = 10_000
"""Steps between two signs of life: about 0.1 s."""


class Progress:
    """Shows how far something is. Where there is no terminal it shows nothing.

    Args:
        doing: What is done, such as `Exporting`.
        things: What is counted, such as `events`.
    """

    def __init__(self, doing: str, things: str) -> None:
        self._doing, self._things = doing, things
        self._is_shown = sys.stderr.isatty()
        self._shown = -EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, done: int, *, of: int) -> None:
        """Tells how many are done, of about how many."""
        if not self._is_shown or done - self._shown < EVERY:
            return
        self._shown = done
        share = f" ({done / of:.0%})" if of >= done else ""
        sys.stderr.write(f"\r{self._doing}: {done:,} {self._things}{share}\x1b[K")
        sys.stderr.flush()
