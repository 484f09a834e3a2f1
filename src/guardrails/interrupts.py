"""Interrupts: what is done to its end although somebody breaks it off meanwhile.

Ctrl-C, a signal's handler that raises, and greenlets that are killed come between any
two steps of the code, also between what the store has booked and what would have heard
of it. What may be done twice is then done again, and the interrupt goes on afterwards.
A second interrupt in that very moment is not held up.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

__all__ = ["all_or_nothing", "to_its_end", "unbroken"]

P = ParamSpec("P")
R = TypeVar("R")


def unbroken(work: Callable[P, R]) -> Callable[P, R]:
    """Has something done again if an interrupt breaks it off. It may be done twice."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except Exception:
            raise
        except BaseException:
            work(*args, **kwargs)
            raise

    return run


def all_or_nothing(do: Callable[[], R], undo: Callable[[], object]) -> R:
    """Does something, and undoes it if an interrupt breaks it off."""
    try:
        return do()
    except Exception:
        raise
    except BaseException:
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
        or_at_once: What does the same for a coroutine that is thrown away while it
            waits, and may wait no more. The work may still be done before or after it.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # Closed, maybe after its loop.
            or_at_once()
            raise
    return task, cancelled
