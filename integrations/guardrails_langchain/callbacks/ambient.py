"""Ambient handlers: every run inside `guard.session` is guarded by itself."""

import itertools
from collections.abc import Sequence

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from guardrails import Attribution, Guard, Session
from guardrails.engine import Engine
from guardrails.sessions.scope import open_session
from guardrails_langchain.callbacks.around import callbacks_around, running_id
from guardrails_langchain.callbacks.carriers import carried_around
from guardrails_langchain.callbacks.handler import (
    GuardCallbackHandler,
    handler_for,
    tree_of,
)

__all__ = ["hook", "install", "running", "uninstall"]


class _AmbientHandler:
    """Answers LangChain's question which handler belongs to this context.

    LangChain asks a context variable. This object has the same `get`, and
    derives the answer from the session's scope, so that there is one truth
    about which session is open, whenever this module was imported. A run inside
    a guarded one is guarded by the same, whatever callbacks it is given.

    Args:
        depth: Sessions of several guards may be nested, and none may hide
            another: the guard of this depth answers, 0 being the innermost.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self.installed: GuardCallbackHandler | None = None

    def get(self, default: object = None) -> BaseCallbackHandler | None:
        """Returns the guard's handler; where no guard is around, the installed one."""
        handlers: dict[Engine, GuardCallbackHandler] = {}
        session = open_session()
        while session is not None:
            handlers.setdefault(session.engine, handler_for(session.engine))
            session = session.outer
        for handler in _inherited():
            handlers.setdefault(handler.engine, handler)
        if self._depth < len(handlers):
            return next(itertools.islice(handlers.values(), self._depth, None))
        carried = carried_around(handlers, self._depth - len(handlers))
        return carried or (None if handlers else self.installed)


def _inherited() -> list[GuardCallbackHandler]:
    """Returns the handlers of the run around the running code.

    LangChain leaves them out of a run that is given callbacks of its own.
    """
    around = callbacks_around()
    handlers: Sequence[object] = getattr(around, "inheritable_handlers", ())
    return [one for one in handlers if isinstance(one, GuardCallbackHandler)]


NESTED_GUARDS_MAX = 3
"""Guards whose sessions may be nested; LangChain asks this often for each run."""

_hooks = [_AmbientHandler(depth) for depth in range(NESTED_GUARDS_MAX)]
_ambient = _hooks[0]
_hooked: list[bool] = []


def hook() -> None:
    """Registers with LangChain, once: each registration is asked for every run."""
    if not _hooked:
        _hooked.append(True)
        for ambient in _hooks:
            # reportArgumentType: only `get` is used; see `_AmbientHandler`.
            register_configure_hook(ambient, inheritable=True)  # pyright: ignore[reportArgumentType]


def install(guard: Guard, *, agent: str | None = None, **names: object) -> None:
    """Guards every LangChain run of the process, bare threads included.

    Each root run is a session, or each thread where there is one; an open
    `guard.session` still wins. The last installed guard counts.
    """
    _ambient.installed = GuardCallbackHandler(guard, agent=agent, **names)


def uninstall() -> None:
    """Undoes `install`."""
    _ambient.installed = None


def running(engine: Engine) -> tuple[Session, Attribution] | None:
    """Returns the session and attribution of the LangChain run around the code."""
    run = tree_of(engine).find(running_id())
    return None if run is None else (run.session, run.attribution)
