"""Rounds: one logical tool call that takes several requests.

Since 2026-07-28 a server may answer a call with `input_required`; the client asks the
person or the model, and sends the same call again with the answers (SEP-2322). Those
requests are one call: one hold, one step, one price. Whether a request goes on with an
earlier round is decided by what the server said before, never by the request alone, or
a made-up field would be a way past the budget.
"""

import threading
from collections import deque
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar, cast

__all__ = ["ROUNDS_MAX", "Rounds"]

ROUNDS_MAX = 1_024
"""Calls that wait for input at the same time; the oldest is forgotten beyond that. Its
hold then counts as unconfirmed when it expires, and its next round as a new call."""

TURNS_MAX = 10
"""Rounds that are one call: after as many the SDK 2.x gives up, if not told otherwise.
A server that goes on asking works on, so from then on it is another call."""


class _Asking(Protocol):
    """What belongs to a call."""

    turns: int
    """How often its server has asked for input."""


T = TypeVar("T", bound=_Asking)

_Key = tuple[str, object]


class Rounds(Generic[T]):
    """The calls that wait for their next round. Thread safe.

    Calls that nothing tells apart, as a server without states asks them, go on in the
    order in which they were asked.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[_Key, T]] = deque()
        """Oldest first."""
        self._lock = threading.RLock()

    def keep(self, tool: str, result: Mapping[str, object], value: T) -> bool:
        """Keeps the value of a call if its result asks for input.

        Args:
            tool: The tool that was called.
            result: The result, as on the wire.
            value: What belongs to the call.

        Returns:
            Whether it is kept, so that the call is not over.
        """
        if result.get("resultType") != "input_required":
            return False
        key = _key(tool, result.get("requestState"), result.get("inputRequests"))
        if key is None or value.turns >= TURNS_MAX:
            return False
        value.turns += 1
        with self._lock:
            self._waiting.append((key, value))
            if len(self._waiting) > ROUNDS_MAX:
                self._waiting.popleft()
        return True

    def take(self, tool: str, params: Mapping[str, object]) -> T | None:
        """Returns the value of the call that these parameters go on with, once.

        `None` for a new call, also if it claims to be more.
        """
        key = _key(tool, params.get("requestState"), params.get("inputResponses"))
        if key is None or not self._waiting:
            return None
        with self._lock:
            for at, (known, value) in enumerate(self._waiting):
                if known == key:
                    del self._waiting[at]
                    return value
        return None

    def end(self) -> list[T]:
        """Returns the values of the calls that will not go on, oldest first."""
        with self._lock:
            ended = [value for _, value in self._waiting]
            self._waiting.clear()
        return ended


def _key(tool: str, state: object, inputs: object) -> _Key | None:
    """Names a round: by the server's state, else by what the server asks for."""
    if isinstance(state, str) and state:
        return tool, state
    if isinstance(inputs, Mapping) and inputs:
        return tool, frozenset(cast("Mapping[str, object]", inputs))
    return None
