"""Processes: what this system offers so that no child is left behind.

The proxied server stays in the process group of its host, because hosts end their
servers with `killpg`. What a group cannot do, Linux does: the death of a parent is
signalled to its child, and orphans come to the nearest ancestor that asks for them.
Elsewhere both do nothing, and only the server itself is ended, not what it has started.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "adopt_orphans",
    "block_signals",
    "descendants",
    "die_by",
    "dies_with_parent",
    "kill_all",
    "parent_of",
    "reaped",
    "unblock_signals",
]

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What hosts, terminals and service managers end a server with."""


_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def dies_with_parent(signal_number: int, parent: int) -> None:
    """Has this process signalled when its parent dies, or if it is dead already."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)


def block_signals() -> list[int]:
    """Blocks the signals that end a process, and those of its children's ends.

    Whoever waits for them misses none, which a handler in Python may: it is only run
    once its thread runs again.

    Returns:
        What to wait for. A signal that is ignored is not among them, and stays ignored
        in all that this process starts.
    """
    heard = [
        int(number)
        for number in ENDING_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    heard.append(int(signal.SIGCHLD))
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    return heard


def unblock_signals() -> None:
    """Ends `block_signals`, in a process that was started meanwhile."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*ENDING_SIGNALS, signal.SIGCHLD})


def reaped() -> Iterator[tuple[int, int]]:
    """Buries the children that are dead, and yields their ids and statuses."""
    with contextlib.suppress(ChildProcessError):  # There are none.
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, status


def adopt_orphans() -> None:
    """Becomes the parent of descendants whose parents die."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int, *, of_session: int | None = None) -> list[int]:
    """Returns the processes below one, children first; none where it cannot be told.

    Args:
        root: The process id at the top, which is not among them.
        of_session: Only those of this session: the others have detached themselves.
    """
    children: dict[int, list[tuple[int, int]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(folder)
        if fields is None:
            continue
        parent, session = int(fields[1]), int(fields[3])
        children.setdefault(parent, []).append((int(folder.name), session))
    found: list[int] = []
    waiting = [root]
    while waiting:
        for child, session in children.get(waiting.pop(0), ()):
            waiting.append(child)
            if of_session is None or session == of_session:
                found.append(child)
    return found


def parent_of(pid: int) -> int | None:
    """Returns the parent of a process; `None` where it cannot be told."""
    fields = _stat(Path("/proc") / str(pid))
    return None if fields is None else int(fields[1])


def _stat(folder: Path) -> list[str] | None:
    """Returns the fields of a process after its name: state, parent, group, session."""
    try:
        # The name stands in parentheses and may hold anything: proc(5).
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def kill_all(pids: list[int], signal_number: int) -> None:
    """Signals processes; those that are gone are no failure."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal_number)


def die_by(status: int) -> int:
    """Ends as a child did: by the same signal, or with the same code.

    Args:
        status: The child's status, as of `os.waitpid`.

    Returns:
        The exit code, if it was none of a signal.
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    with contextlib.suppress(Exception):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # One core file is enough.
    with contextlib.suppress(OSError, ValueError):
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
    os.kill(os.getpid(), -code)
    return 128 - code  # For a signal that does not end this process.
