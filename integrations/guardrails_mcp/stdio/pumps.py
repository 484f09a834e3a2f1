"""Pumps: move the bytes between the pipes of a host and those of a server.

Two threads with blocking reads, which is as fast as an event loop gets here and has no
loop to block. Each line is written whole, under the lock of its pipe, because refusals
come in between.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from guardrails_mcp.stdio.lines import Lines, Oversized
from guardrails_mcp.stdio.relay import Passage, Relay

__all__ = ["Ends", "Pipe", "pump_host", "pump_server"]

CHUNK_BYTES = 65_536
"""The size of a pipe. A larger buffer costs more to allocate than it saves."""

PROGRESS_GAP_S = 0.002
"""Kept between a progress notification and the answer after it: typescript-sdk up to
1.32 drops every notification that arrives in one read with its answer (issue 2580), and
a relay would bring together what the server sent apart."""

_PROGRESS = b"notifications/progress"


class Pipe:
    """The writing end of a pipe. Thread safe.

    Args:
        fd: Its descriptor.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._is_closed = False

    def write(self, data: bytes) -> None:
        """Writes all of the data.

        Raises:
            OSError: If nobody reads any more, or it is closed.
        """
        if not data:
            return
        with self._lock:
            if self._is_closed:
                raise BrokenPipeError
            written = os.write(self._fd, data)
            while written < len(data):
                data = data[written:]
                written = os.write(self._fd, data)

    def close(self) -> None:
        """Closes it, so that the reader sees its end."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                with contextlib.suppress(OSError):
                    os.close(self._fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What both pumps work with."""

    relay: Relay
    server: Pipe
    host: Pipe
    bytes_max: int
    """Of a line that is passed on."""


def pump_host(source: int, ends: Ends) -> None:
    """Moves what the host writes until its end, then closes the server's input."""
    try:
        for lines in _lines_of(source, ends.bytes_max):
            for line in lines:
                _pass_to_server(ends.relay.from_host(line), ends)
    except OSError:
        pass  # The server reads no more.
    finally:
        ends.server.close()
        os.close(source)


def _pass_to_server(passage: Passage, ends: Ends) -> None:
    try:
        ends.server.write(passage.to_server)
    except OSError:
        ends.relay.not_written(passage)
        raise
    ends.host.write(passage.to_host)


def pump_server(source: int, ends: Ends) -> None:
    """Moves what the server writes until its end, then closes the host's input."""
    progress = _Progress()
    try:
        for lines in _lines_of(source, ends.bytes_max):
            for line in lines:
                passage = ends.relay.before_host(line)
                if passage is not None:
                    _answer_server(ends.server, passage.to_server)
                    ends.host.write(passage.to_host)
                    continue
                assert isinstance(line, bytes)
                progress.keep_apart(line)
                ends.host.write(line)
                ends.relay.after_host(line)
    except OSError:
        pass  # The host reads no more.
    finally:
        ends.host.close()
        os.close(source)


class _Progress:
    """Keeps a progress notification apart from what follows it."""

    def __init__(self) -> None:
        self._last_at: float | None = None

    def keep_apart(self, line: bytes) -> None:
        """Waits before a line that follows a progress notification too closely."""
        if _PROGRESS in line[:256]:
            self._last_at = time.monotonic()
        elif self._last_at is not None:
            gap_s = self._last_at + PROGRESS_GAP_S - time.monotonic()
            self._last_at = None
            if gap_s > 0:
                time.sleep(gap_s)


def _answer_server(server: Pipe, data: bytes) -> None:
    """Writes to the server without waiting: it may not read before it has written."""
    if data:

        def write() -> None:
            with contextlib.suppress(OSError):
                server.write(data)

        threading.Thread(target=write, daemon=True).start()


def _lines_of(source: int, bytes_max: int) -> Iterator[list[bytes | Oversized]]:
    lines = Lines(bytes_max)
    while chunk := os.read(source, CHUNK_BYTES):
        yield lines.feed(chunk)
    yield lines.finish()
