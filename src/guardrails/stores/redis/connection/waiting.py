"""Waiting: for work that asks a server several times, but not longer than it may take.

A socket's timeout bounds each of its operations. To open a connection takes several of
them, and a slow server would delay a call by their sum.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import redis

__all__ = ["SlowConnection", "awaited_within", "within"]

THREAD = "guardrails-waiting"
"""What threads are called that do such work."""

R = TypeVar("R")


class SlowConnection(redis.TimeoutError):
    """A connection is open, but so late that nothing was asked: it is for the next.

    To ask all the same would lose it, since a reply may come for which nobody waits,
    and a server that is far away would never be reached.
    """


def within(seconds: float, work: Callable[[], R], *, late: Callable[[R], object]) -> R:
    """Returns what work in another thread returns.

    Args:
        seconds: How long it may take.
        work: What to do. It ends by itself, some time.
        late: Given what it returns after that: what was opened must be closed.

    Raises:
        redis.TimeoutError: If it takes longer.
    """
    done = _begun(work, late)
    try:
        return done.result(seconds)
    except TimeoutError:
        if done.cancel():
            raise redis.TimeoutError("the server answers too slowly") from None
        return done.result()  # It came at this moment.
    finally:
        done.cancel()


async def awaited_within(seconds: float, work: Callable[[], R]) -> R:
    """Like `within`, for asyncio; what comes late is dropped.

    In a thread of its own: those of the event loop may all be busy with what the host
    does, and the loop waits for them when it ends.

    Raises:
        redis.TimeoutError: If it takes longer.
    """
    done = _begun(work, lambda _: None)
    try:
        # Not `asyncio.wait_for`: that of Python 3.11 loses a cancellation that comes
        # with the result, and an event loop that ends would wait for ever.
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(done)
    except TimeoutError:
        raise redis.TimeoutError("the server answers too slowly") from None


def _begun(work: Callable[[], R], late: Callable[[R], object]) -> "Future[R]":
    """Begins work in a thread, and returns what will have its result."""
    done: Future[R] = Future()

    def run() -> None:
        try:
            found = work()
        except BaseException as error:
            if done.set_running_or_notify_cancel():
                done.set_exception(error)
            return
        if done.set_running_or_notify_cancel():
            done.set_result(found)
        else:
            late(found)

    if not _started(run):
        run()
    return done


def _started(run: Callable[[], None]) -> bool:
    """Starts a thread, unless the interpreter ends: then there are no more."""
    if sys.is_finalizing():  # It would start, and never run.
        return False
    try:
        threading.Thread(target=run, name=THREAD, daemon=True).start()
    except RuntimeError:  # Python 3.12 says so itself, and earlier.
        return False
    return True
