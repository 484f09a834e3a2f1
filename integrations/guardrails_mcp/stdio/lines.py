"""Lines: splits a stream of bytes at its newlines, in bounded memory. No I/O."""

from dataclasses import dataclass

__all__ = ["EDGE_BYTES", "Lines", "Oversized"]

EDGE_BYTES = 65_536
"""Kept of each end of a line that is too long: a message's id is at one of them."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """A line that was too long to keep: its ends and its length."""

    head: bytes
    tail: bytes
    size_bytes: int


class Lines:
    """Collects chunks and gives back whole lines, each with its newline.

    Args:
        bytes_max: Longer lines are not kept, but counted to their end.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept = bytearray()
        """Of a line that has not ended: all of it, or the last of what is too long."""
        self._size_bytes = 0
        self._head: bytes | None = None
        """The beginning of a line that has become too long."""

    def feed(self, chunk: bytes) -> list[bytes | Oversized]:
        """Takes the next bytes and returns the lines that they complete."""
        *ends, rest = chunk.split(b"\n")
        lines: list[bytes | Oversized] = [self._completed(end + b"\n") for end in ends]
        if rest:
            self._keep(rest)
        return lines

    def finish(self) -> list[bytes | Oversized]:
        """Returns what came after the last newline, if anything did."""
        return [self._completed(b"")] if self._size_bytes else []

    def _completed(self, end: bytes) -> bytes | Oversized:
        if not self._size_bytes and len(end) <= self._bytes_max:
            return end
        self._keep(end)
        kept, head, size_bytes = self._kept, self._head, self._size_bytes
        self._kept, self._head, self._size_bytes = bytearray(), None, 0
        if head is None:
            return bytes(kept)
        return Oversized(head, bytes(kept[-EDGE_BYTES:]), size_bytes)

    def _keep(self, part: bytes) -> None:
        self._kept += part
        self._size_bytes += len(part)
        if self._size_bytes <= self._bytes_max:
            return
        if self._head is None:
            self._head = bytes(self._kept[:EDGE_BYTES])
        del self._kept[:-EDGE_BYTES]
