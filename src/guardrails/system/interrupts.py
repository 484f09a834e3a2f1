"""Interrupts: what is done to its end although somebody breaks it off meanwhile.

Ctrl-C, a signal's handler that raises, and greenlets that are killed come between any
two steps of the code, also between what the store has booked and what would have heard
of it. What may be done twice is then done again, and the interrupt goes on afterwards.
A second interrupt in that very moment is not held up.
"""

import asyncio
import contextlib
import functools
import sys
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from guardrails.core.tracebacks import interrupt_in

__all__ = ["all_or_nothing", "is_broken_off", "to_its_end", "unbroken"]

P = ParamSpec("P")
R = TypeVar("R")


def unbroken(work: Callable[P, R]) -> Callable[P, R]:
    """Has something done again if an interrupt breaks it off. It may be done twice."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except BaseException as error:
            if interrupt_in(error) is not None:
                work(*args, **kwargs)
            raise

    return run


def all_or_nothing(do: Callable[[], R], undo: Callable[[], object]) -> R:
    """Does something, and undoes it if an interrupt breaks it off."""
    try:
        return do()
    except BaseException as error:
        if interrupt_in(error) is not None:
            undo()
        raise


async def to_its_end(
    work: Coroutine[Any, Any, R], *, or_at_once: Callable[[], object]
) -> "tuple[asyncio.Task[R], asyncio.CancelledError | None]":
    """Waits until the work is done, although this task may be cancelled meanwhile.

    A store's answer takes milliseconds, and without it nobody would know what is
    held. So a cancellation waits for it, and is returned to be raised then.

    Args:
        work: What is waited for.
        or_at_once: What does the same where nobody waits any more: this coroutine is
            thrown away, or the work was broken off. It may be done twice then.
    """
    try:
        task = asyncio.ensure_future(work)
    except BaseException:  # Where tasks start eagerly it may be broken off at once.
        or_at_once()
        raise
    cancelled: asyncio.CancelledError | None = None
    told_once = contextlib.ExitStack()
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancelled is None:
                _tell_once(told_once)
            cancelled = error
        except BaseException:  # Closed, maybe after its loop.
            or_at_once()
            raise
    told_once.close()
    if is_broken_off(task):
        or_at_once()
    return task, cancelled


def is_broken_off(work: "asyncio.Task[Any]") -> bool:
    """Whether a task was ended from outside, so that it may have done all or nothing.

    By the end of its event loop, or by Ctrl-C in a loop that does not make a
    cancellation of it. Then the interrupt has already left the loop.
    """
    if work.cancelled():
        return True
    error = work.exception()
    return error is not None and interrupt_in(error) is not None


def _tell_once(stack: contextlib.ExitStack) -> None:
    """Has anyio, where it is used, cancel this task no more until the stack is closed.

    A scope of anyio cancels what is inside in every turn of the event loop until it is
    left, as Starlette does when a client goes away. Waiting in it keeps the loop busy,
    and the thread waiting that could answer.
    """
    anyio: Any = sys.modules.get("anyio")
    if anyio is not None:
        with contextlib.suppress(Exception):  # It only saves time.
            stack.enter_context(anyio.CancelScope(shield=True))
