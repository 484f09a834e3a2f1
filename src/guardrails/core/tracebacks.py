"""Tracebacks: whether an exception is a failure, or an interrupt from outside.

The time limits of Celery, of RQ and of `signal.alarm` raise an `Exception`, which looks
like a failure of the line that it came at. Its traceback tells: a signal's handler is
given the frame that it interrupts, and is the next one in it.

Another thread can send one, too, as time limits do that know no signals: those of RQ on
Windows, and of stopit. It comes out of code of ours, between two steps of it, although
nothing there can raise one of its class.
"""

import sys
from itertools import pairwise
from types import FrameType
from typing import cast

__all__ = ["interrupt_in", "let_through"]

CONTEXTS_MAX = 8
"""Errors behind an error that are looked at."""

OURS = (
    *("guardrails.charges.", "guardrails.core.", "guardrails.engine."),
    *("guardrails.observing.", "guardrails.sessions.guarded_call."),
    *("guardrails.sessions.layering.", "guardrails.sessions.scope."),
    *("guardrails.sessions.session.", "guardrails.stores."),
    *("guardrails.system.", "redis."),
)
"""Modules and packages of which most read no objects of the host."""

READING = ("guardrails.core.fingerprints.", "guardrails.core.plain.")
"""Those that do. What they read may be written in C, and raise anything."""

KNOWN = sys.stdlib_module_names | {
    *("guardrails", "redis", "hiredis", "pydantic", "pydantic_core", "tenacity"),
    *("gevent", "greenlet", "eventlet"),
}
"""Packages whose errors come out of `OURS`; those of the last ones out of any lock."""


def interrupt_in(error: BaseException) -> BaseException | None:
    """Returns the interrupt that an error is, or that somebody has made an error of.

    Whoever waits for a server takes the `TimeoutError` of an alarm for his own.
    """
    for _ in range(CONTEXTS_MAX):
        frames = _frames_of(error)
        if not isinstance(error, Exception) or _is_of_a_handler(frames):
            return error
        if _is_a_stranger(error, frames):
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


def _is_a_stranger(error: Exception, frames: list[FrameType]) -> bool:
    """Whether it comes out of code of ours that can raise nothing of its class."""
    if type(error).__module__.partition(".")[0] in KNOWN:
        return False
    for frame in reversed(frames):
        module = f"{frame.f_globals.get('__name__')}."
        if module.partition(".")[0] not in sys.stdlib_module_names:
            return module.startswith(OURS) and not module.startswith(READING)
    return False


def _frames_of(error: BaseException) -> list[FrameType]:
    """Returns the frames that an error has left, the innermost last."""
    step, frames = error.__traceback__, list[FrameType]()
    while step is not None:
        frames.append(step.tb_frame)
        step = step.tb_next
    return frames
