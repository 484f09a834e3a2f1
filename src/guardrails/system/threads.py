"""Threads: what they need to know of each other, and may use at the same time."""

import asyncio
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

__all__ = [
    "TaskReference",
    "WeakList",
    "Worker",
    "apart",
    "asking",
    "is_on_event_loop",
    "may_block",
    "new_lock",
    "off_event_loop",
    "running_task",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

TaskReference: TypeAlias = weakref.ref[asyncio.Task[Any]]

WATCHER = "blockbuster"
"""Has whatever could block an event loop raise there. `langgraph dev` starts it."""

THREAD = "guardrails-worker"
"""What the threads of workers are called."""


asking: set[int] = set()
"""The threads that are in the middle of an operation on a ledger, by their ids.

What comes then comes between two of its steps, and would have to wait for them: a
signal's handler, and what the collector of garbage ends, such as a stream with a call
around it that nobody reads any more. Not a `threading.local`: gevent may take its place
after this module was imported.
"""


def is_on_event_loop() -> bool:
    """Whether this thread is running an event loop now."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def running_task() -> TaskReference | None:
    """Returns which task runs; `None` outside of asyncio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # No event loop runs in this thread.
        return None
    return None if task is None else weakref.ref(task)


def may_block(work: Callable[P, R]) -> Callable[P, R]:
    """Has a function use files and sockets also where somebody watches event loops.

    For what a synchronous hook has to ask before a call is made, in microseconds. The
    watcher looks for a running loop, so meanwhile there is none.
    """

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if WATCHER not in sys.modules or not is_on_event_loop():
            return work(*args, **kwargs)
        loop = asyncio.get_running_loop()
        try:
            asyncio._set_running_loop(None)
            return work(*args, **kwargs)
        finally:
            asyncio._set_running_loop(loop)

    return run


def off_event_loop(ask: Callable[[], T]) -> T:
    """Asks in a thread if this one runs an event loop, which waits for the answer.

    For what is asked once, at the start: a store gives a call that holds an event loop
    up hardly any time.
    """
    if not is_on_event_loop():
        return ask()
    with ThreadPoolExecutor(1) as pool:
        try:
            asking = pool.submit(ask)
        except RuntimeError:  # As in `Worker.do`.
            return ask()
        return asking.result()


class Worker:
    """Does in a thread of its own what would hold an event loop up. Thread safe.

    The threads of the loop may all be busy with what the host does, and that may even
    wait for what is to be done here.
    """

    def __init__(self) -> None:
        self._lock = new_lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process_id = os.getpid()

    async def do(self, work: Callable[[], R]) -> R:
        """Returns what the work returns. One piece of work is done after the other."""
        with self._lock:
            if self._pool is None or self._process_id != os.getpid():
                # A forked child has no thread of its parent's.
                self._pool = ThreadPoolExecutor(1, thread_name_prefix=THREAD)
                self._process_id = os.getpid()
            try:
                doing = self._pool.submit(work)
            except RuntimeError:  # The interpreter ends, or there is no other thread.
                self._pool, doing = None, None
        return work() if doing is None else await asyncio.wrap_future(doing)

    def close(self) -> None:
        """Ends the thread once it has done its work. More work begins another."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._process_id == os.getpid():
            pool.shutdown(wait=False)


async def apart(work: Callable[[], R]) -> R:
    """Does one thing as a `Worker` does."""
    worker = Worker()
    try:
        return await worker.do(work)
    finally:
        worker.close()


class WeakList(Generic[T]):
    """Things, for as long as they live. Thread safe.

    A `WeakSet` is not: going through it fails when another thread adds to it.
    """

    def __init__(self) -> None:
        self._references: list[weakref.ref[T]] = []

    def add(self, thing: T) -> None:
        """Adds a thing; once it is gone, so is its place."""
        self._references.append(weakref.ref(thing, self._references.remove))

    def alive(self) -> list[T]:
        """Returns the things that are still there, in the order they came."""
        # Copying a tuple, adding and removing are one step each for other threads.
        found = [reference() for reference in tuple(self._references)]
        return [thing for thing in found if thing is not None]


def new_lock() -> threading.RLock:
    """Returns a lock that is free in a forked child, whoever had it in the parent.

    Else the child could inherit it from a thread that it does not have, and nobody
    there would ever let it go. What it guards must do for a child at any moment: a
    fork does not wait. What must not be seen half done is for `forks`.
    """
    lock = threading.RLock()
    _locks.add(weakref.ref(lock, _locks.discard))
    return lock


_locks: set[weakref.ref[threading.RLock]] = set()
"""Adding, removing and copying are one step each for other threads."""


def _free_locks() -> None:
    # A new thread may have the id of one that was asking in the parent.
    asking.intersection_update({threading.get_ident()})
    for reference in _locks.copy():
        lock = reference()
        if lock is None:
            continue
        if lock.acquire(blocking=False):  # Free, or had by the thread that forked.
            lock.release()
        else:
            # Python's own modules do it so. The types of the library leave it out.
            lock._at_fork_reinit()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_free_locks)
