"""Serving: whom code works for while a server answers a request.

A server and its client may be in one process, and in one context: the SDK 2.x then runs
a tool where it was called, and the client's callbacks where the tool asks for them.
"""

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from guardrails import GuardedCall, Session
from guardrails.sessions.scope import current_call, current_session, open_session

__all__ = ["inside", "outside"]


@dataclass(frozen=True, slots=True)
class _Around:
    """What is around a request that is served."""

    session: Session | None
    call: GuardedCall | None
    further: Self | None
    """The same of the request around it, if one is."""


_around: ContextVar[_Around | None] = ContextVar("guardrails_mcp_around", default=None)


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
