"""Observing: notes and tells what limits would have refused, where none binds."""

import threading
from collections.abc import Callable
from dataclasses import replace

from guardrails.core.admission import Reservation
from guardrails.core.decisions import refused_by
from guardrails.core.operations import Conflict, Reserved
from guardrails.ports import EventSink

__all__ = ["Observer"]

TOLD_MAX = 10_000
"""Accounts whose limits are remembered as told; then all are told once more."""


class Observer:
    """Tells sinks once per account and limit. Thread safe.

    Args:
        emit: Tells every sink.
    """

    def __init__(self, emit: Callable[[Callable[[EventSink], None]], None]) -> None:
        self._emit = emit
        self._lock = threading.Lock()
        self._told: set[tuple[str, str]] = set()

    def noted(
        self, reservation: Reservation, reply: Reserved | Conflict
    ) -> Reservation:
        """Returns an admitted call, with what would have refused it if anything."""
        refusal = reply.refusal if isinstance(reply, Reserved) else None
        if refusal is None:
            return reservation
        who, what = reservation.op.charging.attribution, refused_by(refusal)
        if self._is_new((refusal.line.account, what)):
            self._emit(lambda sink: sink.observed(what, who))
        return replace(reservation, refused_by=what)

    def _is_new(self, told: tuple[str, str]) -> bool:
        with self._lock:
            if told in self._told:
                return False
            if len(self._told) >= TOLD_MAX:
                self._told.clear()
            self._told.add(told)
            return True
