"""Scope: which session, guarded call and layer the running code belongs to.

They are context variables, so they follow asyncio tasks and `asyncio.to_thread`
by themselves. Bare threads and executors start with an empty context;
`carried` takes the scope along.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from guardrails.core.layers import INPUT_LAYERS, Layer
from guardrails.errors import ConfigurationError
from guardrails.sessions.places import session_of_generator, sessions_around
from guardrails.system.threads import is_on_event_loop

if TYPE_CHECKING:
    from guardrails.sessions.guarded_call import GuardedCall
    from guardrails.sessions.session import Session

__all__ = [
    "call_of",
    "carried",
    "current_call",
    "current_layer",
    "current_session",
    "layer",
    "needs_asyncio",
    "open_session",
    "session_around",
    "session_of",
    "take_out",
]

P = ParamSpec("P")
T = TypeVar("T")


class _Nested(Protocol):
    """What may have another of its kind around it in a context."""

    outer: Any


N = TypeVar("N", bound=_Nested)

current_session: "contextvars.ContextVar[Session | None]" = contextvars.ContextVar(
    "guardrails_session", default=None
)
"""The innermost open session of this context."""

current_call: "contextvars.ContextVar[GuardedCall | None]" = contextvars.ContextVar(
    "guardrails_call", default=None
)
"""The tool call that this context is inside of."""


current_layer: "contextvars.ContextVar[Layer | None]" = contextvars.ContextVar(
    "guardrails_layer", default=None
)
"""What the input of model calls in this context is for, if somebody says so."""


@contextlib.contextmanager
def layer(name: str) -> Generator[None]:
    """Says what the model calls inside are for, in reports by layer.

    `with guardrails.layer("memory.summary"):` around the call that sums a conversation
    up counts what it is sent as that. Of a call that an integration sees these are its
    messages of the current turn: not instructions, not what tools say, and no message
    that is marked itself, by `additional_kwargs={"layer": ...}` in LangChain.

    Args:
        name: A layer of input, such as `memory.retrieval` or `memory.summary`.

    Raises:
        ConfigurationError: If there is no such layer.
    """
    if name not in INPUT_LAYERS:
        raise ConfigurationError(
            f"layer: {name!r} is no layer of input. Use one of "
            f"{', '.join(INPUT_LAYERS)}."
        )
    token = current_layer.set(Layer(name))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # Left in a context that has none of it.
            current_layer.reset(token)


def open_session() -> "Session | None":
    """Returns the innermost session of this context, or of a generator in it.

    A generator that nobody reads on is closed in another context than that of the task
    or thread which entered its session, and which still has it. There it counts no
    more. One that is read on in other contexts has its session in each.
    """
    session = current_session.get()
    while session is not None and _is_abandoned(session):
        session = session.outer
    if session is not None and not session.generators:
        return session
    read = session_of_generator()
    if read is None:
        return session
    if session is not None and read in (session, *sessions_around(session)):
        return session
    assert read.place is not None
    read.place.is_found = True
    return read


def session_around(entered: "Session") -> "Session | None":
    """Returns the open session that another one is entered in."""
    around = open_session()
    # A generator's may be inside the same object, when that was entered elsewhere.
    _take_from(around, entered)
    return around


def _is_abandoned(session: "Session") -> bool:
    """Whether what runs has entered a session that others have left."""
    place = session.place
    return not session.is_entered and place is not None and place.is_here


def session_of(engine: object) -> "Session | None":
    """Returns the innermost open session of one guard in this context.

    A session of another guard, inside or outside of it, hides none.
    """
    session = open_session()
    while session is not None and session.engine is not engine:
        session = session.outer
    return session


def take_out(thing: N, around: "contextvars.ContextVar[N | None]") -> bool:
    """Takes something out of its context, also from between what stays there.

    Returns:
        Whether it was in this context.
    """
    inner = around.get()
    if inner is thing:
        around.set(thing.outer)
        return True
    return _take_from(inner, thing)


def _take_from(inner: _Nested | None, thing: _Nested) -> bool:
    while inner is not None and inner.outer is not thing:
        inner = inner.outer
    if inner is not None:
        inner.outer = thing.outer
    return inner is not None


def needs_asyncio() -> None:
    """Refuses to wait for the ledger where asyncio does not run, as under trio.

    Raises:
        ConfigurationError: If no event loop of asyncio runs in this thread.
    """
    if not is_on_event_loop():
        raise ConfigurationError(
            "call: `async with guard.call(...)`, and a guarded `async def`, need "
            "asyncio, which does not run here. Use `with guard.call(...)`: it works "
            "under trio, too, and blocks for the ledger only."
        )


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
    context.run(current_session.set, open_session())  # A generator's is in no context.

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        # A context can be entered once at a time, so each call has its own copy.
        return context.copy().run(function, *args, **kwargs)

    return run
