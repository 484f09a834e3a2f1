"""Pumps: move the bytes between the pipes of a host and those of a server.

Two threads with blocking reads, which is as fast as an event loop gets here and has no
loop to block; a third books what was answered. Each line is written whole, under the
lock of its pipe, because refusals come in between.
"""

import contextlib
import fcntl
import os
import queue
import select
import stat
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from guardrails.system.logs import host_log
from guardrails_mcp.stdio.lines import Lines, Oversized
from guardrails_mcp.stdio.relay import Passage, Relay

__all__ = ["Ends", "Pipe", "drain", "pump_host", "pump_server", "take_pipes"]

CHUNK_BYTES = 65_536
"""The size of a pipe. A larger buffer costs more to allocate than it saves."""

LONG_BYTES = 262_144
"""From which length on a message has a pipe widened."""

WIDE_BYTES = 1_048_576
"""What a widened pipe holds: as much as Linux lets everybody have. All pipes of a user
together have a bound, so only those are widened that bring long messages."""

PROGRESS_WAIT_S = 0.1
"""How long an answer waits for its host to read the progress before it: typescript-sdk
up to 1.32 drops every notification that arrives in one read with its answer (issue
2580), and a relay would bring together what the server sent apart."""

PROGRESS_GAP_S = 0.002
"""What it waits where nobody can tell whether the host has read."""

PROGRESS_LOOK_S = 0.000_5
"""Between two looks whether it has."""

BOOKED_WITHIN_S = 0.005
"""How long an answer is kept before it is booked. A host that goes on at once books it
by its next call, so that no thread has to wait for another."""

STALL_S = 0.25
"""How often somebody who waits to write looks whether it is still wanted."""

DRAIN_S = 0.25
"""How long nothing may come of a server's output after its exit until it counts as
passed on: somebody it has started may hold it open for ever."""

UNREAD_S = 1.0
"""How long a host that has ended its server may read nothing of what is left: half of
what the MCP SDKs wait before they kill."""

QUEUED_MAX = 1_024
"""Answers of ours that wait for a server to read; it does not if it has more to read
than this. Those beyond are dropped, and it asks again or gives up."""

_PROGRESS = b"notifications/progress"

_log = host_log()

L = TypeVar("L", bytes, bytes | Oversized)
P = ParamSpec("P")
R = TypeVar("R")


class Pipe:
    """The writing end of a pipe. Thread safe.

    Args:
        fd: Its descriptor.
        is_ours: Whether nobody else writes to it, so that it may be made not to block.
    """

    def __init__(self, fd: int, *, is_ours: bool = False) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._is_closed = False
        self._queue: deque[bytes] = deque(maxlen=QUEUED_MAX)
        self._queue_lock = threading.Lock()
        self._has_writer = False
        self._is_wide = False
        self._unread_query = _unread_query(fd)
        self.written_bytes: int = 0
        self.is_waiting: bool = False
        """Whether data waits for its reader now."""
        if is_ours:
            os.set_blocking(fd, False)

    def write(self, data: bytes, *, stalled: Callable[[], None] | None = None) -> None:
        """Writes all of the data.

        Args:
            data: What to write.
            stalled: Called now and then while nobody reads it.

        Raises:
            OSError: If nobody reads any more, or it is closed.
        """
        if not data:
            return
        while not self._lock.acquire(timeout=STALL_S):
            if stalled is not None:
                stalled()
        try:
            if self._is_closed:
                raise BrokenPipeError
            self.is_waiting = True
            if len(data) >= LONG_BYTES and not self._is_wide:
                self._widen()
            written = self._write(data, stalled)
            if written < len(data):
                rest = memoryview(data)[written:]
                while rest:
                    rest = rest[self._write(rest, stalled) :]
        finally:
            self.is_waiting = False
            self._lock.release()

    def write_soon(self, data: bytes) -> None:
        """Writes without waiting: a server may not read before it has written."""
        with self._queue_lock:
            self._queue.append(data)
            if not self._has_writer:
                self._has_writer = True
                threading.Thread(target=self._write_queue, daemon=True).start()

    def unread_bytes(self) -> int | None:
        """Returns how much its reader has not read; `None` where nobody can tell."""
        if self._unread_query is None:
            return None
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(self._fd, self._unread_query, bytes(4))
            return int.from_bytes(answer, sys.byteorder)
        return None

    def close(self) -> None:
        """Closes it, so that the reader sees its end."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                with contextlib.suppress(OSError):
                    os.close(self._fd)

    def _widen(self) -> None:
        """Has it hold more: a long message takes fewer turns with its reader then."""
        self._is_wide = True
        if sys.platform == "linux":
            # It may be a socket, or the user's pipes hold too much already.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, WIDE_BYTES)

    def _write(
        self, data: bytes | memoryview, stalled: Callable[[], None] | None
    ) -> int:
        """Writes what fits, but not nothing."""
        while True:
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                if not poll.poll(STALL_S * 1_000) and stalled is not None:
                    stalled()
            else:
                self.written_bytes += written
                return written

    def _write_queue(self) -> None:
        while True:
            with self._queue_lock:
                if not self._queue:
                    self._has_writer = False
                    return
                data = self._queue.popleft()
            with contextlib.suppress(OSError):
                self.write(data)


def _unread_query(fd: int) -> int | None:
    """Returns what asks a pipe, or the socket that some hosts use as one."""
    mode = os.fstat(fd).st_mode
    if sys.platform != "linux":
        return None
    if stat.S_ISFIFO(mode):
        return termios.FIONREAD
    return termios.TIOCOUTQ if stat.S_ISSOCK(mode) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What both pumps work with."""

    relay: Relay
    server: Pipe
    host: Pipe
    bytes_max: int
    """Of a line that is passed on."""


def take_pipes() -> tuple[int, int]:
    """Takes the host's pipes from their usual places.

    Whatever writes to standard output now, by mistake, writes to standard error.
    """
    host_in, host_out = os.dup(0), os.dup(1)
    for fd in (host_in, host_out):
        os.set_blocking(fd, True)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return host_in, host_out


def pump_host(source: int, ends: Ends, *, ended: Callable[[], None]) -> None:
    """Moves what the host writes until its end, then closes the server's input.

    Args:
        source: Where the host writes to.
        ends: The other ends.
        ended: Called once the host has ended, also if the server does not read what it
            has still written. Perhaps more than once.
    """

    def stalled() -> None:
        if _is_hung_up(source):
            ended()

    try:
        for lines in _lines_of(source, ends.bytes_max):
            for line in lines:
                passage = _decided(ends.relay.from_host, line)
                if passage is None:
                    passage = ends.relay.undecided(line)
                try:
                    ends.server.write(passage.to_server, stalled=stalled)
                except OSError:
                    ends.relay.not_written(passage)
                    raise
                ends.host.write(passage.to_host)
        ended()
    except OSError:
        pass  # The server reads no more, and the host learns it as it would from it.
    finally:
        os.close(source)
        ends.server.close()


def pump_server(source: int, ends: Ends) -> None:
    """Moves what the server writes until its end, then closes the host's input."""
    progress, booker = _Progress(ends.host), _Booker(ends.relay)
    try:
        for lines in _lines_of(source, ends.bytes_max):
            for line in lines:
                passage = _decided(ends.relay.from_server, line)
                booker.soon()
                if passage is None:
                    passage = Passage(to_host=line if isinstance(line, bytes) else b"")
                if passage.to_server:
                    ends.server.write_soon(passage.to_server)
                if passage.to_host:
                    progress.keep_apart(passage.to_host)
                    ends.host.write(passage.to_host)
    except OSError:
        pass  # The host reads no more.
    finally:
        booker.end()
        ends.host.close()
        os.close(source)


def drain(
    pumping: threading.Thread,
    host: Pipe,
    *,
    bytes_max: int,
    is_over: Callable[[], bool],
) -> None:
    """Waits until what an exited server has written is with its host.

    Not for ever: somebody it has started may hold its output open, or fill it.

    Args:
        pumping: What runs `pump_server`.
        host: Where that writes to.
        bytes_max: How much a server may have left behind.
        is_over: Whether the host may read no more.
    """
    bytes_max += host.written_bytes
    moved_at = time.monotonic()
    while host.written_bytes <= bytes_max:
        written_bytes = host.written_bytes
        pumping.join(DRAIN_S)
        if not pumping.is_alive():
            return
        now = time.monotonic()
        if host.written_bytes > written_bytes:
            moved_at = now
        elif not host.is_waiting or (is_over() and now - moved_at >= UNREAD_S):
            return


def _decided(decide: Callable[[L], Passage], line: L) -> Passage | None:
    """Asks the relay; a failure of ours must not be one of the host's."""
    return _contained(decide, line)


def _contained(ask: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
    try:
        return ask(*args, **kwargs)
    except OSError:
        raise  # There is no guard.
    except Exception as error:
        # Only the type: the text of an error may hold content.
        _log.error("guardrails: relaying a line failed (%s)", type(error).__name__)
        return None


def _is_hung_up(source: int) -> bool:
    """Whether nobody can write to a pipe any more, though it may not be empty."""
    poll = select.poll()
    poll.register(source, 0)
    return bool(poll.poll(0))


class _Progress:
    """Keeps a progress notification apart from what follows it."""

    def __init__(self, host: Pipe) -> None:
        self._host = host
        self._last_at: float | None = None

    def keep_apart(self, line: bytes) -> None:
        """Waits before a line until the host has read the progress before it."""
        if _PROGRESS in line[:256]:
            self._last_at = time.monotonic()
        elif self._last_at is not None:
            unread_bytes = self._host.unread_bytes()
            wait_s = PROGRESS_GAP_S if unread_bytes is None else PROGRESS_WAIT_S
            give_up_at = self._last_at + wait_s
            self._last_at = None
            while unread_bytes != 0 and time.monotonic() < give_up_at:
                time.sleep(PROGRESS_LOOK_S)
                unread_bytes = self._host.unread_bytes()


class _Booker:
    """Books what a server has answered, if no call of its host does so before.

    In a thread of its own: no line of the server waits for the ledger.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._is_asked = False
        self._asked: queue.SimpleQueue[Relay | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def soon(self) -> None:
        """Has the answers booked that the relay keeps, if it keeps any."""
        if self._relay.has_answers and not self._is_asked:
            self._is_asked = True
            self._asked.put(self._relay)

    def end(self) -> None:
        """Books what is left."""
        self._asked.put(None)
        _contained(self._relay.book)

    def _run(self) -> None:
        while (relay := self._asked.get()) is not None:
            calls = -1
            while calls != relay.calls:  # A host that goes on books by itself.
                calls = relay.calls
                time.sleep(BOOKED_WITHIN_S)
            self._is_asked = False
            _contained(relay.book)


def _lines_of(source: int, bytes_max: int) -> Iterator[list[bytes | Oversized]]:
    lines = Lines(bytes_max)
    while chunk := os.read(source, CHUNK_BYTES):
        yield lines.feed(chunk)
    yield lines.finish()
