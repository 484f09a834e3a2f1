"""Places: where code has entered a session, so that it is found there again.

Mostly the context says it. But web servers read a plain generator in threads, each
time in another copy of a context, and some programs an asynchronous one in tasks. What
it has set there is gone the next time; its frame is the same, and below all it calls.
"""

import inspect
import sys
import weakref
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from guardrails.threads import TaskReference, running_task

if TYPE_CHECKING:
    from guardrails.session import Session

__all__ = ["Place", "enter", "leave", "session_of_generator"]

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


@dataclass(slots=True, eq=False)
class Place:
    """Where code has entered a session."""

    task: TaskReference | None
    """The task that did, if it was one."""
    generator: FrameType | None
    """The frame of the generator that did, if it was one."""
    is_found: bool = False
    """Whether the session was found by that frame, and not by the context."""

    @property
    def is_here(self) -> bool:
        """Whether the running task is the one that entered it."""
        return self.task is not None and self.task == running_task()


_open: "dict[int, tuple[weakref.ref[Session], ...]]" = {}
"""The sessions that generators have open, by the id of their frame, innermost last.
No other frame can have it: a session keeps its own, and is only known here."""


def enter(session: "Session", frame: FrameType) -> Place:
    """Notes that the code of a frame enters a session."""
    if not frame.f_code.co_flags & _GENERATORS:
        return Place(task=running_task(), generator=None)
    key = id(frame)
    reference = weakref.ref(session, lambda _: _without(key, None))
    _open[key] = (*_open.get(key, ()), reference)
    if session.outer is not None:
        session.outer.generators.add(key)
    return Place(task=running_task(), generator=frame)


def leave(session: "Session") -> bool:
    """Notes that a session is left. It may be left twice.

    Returns:
        Whether what its generator has called meanwhile has found it.
    """
    place = session.place
    if place is None or place.generator is None:
        return False
    _without(id(place.generator), session)
    if session.outer is not None:
        session.outer.generators.discard(id(place.generator))
    place.generator = None
    return place.is_found


def session_of_generator() -> "Session | None":
    """Returns the session that a generator below the running code has open."""
    frame = sys._getframe() if _open else None
    while frame is not None:
        for reference in reversed(_open.get(id(frame), ())):
            session = reference()
            if session is not None and _is_open_in(session, frame):
                return session
        frame = frame.f_back
    return None


def _is_open_in(session: "Session", frame: FrameType) -> bool:
    place = session.place
    return session.is_entered and place is not None and place.generator is frame


def _without(key: int, session: "Session | None") -> None:
    left = tuple(one for one in _open.get(key, ()) if one() not in (None, session))
    if left:
        _open[key] = left
    else:
        _open.pop(key, None)
