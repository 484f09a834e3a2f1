"""Forks: closes what a child process must not inherit, before every fork."""

import os
import threading
from typing import Protocol

from guardrails.threads import WeakList

__all__ = ["Forkable", "LockedAtFork", "close_at_fork"]


class Forkable(Protocol):
    """Something open that two processes must not share."""

    def before_fork(self) -> None:
        """Waits for what is running, keeps others out, and closes."""
        ...

    def after_fork(self) -> None:
        """Lets others in again; runs in the parent and in the child."""
        ...


def close_at_fork(thing: Forkable) -> None:
    """Closes a thing before every fork, for as long as it lives."""
    _things.add(thing)


class LockedAtFork:
    """Something whose lock a fork waits for.

    Else the child could inherit it from a thread that it does not have, and nobody
    there would ever let it go.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        close_at_fork(self)

    def before_fork(self) -> None:
        """Waits for whoever has the lock, and keeps others out."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Lets others in again."""
        self._lock.release()


_things: WeakList[Forkable] = WeakList()
_lock = threading.Lock()
"""Held during a fork, so that two threads do not fork at once."""
_closed: list[Forkable] = []


def _before_fork() -> None:
    _lock.acquire()
    _closed[:] = _things.alive()
    for thing in _closed:
        thing.before_fork()


def _after_fork() -> None:
    for thing in _closed:
        thing.after_fork()
    _closed.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
