"""Scope: which session, and which guarded call, the running code belongs to.

Both are context variables, so they follow asyncio tasks and `asyncio.to_thread`
by themselves. Bare threads and executors start with an empty context;
`carried` takes the scope along.
"""

import contextvars
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from guardrails.guarded_call import GuardedCall
    from guardrails.session import Session

__all__ = ["call_of", "carried", "current_call", "current_session"]

P = ParamSpec("P")
T = TypeVar("T")

current_session: "contextvars.ContextVar[Session | None]" = contextvars.ContextVar(
    "guardrails_session", default=None
)
"""The innermost open session of this context."""

current_call: "contextvars.ContextVar[GuardedCall | None]" = contextvars.ContextVar(
    "guardrails_call", default=None
)
"""The tool call that this context is inside of."""


def call_of(engine: object) -> "GuardedCall | None":
    """Returns the innermost tool call of one guard that this context is inside of.

    A call of another guard, inside or outside of it, hides none.
    """
    call = current_call.get()
    while call is not None and call.session.engine is not engine:
        call = call.outer
    return call


def carried(function: Callable[P, T]) -> Callable[P, T]:
    """Returns the function bound to the scope of the caller.

    For `threading.Thread`, `ThreadPoolExecutor.submit` and `run_in_executor`:
    `executor.submit(carried(work), item)`. May be called many times and from
    many threads at once.
    """
    context = contextvars.copy_context()

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        # A context can be entered once at a time, so each call has its own copy.
        return context.copy().run(function, *args, **kwargs)

    return run
