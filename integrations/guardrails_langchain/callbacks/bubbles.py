"""Bubbles: stops in a form that LangChain's layers let through.

LangGraph treats `GraphBubbleUp` as control flow: tool nodes, retry policies and
middlewares hand it on instead of turning it into a message, retrying it, or
calling a fallback model. So a stop that is raised inside a run is both our own
kind and that one. Users still write `except BudgetExceeded`.

The refusal of a call that would go on with a loop is for the model to read. Tool
nodes hand only `ToolInvocationError` to it unless they are told otherwise, so such
a refusal is of that kind, too.
"""

import functools
import inspect
import sys
from collections.abc import Collection, Mapping
from types import CodeType
from typing import Any, TypeVar, cast

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.runnables import Runnable

from guardrails.errors import GuardrailsError, LoopRefused, SessionStopped

__all__ = [
    "as_answer",
    "as_bubble",
    "bubble_kind",
    "close_unstarted",
    "is_control_flow",
    "is_interrupt",
    "is_left",
]

E = TypeVar("E", bound=GuardrailsError)

FRAMES_MAX = 16
"""Frames between a hook of ours and LangChain's: four, and room for wrappers."""

_COLLECTING = (
    AsyncCallbackManager.on_chat_model_start.__code__,
    AsyncCallbackManager.on_llm_start.__code__,
)
_STREAMING = (Runnable._transform_stream_with_config.__code__,)


def as_bubble(stop: SessionStopped) -> SessionStopped:
    """Returns a fresh copy of the stop that LangGraph lets through.

    Fresh, because an exception object collects notes and tracebacks wherever
    it is raised.
    """
    kind: type[SessionStopped] = bubble_kind(
        type(stop), has_langgraph="langgraph" in sys.modules
    )
    copy = kind(stop.message)
    copy.__dict__.update({k: v for k, v in stop.__dict__.items() if k != "__notes__"})
    return copy


def as_answer(refusal: LoopRefused) -> LoopRefused:
    """Returns the refusal of a tool call in a form that is handed to the model."""
    return _answer_kind(has_langgraph="langgraph" in sys.modules)(str(refusal))


def is_interrupt(error: BaseException) -> bool:
    """Whether a tool stopped to wait for a person; it will run again."""
    errors = sys.modules.get("langgraph.errors")
    return errors is not None and isinstance(error, errors.GraphInterrupt)


def is_control_flow(error: BaseException) -> bool:
    """Whether the error is LangGraph's way to go elsewhere, not a failure."""
    errors = sys.modules.get("langgraph.errors")
    return errors is not None and isinstance(error, errors.GraphBubbleUp)


def close_unstarted() -> None:
    """Closes what LangChain prepared for other handlers of a call that is refused.

    langchain-core (1.8.3) makes the coroutines of all handlers before it runs the
    inline ones. When one of those raises, the others are left behind, among them
    that of `astream_events`, and each warns that it was never awaited, whenever
    it is collected. This can go when `AsyncCallbackManager.on_chat_model_start`
    makes a coroutine only to await it.
    """
    names = _locals_of(_COLLECTING)
    for task in (*names.get("inline_tasks", ()), *names.get("non_inline_tasks", ())):
        if inspect.getcoroutinestate(task) == inspect.CORO_CREATED:
            task.close()


def is_left() -> bool:
    """Whether the run that ends here is a stream whose reader left it.

    langchain-core (1.8.3) ends it like one that is read up, but in synchronous code
    only. Python tells nobody of what is raised while it collects a stream.
    """
    parts = _locals_of(_STREAMING).get("iterator")
    return (
        inspect.isgenerator(parts)
        and inspect.getgeneratorstate(parts) == inspect.GEN_SUSPENDED
    )


def _locals_of(codes: Collection[CodeType]) -> Mapping[str, Any]:
    """Returns the variables of LangChain's function that has called a hook of ours."""
    frame = inspect.currentframe()
    for _ in range(FRAMES_MAX):
        if frame is None:
            break
        if frame.f_code in codes:
            return frame.f_locals
        frame = frame.f_back
    return {}


@functools.cache
def bubble_kind(kind: type[E], *, has_langgraph: bool) -> type[E]:
    """Returns a kind of error that LangGraph lets through."""
    if not has_langgraph:
        return kind
    from langgraph.errors import GraphBubbleUp

    if issubclass(kind, GraphBubbleUp):
        return kind
    # The name and module stay, so that tracebacks read as users expect.
    return cast(
        "type[E]",
        type(
            kind.__name__,
            (kind, GraphBubbleUp),
            {"__module__": __name__, "__doc__": kind.__doc__},
        ),
    )


@functools.cache
def _answer_kind(*, has_langgraph: bool) -> type[LoopRefused]:
    """Returns a kind of refusal that LangGraph's tool nodes answer with its message."""
    if not has_langgraph:
        return LoopRefused
    from langgraph.prebuilt.tool_node import ToolInvocationError

    def initialise(self: Exception, message: str) -> None:
        # Theirs wants the arguments that failed, and has a text of its own.
        Exception.__init__(self, message)
        self.__dict__["message"] = message

    return cast(
        "type[LoopRefused]",
        type(
            LoopRefused.__name__,
            (LoopRefused, ToolInvocationError),
            {
                "__module__": __name__,
                "__doc__": LoopRefused.__doc__,
                "__init__": initialise,
            },
        ),
    )
