"""Waiting: what tells that nobody waits for a model call any more.

A time limit around `ainvoke` cancels its task and takes that back: the call is over and
its task goes on, and no callback says so. But what LangChain keeps while it waits for a
call, it lets go.
"""

import inspect
from collections.abc import Callable

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.language_models import BaseChatModel

__all__ = ["is_inside", "kept_while_waiting"]

FRAMES_MAX = 16
"""Frames between a hook of ours and LangChain's: four, and room for wrappers."""

DEPTH_MAX = 1_000
"""Frames of a task that are looked at: as many as Python allows by default."""


def _code_of(function: Callable[..., object]) -> object:
    """Returns the code of a function, also of one that a tracer has wrapped before."""
    return getattr(inspect.unwrap(function), "__code__", None)


_STARTING = _code_of(AsyncCallbackManager.on_chat_model_start)
_WAITING = _code_of(BaseChatModel.agenerate)
_KEPT = "callback_manager"


def kept_while_waiting() -> object | None:
    """Returns what only the code holds that waits for the call which starts now.

    That is the callback manager of `agenerate`, made for that call (langchain-core
    1.3.3 to 1.8.3). `None` where other code tells of the start: it may hold nothing.
    """
    frame = inspect.currentframe()
    for _ in range(FRAMES_MAX):
        if frame is None or frame.f_code is _STARTING:
            break
        frame = frame.f_back
    if frame is None or frame.f_back is None or frame.f_back.f_code is not _WAITING:
        return None
    manager: object = frame.f_locals.get("self")
    return manager if isinstance(manager, AsyncCallbackManager) else None


def is_inside(kept: object) -> bool:
    """Whether the running code is a part of the call that keeps this while it waits.

    As where one of its handlers is told of its start, and makes a call of its own.
    """
    frame = inspect.currentframe()
    for _ in range(DEPTH_MAX):
        if frame is None:
            break
        if frame.f_code is _WAITING and frame.f_locals.get(_KEPT) is kept:
            return True
        frame = frame.f_back
    return False
