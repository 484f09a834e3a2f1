"""Tracebacks: whether an exception is a failure, or an interrupt from outside.

The time limits of Celery, of RQ and of `signal.alarm` raise an `Exception`, which looks
like a failure of the line that it came at. Its traceback tells: a signal's handler is
given the frame that it interrupts, and is the next one in it.
"""

from itertools import pairwise
from types import FrameType
from typing import cast

__all__ = ["interrupt_in", "let_through"]

CONTEXTS_MAX = 8
"""Errors behind an error that are looked at."""


def interrupt_in(error: BaseException) -> BaseException | None:
    """Returns the interrupt that an error is, or that somebody has made an error of.

    Whoever waits for a server takes the `TimeoutError` of an alarm for his own.
    """
    for _ in range(CONTEXTS_MAX):
        frames = _frames_of(error)
        if not isinstance(error, Exception) or _is_of_a_handler(frames):
            return error
        context = error.__context__
        # What the host was dealing with before was caught by a frame of the host.
        if context is None or not set(_frames_of(context)[:1]) & set(frames):
            return None
        error = context
    return None


def let_through(error: BaseException) -> None:
    """Raises the interrupt that an error is, so that nobody deals with it as one."""
    if (interrupt := interrupt_in(error)) is not None:
        raise interrupt


def _is_of_a_handler(frames: list[FrameType]) -> bool:
    for interrupted, frame in pairwise(frames):
        for value in frame.f_locals.values():
            # `lambda *_: ...` is a handler, too.
            is_many = isinstance(value, tuple)
            given = cast("tuple[object, ...]", value if is_many else (value,))
            if any(one is interrupted for one in given):
                return True
    return False


def _frames_of(error: BaseException) -> list[FrameType]:
    """Returns the frames that an error has left, the innermost last."""
    step, frames = error.__traceback__, list[FrameType]()
    while step is not None:
        frames.append(step.tb_frame)
        step = step.tb_next
    return frames
