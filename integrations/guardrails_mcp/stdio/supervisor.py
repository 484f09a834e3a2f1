"""The supervisor: sees that nothing is left behind, whoever dies first.

    host ── supervisor ── proxy ── server ── what the server starts

The host knows the supervisor, and kills it if it kills anything; the proxy is told of
that death by the kernel, ends the server and books what was under way. If the proxy is
killed, the supervisor ends what is below it. Both adopt orphans, so a server behind
`npx` or a shell is found as well. A fork takes a millisecond and shares its memory.
"""

import contextlib
import os
import signal
import traceback
from collections.abc import Callable
from types import FrameType

from guardrails_mcp.stdio.processes import (
    adopt_orphans,
    descendants,
    die_by,
    dies_with_parent,
    kill_all,
)

__all__ = ["ENDING_SIGNALS", "ending_signals", "supervised"]

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What hosts, terminals and service managers end a server with."""


def ending_signals() -> list[signal.Signals]:
    """Returns those that end this process; who ignores one hands that down."""
    return [
        number
        for number in ENDING_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    ]


def supervised(run: Callable[[], int]) -> int:
    """Runs a proxy in a process of its own, and returns its exit code.

    A proxy that ends by a signal ends this process by the same.

    Args:
        run: Runs the proxy until its end.
    """
    supervisor = os.getpid()
    adopt_orphans()
    # Until the handlers stand, a signal waits: it must reach the proxy.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    proxy = os.fork()
    if not proxy:
        code = 1
        try:
            dies_with_parent(signal.SIGTERM, supervisor)
            code = run()
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    return _supervise(proxy)


def _supervise(proxy: int) -> int:
    def forward(signal_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(proxy, signal_number)

    for signal_number in ending_signals():
        signal.signal(signal_number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    _leave_pipes()
    status = _wait(proxy)
    if os.WIFSIGNALED(status):
        # It could not end what is below it. Orphans arrive while we look.
        while left := descendants(os.getpid()):
            kill_all(left, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
    return die_by(status)


def _leave_pipes() -> None:
    """Lets go of the host's pipes, which end when the proxy lets go of them."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _wait(proxy: int) -> int:
    """Waits for the proxy, and buries the orphans that it left meanwhile."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == proxy:
            return status
