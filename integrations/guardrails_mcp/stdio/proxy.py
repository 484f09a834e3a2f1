"""The proxy: runs one server behind the relay, from its start to its end.

The main thread starts the server, before anything slow is imported, and then waits
for events: a signal, the end of a pipe, the death of the server. Each event may set a
ladder of ever stronger ends; the server's exit always wins. What becomes of us:

* the server exits: what it had not finished writing is passed on, then we exit alike;
* the host closes our input: the server's input is closed, too, and it may finish what
  it was asked. Only if it goes on after that is it ended;
* a signal: it is passed on, and followed by SIGKILL if the server ignores it;
* the guard cannot be built: the server is ended, and we exit as any command does then.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardrails_mcp.stdio.processes import (
    adopt_orphans,
    block_signals,
    descendants,
    die_by,
    dies_with_parent,
    kill_all,
    parent_of,
    reaped,
    unblock_signals,
)

if TYPE_CHECKING:
    from guardrails import Guard
    from guardrails_mcp.stdio.meters import Meter
    from guardrails_mcp.stdio.pumps import Pipe
    from guardrails_mcp.stdio.relay import Relay

__all__ = ["Proxy"]

EOF_GRACE_S = 3.0
"""How long a server may live after the end of its input with nothing left to answer."""

EOF_GRACE_BUSY_S = 60.0
"""The same while a call is under way: what was asked before the end is still paid."""

KILL_GRACE_S = 2.0
"""Between a signal and SIGKILL: as long as the MCP SDKs give a server."""

LEFTOVERS_GRACE_S = 1.0
"""Between SIGTERM and SIGKILL for processes that the server has left behind."""

ECHO_S = 0.1
"""A signal to our whole group comes to the proxy twice, the second time by way of the
supervisor. The server has had it, too, and may take a third one as an insult."""

HOST_CHECK_S = 0.5
"""Between two looks whether a host that closed our input is dead."""

EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE = 127, 126
"""As in a shell."""

EXIT_CONFIGURATION, EXIT_STORE = 2, 4
"""As of every command of ours."""


@dataclass(frozen=True, slots=True)
class _Exited:
    status: int


@dataclass(frozen=True, slots=True)
class _Signalled:
    number: int


@dataclass(frozen=True, slots=True)
class _HostEnded:
    """The host closed our input."""


@dataclass(frozen=True, slots=True)
class _Unheard:
    """Nothing moves from the host to the server any more."""


@dataclass(frozen=True, slots=True)
class _Failed:
    code: int


_Event = _Exited | _Signalled | _HostEnded | _Unheard | _Failed


class Proxy:
    """One server and the pipes to it.

    Args:
        command: The server's command line.
        environ: Its environment.
        server: What it is called in prices, limits and reports.
        bytes_max: The length of a line that is still passed on.
        host: The process that has started the supervisor.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        server: str,
        bytes_max: int,
        host: int,
    ) -> None:
        self._command = command
        self._environ = environ
        self._server = server
        self._bytes_max = bytes_max
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._guard: Guard | None = None
        self._meter: Meter | None = None
        self._meter_ready = threading.Event()
        self._relay: Relay | None = None
        self._rungs: list[tuple[float, int]] = []
        """When to send which signal to the server, soonest first."""
        self._is_ending = False
        self._has_host_ended = False
        self._is_unheard = False
        self._last_signal: tuple[int, float] = (0, 0.0)
        self._host = host
        self._pid = 0
        """The server's."""

    def run(self) -> int:
        """Runs the server until its end, and returns its exit code."""
        adopt_orphans()
        heard = block_signals()
        try:
            child = self._start()
        except OSError as error:
            return _not_started(self._command[0], error)
        self._pid = child.pid
        _thread(lambda: self._hear(heard))
        from_server, host_out = self._pump(child)
        status = self._until_exit()
        child.returncode = status  # It is reaped: nothing is left to wait for.
        self._drain(from_server, host_out)
        self._end_leftovers()
        if self._relay is not None:
            self._relay.server_is_gone()
        if self._guard is not None:
            self._guard.close()
        return die_by(status)

    # --- start --------------------------------------------------------------

    def _start(self) -> "subprocess.Popen[bytes]":
        parent = os.getpid()

        def in_child() -> None:
            unblock_signals()
            dies_with_parent(signal.SIGKILL, parent)

        # Its errors are its own: standard error is the host's, as is all else that the
        # host has opened for it; what we open closes by itself. S603: to run what the
        # command line says is what this is for. PLW1509: there is no thread yet.
        return subprocess.Popen(  # noqa: S603
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environ,
            bufsize=0,
            close_fds=False,
            preexec_fn=in_child,  # noqa: PLW1509
        )

    def _pump(
        self, child: "subprocess.Popen[bytes]"
    ) -> tuple[threading.Thread, "Pipe"]:
        """Starts to move bytes; a call waits until the guard is there.

        Returns:
            What moves the server's output, and where to.
        """
        # Imported once the server has been started.
        from guardrails_mcp.stdio.pumps import (
            Ends,
            Pipe,
            pump_host,
            pump_server,
            take_pipes,
        )
        from guardrails_mcp.stdio.relay import Relay

        assert child.stdin is not None
        assert child.stdout is not None
        host_in, host_out = take_pipes()
        relay = self._relay = Relay(self._metered, bytes_max=self._bytes_max)
        ends = Ends(
            relay=relay,
            server=Pipe(os.dup(child.stdin.fileno()), is_ours=True),
            host=Pipe(host_out),
            bytes_max=self._bytes_max,
        )
        server_out = os.dup(child.stdout.fileno())
        child.stdin.close()
        child.stdout.close()

        def from_host() -> None:
            pump_host(host_in, ends, ended=lambda: self._put(_HostEnded()))
            self._put(_Unheard())

        _thread(from_host)
        from_server = _thread(lambda: pump_server(server_out, ends))
        _thread(self._load)
        return from_server, ends.host

    def _load(self) -> None:
        """Builds the guard."""
        from guardrails import ConfigurationError, Guard, StoreUnavailable
        from guardrails_mcp.stdio.metering import GuardMeter

        try:
            self._guard = Guard()
            self._meter = GuardMeter(self._guard, self._server)
        except ConfigurationError as error:
            self._fail(EXIT_CONFIGURATION, str(error))
        except StoreUnavailable as error:
            self._fail(EXIT_STORE, str(error))
        except Exception as error:
            self._fail(1, f"no guard can be built ({type(error).__name__}: {error}).")
        finally:
            self._meter_ready.set()

    def _fail(self, code: int, text: str) -> None:
        _say(text)
        self._put(_Failed(code))

    def _metered(self) -> "Meter":
        self._meter_ready.wait()
        if self._meter is None:
            raise OSError("no guard, so nothing is passed on")
        return self._meter

    # --- end ----------------------------------------------------------------

    def _until_exit(self) -> int:
        failed: int | None = None
        while True:
            self._climb()
            try:
                event = self._events.get(timeout=self._next_rung_s())
            except queue.Empty:
                continue
            match event:
                case _Exited(status):
                    return status if failed is None else failed << 8
                case _Signalled(number):
                    self._pass_on(number)
                case _Failed(code):
                    failed = code
                    self._end_from(time.monotonic())
                case _HostEnded():
                    self._host_ended()
                case _Unheard():
                    self._is_unheard = True

    def _pass_on(self, number: int) -> None:
        last, at = self._last_signal
        now = time.monotonic()
        self._last_signal = number, now
        if number == last and now - at < ECHO_S:
            return
        self._is_ending = True
        kill_all([self._pid], number)
        self._rungs = [(now + KILL_GRACE_S, signal.SIGKILL)]

    def _host_ended(self) -> None:
        if self._has_host_ended:
            return
        self._has_host_ended = True
        if not self._rungs:
            self._end_from(time.monotonic() + EOF_GRACE_BUSY_S)

    def _end_from(self, at: float) -> None:
        """Sets a ladder whose first rung is due at some time."""
        self._rungs = [(at, signal.SIGTERM), (at + KILL_GRACE_S, signal.SIGKILL)]

    def _next_rung_s(self) -> float | None:
        is_watching = self._has_host_ended or self._is_unheard
        look_s = HOST_CHECK_S if is_watching and not self._is_ending else None
        if not self._rungs:
            return look_s
        due_s = max(0.0, self._rungs[0][0] - time.monotonic())
        return due_s if look_s is None else min(due_s, look_s)

    def _climb(self) -> None:
        """Takes the next rung of the ladder, if its time has come."""
        now = time.monotonic()
        if not self._is_ending:
            self._look_at_host(now)
        while self._rungs and self._rungs[0][0] <= now:
            number = self._rungs.pop(0)[1]
            self._is_ending = True
            kill_all([self._pid], number)
            if number == signal.SIGKILL:
                kill_all(descendants(os.getpid()), number)

    def _look_at_host(self, now: float) -> None:
        """Brings the end forward once nobody waits for an answer any more."""
        assert self._relay is not None
        is_watching = self._has_host_ended or self._is_unheard
        if is_watching and self._is_host_dead():
            self._end_from(now)
        elif self._has_host_ended and self._relay.is_idle:
            due = self._rungs[0][0] if self._rungs else now + EOF_GRACE_S
            self._end_from(min(due, now + EOF_GRACE_S))

    def _is_host_dead(self) -> bool:
        return parent_of(os.getppid()) not in (self._host, None)

    def _drain(self, from_server: threading.Thread, host_out: "Pipe") -> None:
        """Waits until what the server has written is with the host."""
        from guardrails_mcp.stdio.pumps import drain

        bytes_max = 2 * self._bytes_max
        drain(from_server, host_out, bytes_max=bytes_max, is_over=self._is_over)

    def _is_over(self) -> bool:
        """Whether the host has ended us, or is dead: it may read no more."""
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, _Signalled):
                self._last_signal = event.number, time.monotonic()
        return self._last_signal[0] > 0 or self._is_host_dead()

    def _end_leftovers(self) -> None:
        """Ends what the server has started and left behind.

        A server that exits by itself may leave a daemon that has detached itself from
        our session; where we end the server, nothing stays.
        """
        session = None if self._is_ending else os.getsid(0)
        until = time.monotonic() + LEFTOVERS_GRACE_S
        number: int = signal.SIGTERM
        while left := descendants(os.getpid(), of_session=session):
            kill_all(left, number)
            if time.monotonic() > until:
                if number == signal.SIGKILL:
                    return  # The kernel does not let go of it, or it is not ours.
                until += LEFTOVERS_GRACE_S
                number = signal.SIGKILL
            time.sleep(0.01)

    def _hear(self, heard: Collection[int]) -> None:
        """Makes events of signals: a handler would wait while the main thread does."""
        self._bury()
        while True:
            number = signal.sigwait(heard)
            if number == signal.SIGCHLD:
                self._bury()
            else:
                self._put(_Signalled(number))

    def _bury(self) -> None:
        """Reaps all that has died below this process."""
        for pid, status in reaped():
            if pid == self._pid:
                self._put(_Exited(status))

    def _put(self, event: _Event) -> None:
        self._events.put(event)


def _thread(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _not_started(command: str, error: OSError) -> int:
    _say(f"{command}: {error.strerror or error}")
    is_missing = isinstance(error, FileNotFoundError)
    return EXIT_NOT_FOUND if is_missing else EXIT_NOT_EXECUTABLE


def _say(text: str) -> None:
    sys.stderr.write(f"guardrails: {text}\n")
    sys.stderr.flush()
