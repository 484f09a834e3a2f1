"""Forks: closes what a child process must not inherit, before every fork."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from guardrails.system.logs import host_log
from guardrails.system.threads import WeakList

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
        self._lock = threading.RLock()
        close_at_fork(self)

    def before_fork(self) -> None:
        """Waits for whoever has the lock, and keeps others out."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Lets others in again."""
        self._lock.release()


_things: WeakList[Forkable] = WeakList()
_lock = threading.RLock()
"""Held during a fork, so that two threads do not fork at once. This one and those of
the things know who has them: who was kept from taking one cannot let it go."""


class _Closed(threading.local):
    """What this thread has closed for the fork that it is at."""

    things: Sequence[Forkable] | None = None
    """`None` if it is at none."""


_closed = _Closed()

_log = host_log()


def _before_fork() -> None:
    _lock.acquire()
    _closed.things = things = _things.alive()
    _each([thing.before_fork for thing in things])


def _after_fork() -> None:
    things, _closed.things = _closed.things, None
    if things is None:  # A server in C forked, and told Python only in the child.
        return
    try:
        _each([thing.after_fork for thing in things])
    finally:
        _lock.release()


def _each(steps: Iterable[Callable[[], None]]) -> None:
    """Takes all steps, whatever fails: one left out would block all that come after.

    Python goes on with the fork in any case, and says what is raised here.
    """
    interrupt: BaseException | None = None
    for step in steps:
        try:
            step()
        except Exception as error:
            _log.error("guardrails: at a fork failed (%s)", type(error).__name__)
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
