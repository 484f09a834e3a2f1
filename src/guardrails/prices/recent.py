"""Recent: a bounded memory of answers that are expensive to find."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from guardrails.system.threads import new_lock

__all__ = ["Recent"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers the last answers that were put in, oldest out first.

    Thread safe. Reading takes no lock: it is one look-up in a dict.
    """

    def __init__(self, *, entries_max: int) -> None:
        self._entries_max = entries_max
        self._entries: dict[K, V] = {}
        self._lock = new_lock()
        self.get: Callable[[K], V | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V) -> None:
        """Remembers an answer, in place of an older one to the same question."""
        with self._lock:
            self._entries.pop(key, None)
            if len(self._entries) >= self._entries_max:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = value
