"""Serving: whom code works for while a server answers a request.

A server and its client may be in one process, and in one context: the SDK 2.x then runs
a tool where it was called, and the client's callbacks where the tool asks for them.
"""

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from pydantic_core import to_jsonable_python

from guardrails import GuardedCall, Session
from guardrails.core.calls import ToolCall
from guardrails.core.tracebacks import let_through
from guardrails.sessions.scope import current_call, current_session, open_session

__all__ = ["Sent", "inside", "outside", "sending", "sent_by"]


@dataclass(frozen=True, slots=True)
class _Around:
    """What is around a request that is served."""

    session: Session | None
    call: GuardedCall | None
    further: Self | None
    """The same of the request around it, if one is."""


_around: ContextVar[_Around | None] = ContextVar("guardrails_mcp_around", default=None)


@dataclass(slots=True, eq=False)
class Sent:
    """A call that a wrapped client has reserved and is sending."""

    call: GuardedCall
    arguments: object
    outer: Self | None
    """That of another guard around the client, or of a call around this one."""
    is_taken: bool = False
    """A server of this process has met it: whatever comes next is another."""


_sent: ContextVar[Sent | None] = ContextVar("guardrails_mcp_sent", default=None)


@contextlib.contextmanager
def sending(call: GuardedCall, arguments: object) -> Generator[None]:
    """Lets a server in this process know that its client has reserved a call."""
    token = _sent.set(Sent(call, arguments, _sent.get()))
    try:
        yield
    finally:
        _sent.reset(token)


def sent_by(served: Session, call: ToolCall, arguments: object) -> Sent | None:
    """Returns the very call that a client in this process sends, under one guard.

    Args:
        served: Who is served, as far as the server knows.
        call: What the server is asked for. By another name, as a client may have its
            own for the server, it may have another price: then it is none of them.
        arguments: Its arguments.
    """
    sent = _sent.get()
    while sent is not None and sent.call.session.engine is not served.engine:
        sent = sent.outer
    if sent is None or sent.is_taken or not sent.call.is_open:
        return None
    known, project_id = sent.call.call, served.attribution.project_id
    is_same = (
        isinstance(known, ToolCall)
        and known.name == call.name
        # Two projects never meet: each is kept on a server of its own.
        and sent.call.attribution.project_id == project_id
        and _are_alike(sent.arguments, arguments)
    )
    return sent if is_same else None


def _are_alike(arguments: object, served: object) -> bool:
    """Whether a server is asked with a client's arguments, as the SDK writes them."""
    try:
        return arguments == served or served == to_jsonable_python(
            arguments, by_alias=True, exclude_none=True
        )
    except Exception as error:  # Of a value's own comparison, or it is no JSON.
        let_through(error)
        return False


@contextlib.contextmanager
def inside(served: Session) -> Generator[None]:
    """Charges what a tool spends to who is served, whatever is around the server.

    Each call has an object of its own: they may run at the same time.
    """
    around = _Around(open_session(), current_call.get(), _around.get())
    session = Session(served.engine, attribution=served.attribution, parent=served)
    session.outer = around.session
    with _entered(session, around.call, around):
        yield


@contextlib.contextmanager
def outside() -> Generator[None]:
    """Charges what a client does for a server to that client."""
    around = _around.get()
    if around is None:
        yield
    else:
        with _entered(around.session, around.call, around.further):
            yield


@contextlib.contextmanager
def _entered(
    session: Session | None, call: GuardedCall | None, around: _Around | None
) -> Generator[None]:
    tokens = current_session.set(session), current_call.set(call), _around.set(around)
    try:
        yield
    finally:
        current_session.reset(tokens[0])
        current_call.reset(tokens[1])
        _around.reset(tokens[2])
