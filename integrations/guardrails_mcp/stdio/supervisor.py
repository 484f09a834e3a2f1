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
from collections.abc import Callable, Collection

from guardrails_mcp.stdio.processes import (
    adopt_orphans,
    block_signals,
    descendants,
    die_by,
    dies_with_parent,
    kill_all,
    reaped,
)

__all__ = ["supervised"]


def supervised(run: Callable[[], int]) -> int:
    """Runs a proxy in a process of its own, and returns its exit code.

    A proxy that ends by a signal ends this process by the same.

    Args:
        run: Runs the proxy until its end.
    """
    supervisor = os.getpid()
    _take_closed_places()
    adopt_orphans()
    # From now on no signal is lost: each must reach the proxy.
    heard = block_signals()
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
    return _supervise(proxy, heard)


def _supervise(proxy: int, heard: Collection[int]) -> int:
    _leave_pipes()
    status = _wait(proxy, heard)
    if os.WIFSIGNALED(status):
        # It could not end what is below it. Orphans arrive while we look.
        while left := descendants(os.getpid()):
            kill_all(left, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
    return die_by(status)


def _take_closed_places() -> None:
    """Opens what the host has closed of standard input, output and error.

    What is opened next would take its place, and be taken for the host's.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # All below it are open, so that this is the next one.
            null = os.open(os.devnull, os.O_RDWR)  # FBT003: there is no keyword.
            os.set_inheritable(null, True)  # noqa: FBT003


def _leave_pipes() -> None:
    """Lets go of the host's pipes, which end when the proxy lets go of them."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _wait(proxy: int, heard: Collection[int]) -> int:
    """Waits for the proxy, passes signals on, and buries the orphans that it leaves."""
    while True:
        number = signal.sigwait(heard)
        if number != signal.SIGCHLD:
            kill_all([proxy], number)
            continue
        for pid, status in reaped():
            if pid == proxy:
                return status
