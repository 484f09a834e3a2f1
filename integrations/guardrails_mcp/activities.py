"""Activities: the sessions that a server's requests belong to, by their names.

A process that serves tools lives for days, most of them idle, and serves many runs. A
person or a model who thinks between two calls is no run that hangs, so the wall time of
these sessions passes only while one of their calls is under way.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from guardrails import Session

__all__ = ["Activities", "Activity"]

SESSIONS_MAX = 4_096
"""Sessions that a process remembers. They live in the store: this is a cache."""


class Activity:
    """One session and how many of its calls are under way. Thread safe."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._under_way = 0
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Says that a call begins, or goes on after somebody was asked."""
        with self._lock:
            self._under_way += 1
            self.session.activate()

    def end(self) -> None:
        """Says that a call is over, or waits for somebody's answer."""
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self.session.rest()


class Activities:
    """The activities of a process, the least recently used of which is forgotten.

    Args:
        open_session: Opens a session by the names of `Guard.session`.
    """

    def __init__(self, open_session: Callable[[Mapping[str, str]], Session]) -> None:
        self._open_session = open_session
        self._known: OrderedDict[frozenset[tuple[str, str]], Activity] = OrderedDict()
        self._lock = threading.RLock()

    def of(self, names: Mapping[str, str]) -> Activity:
        """Returns the activity that these names belong to."""
        key = frozenset(names.items())
        with self._lock:
            activity = self._known.get(key)
            if activity is None:
                activity = self._known[key] = Activity(self._open_session(names))
            self._known.move_to_end(key)
            if len(self._known) > SESSIONS_MAX:
                self._known.popitem(last=False)
            return activity
