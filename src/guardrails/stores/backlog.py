"""The backlog: what the store has yet to be told, or may have to be told again."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol

from guardrails.core.operations import Release, Reserve, Settle
from guardrails.ports import History
from guardrails.system.forks import LockedAtFork

__all__ = ["Backlog", "Entry", "MemoryBacklog", "is_booked", "is_over"]

BACKLOG_MAX = 10_000
"""Operations kept in memory for a store that is away, about 10 MB."""

Entry = Reserve | Settle | Release

EVENTS_MAX = 10_000
"""Events of a session among which one of a day ago is looked for."""

STAGES: tuple[type, ...] = (Reserve, Release, Settle)
"""What may take the place of what, for one hold. A call that was given back may turn
out to have been made."""


def is_over(kept: type, acknowledged: type) -> bool:
    """Whether what is kept of a hold need not be told any more."""
    return STAGES.index(kept) <= STAGES.index(acknowledged)


def is_booked(op: Settle, history: History) -> bool:
    """Whether an event says so: past a day the store knows no ids any more."""
    who = op.charging.attribution
    events = history.events(
        project_id=who.project_id, session_id=who.session_id or "", limit=EVENTS_MAX
    )
    return any(event.event_id == op.event.event_id for event in events)


class Backlog(Protocol):
    """Operations by the id of their hold; the last one of each. Thread safe."""

    def before(self, op: Entry) -> None:
        """Keeps an operation that is about to be sent, if that is worth it."""
        ...

    def keep(self, op: Entry) -> None:
        """Keeps an operation that the store has not acknowledged."""
        ...

    def done(self, *ops: Entry) -> None:
        """Notes that the store has acknowledged operations.

        What has taken the place of one meanwhile still waits: see `STAGES`.
        """
        ...

    def __contains__(self, hold_id: object) -> bool:
        """Returns whether something of a hold was not acknowledged."""
        ...

    def waiting(self, count: int) -> Sequence[Entry]:
        """Returns the oldest operations that were not acknowledged."""
        ...

    def recent(self) -> Iterable[Entry]:
        """Yields the acknowledged ones that the store may have lost since."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether no new call may be promised to be booked."""
        ...

    def __len__(self) -> int:
        """Returns how many operations were not acknowledged."""
        ...

    def close(self) -> None:
        """Gives up what is open. What is kept on disk stays."""
        ...


class MemoryBacklog(LockedAtFork):
    """Keeps operations as long as the process lives; nothing before it fails."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[str, Entry] = {}

    def before(self, op: Entry) -> None:
        """Does nothing: what is in memory only dies with whoever sends it."""

    def keep(self, op: Entry) -> None:
        """Keeps an operation, in the place of an earlier one of its hold."""
        with self._lock:
            self._waiting[op.hold_id] = op

    def done(self, *ops: Entry) -> None:
        """Forgets what the store has acknowledged."""
        if not self._waiting:
            return
        with self._lock:
            for op in ops:
                kept = self._waiting.get(op.hold_id)
                if kept is not None and is_over(type(kept), type(op)):
                    del self._waiting[op.hold_id]

    def __contains__(self, hold_id: object) -> bool:
        """Returns whether something of a hold is kept."""
        return hold_id in self._waiting

    def waiting(self, count: int) -> Sequence[Entry]:
        """Returns the oldest operations."""
        with self._lock:
            return list(islice(self._waiting.values(), count))

    def recent(self) -> Iterable[Entry]:
        """Yields nothing."""
        return ()

    @property
    def is_full(self) -> bool:
        """Whether `BACKLOG_MAX` operations are kept."""
        return len(self._waiting) >= BACKLOG_MAX

    def __len__(self) -> int:
        """Returns how many operations are kept."""
        return len(self._waiting)

    def close(self) -> None:
        """Does nothing."""
