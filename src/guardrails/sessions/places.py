"""Places: where code has entered a session, so that it is found there again.

Mostly the context says it. But web servers read a plain generator in threads, each
time in another copy of a context, and some programs an asynchronous one in tasks. What
it has set there is gone the next time; its frame is the same, and below all it calls.
"""

import asyncio
import contextlib
import inspect
import sys
import threading
import weakref
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

from guardrails.system.threads import TaskReference, running_task

if TYPE_CHECKING:
    from guardrails.sessions.session import Session

__all__ = ["Place", "enter", "leave", "session_of_generator", "sessions_around"]

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


@dataclass(slots=True, eq=False)
class Place:
    """Where code has entered a session."""

    generator: FrameType | None
    """The frame of the generator that did, if it was one."""
    is_found: bool = False
    """Whether the session was found by that frame, and not by the context."""
    task: TaskReference | None = field(default_factory=running_task)
    """The task that did, if it was one."""
    context: "weakref.ref[Context] | None" = None
    """The context of that task, where tasks tell it: from Python 3.12 on."""
    thread: "weakref.ref[threading.Thread]" = field(
        default_factory=lambda: weakref.ref(threading.current_thread())
    )
    """The thread that did, which has a context of its own outside of tasks. Its number
    would not do: it is another thread's as soon as this one has ended."""
    is_left_elsewhere: bool = False
    """Whether another thread, or a task, has left the session."""

    def __post_init__(self) -> None:
        context = _context_of(self.task)
        self.context = None if context is None else weakref.ref(context)

    @property
    def is_here(self) -> bool:
        """Whether what runs may still have the session, though it has been left.

        That is the task that entered it, or one that shares its context, as the cells
        of a notebook do, or a thread that entered it and that another had leave it.
        """
        here = running_task()
        if self.task is None:
            return self.is_left_elsewhere and self._is_in_thread(here)
        if here is None:
            return False
        context = self.context and self.context()
        return self.task == here or (
            context is not None and context is _context_of(here)
        )

    def left(self) -> None:
        """Notes where its session is left."""
        self.is_left_elsewhere = not self._is_in_thread(running_task())

    def _is_in_thread(self, here: TaskReference | None) -> bool:
        return here is None and self.thread() is threading.current_thread()


_open: "dict[int, tuple[weakref.ref[Session], ...]]" = {}
"""The sessions that generators have open, by the id of their frame, innermost last.
No other frame can have it: a session keeps its own, and is only known here."""


def enter(session: "Session", frame: FrameType) -> Place:
    """Notes that the code of a frame enters a session."""
    generator = _generator_at(frame)
    if generator is None:
        return Place(generator=None)
    key = id(generator)
    reference = weakref.ref(session, lambda _: _without(key, None))
    _open[key] = (*_open.get(key, ()), reference)
    for around in sessions_around(session):
        around.generators.add(key)
    return Place(generator=generator)


def leave(session: "Session") -> bool:
    """Notes that a session is left. It may be left twice.

    Returns:
        Whether what its generator has called meanwhile has found it.
    """
    place = session.place
    if place is None:
        return False
    place.left()
    if place.generator is None:
        return place.is_found
    key = id(place.generator)
    _without(key, session)
    others = [reference() for reference in _open.get(key, ())]
    around_others = [one for other in others if other for one in sessions_around(other)]
    for around in sessions_around(session):
        if around not in around_others:
            around.generators.discard(key)
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


def _generator_at(frame: FrameType | None) -> FrameType | None:
    """Returns the generator that a frame enters a session for, if it is for one.

    What enters it by an `ExitStack`, or by a `contextlib.contextmanager` of its own,
    has it open from then on, and not the frames between.
    """
    found: FrameType | None = None
    while frame is not None:
        if frame.f_code.co_flags & _GENERATORS:
            found = frame
            if not _is_of_contextlib(frame.f_back):
                break
        elif not _is_of_contextlib(frame):
            break
        frame = frame.f_back
    return found


def _is_of_contextlib(frame: FrameType | None) -> bool:
    name = None if frame is None else frame.f_globals.get("__name__")
    return name == contextlib.__name__


def sessions_around(session: "Session") -> "Iterator[Session]":
    """Yields the sessions around one: those inside them may be left before it."""
    around = session.outer
    while around is not None:
        yield around
        around = around.outer


def _is_open_in(session: "Session", frame: FrameType) -> bool:
    place = session.place
    return session.is_entered and place is not None and place.generator is frame


def _context_of(task: TaskReference | None) -> Context | None:
    running: asyncio.Task[object] | None = None if task is None else task()
    tell = getattr(running, "get_context", None)
    return None if tell is None else tell()


def _without(key: int, session: "Session | None") -> None:
    left = tuple(one for one in _open.get(key, ()) if one() not in (None, session))
    if left:
        _open[key] = left
    else:
        _open.pop(key, None)
