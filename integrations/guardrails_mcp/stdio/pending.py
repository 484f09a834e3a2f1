"""Pending: the calls that wait for their answers, by the ids of their requests."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from guardrails_mcp.stdio.meters import Metered

__all__ = ["Pending", "Waiting"]

CANCELLED_MAX = 1_024
"""Calls that were cancelled and whose costs may still come, beyond which the oldest is
booked without."""


@dataclass(slots=True)
class Waiting:
    """A call that waits for its answer, or for its next round."""

    tool: str
    call: Metered
    asked: Mapping[str, Metered] = field(default_factory=dict[str, Metered])
    """What its last answer asks of the host's model, by name."""
    turns: int = 0
    """How often its server has asked for input."""
    task_id: str | None = None
    """Of the task that its server has made of it."""


class Pending:
    """The calls of one connection that are not answered yet. Thread safe.

    Of two under one id the older one is answered first. An id is JSON text, so that `1`
    is not `"1"`; but servers that answer with `"1"` to `1` are understood by the SDKs
    (python-sdk `coerce_request_id`, typescript-sdk `Number(response.id)`), and here.
    """

    def __init__(self) -> None:
        self._calls: dict[str, list[Waiting]] = {}
        self._cancelled: OrderedDict[str, Waiting] = OrderedDict()
        """Of those for which nobody waits, oldest first."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Returns how many ids are waited for."""
        return len(self._calls)

    @property
    def hears(self) -> bool:
        """Whether an answer could be one that counts."""
        return bool(self._calls or self._cancelled)

    def cancel(self, key: str) -> Waiting | None:
        """Takes a call out for which its host does not wait any more.

        A server may answer all the same, as where both cross. So a call whose answer
        says its cost is still known by its id.

        Returns:
            The call that is to be booked now, if there is one.
        """
        waiting = self.take(key)
        if waiting is None or not waiting.call.believes_cost:
            return waiting
        waiting.call.pause()
        with self._lock:
            before = self._cancelled.pop(key, None)
            self._cancelled[key] = waiting
            if len(self._cancelled) > CANCELLED_MAX:
                before = self._cancelled.popitem(last=False)[1]
        return before

    def add(self, key: str, waiting: Waiting) -> None:
        """Adds a call under the id of its request."""
        with self._lock:
            self._calls.setdefault(key, []).append(waiting)

    def first(self, key: str) -> Waiting | None:
        """Returns the call that an answer with this id ends, if there is one."""
        with self._lock:
            known = self._known(key)
            if known is None:
                return self._cancelled.get(key)
            return self._calls[known][0]

    def take(self, key: str) -> Waiting | None:
        """Returns the same and takes it out."""
        with self._lock:
            known = self._known(key)
            if known is None:
                return self._cancelled.pop(key, None)
            calls = self._calls[known]
            waiting = calls.pop(0)
            if not calls:
                del self._calls[known]
            return waiting

    def ask(
        self, key: str, opened: Mapping[str, Metered]
    ) -> Mapping[str, Metered] | None:
        """Keeps what the answer to a call asks of the host's model.

        Returns:
            What an earlier answer to it has asked; `None` if no such call waits.
        """
        with self._lock:
            known = self._known(key)
            if known is None:
                return None
            waiting = self._calls[known][0]
            replaced, waiting.asked = waiting.asked, opened
            return replaced

    def only(self) -> str | None:
        """Returns the id that is waited for, if it is the only one."""
        with self._lock:
            return next(iter(self._calls)) if len(self._calls) == 1 else None

    def drop(self, call: Metered) -> None:
        """Takes a call out that nobody will answer."""
        with self._lock:
            for key, calls in list(self._calls.items()):
                left = [waiting for waiting in calls if waiting.call is not call]
                if left:
                    self._calls[key] = left
                else:
                    del self._calls[key]

    def end(self) -> list[Waiting]:
        """Takes all of them out."""
        with self._lock:
            calls, self._calls = self._calls, {}
            late, self._cancelled = self._cancelled, OrderedDict()
        return [*late.values(), *(one for each in calls.values() for one in each)]

    def _known(self, key: str) -> str | None:
        if key in self._calls:
            return key
        bare = key[1:-1] if key[:1] == '"' else key
        return bare if bare in self._calls else None
