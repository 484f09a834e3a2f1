"""Observing: tells sinks once of what they would otherwise hear with each call."""

from collections.abc import Callable
from dataclasses import replace

from guardrails.core.admission import Reservation
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.decisions import refused_by
from guardrails.core.events import Event
from guardrails.core.operations import Conflict, Reserved
from guardrails.core.policy import OnUnpriced
from guardrails.core.windows import DAY_MS
from guardrails.ports import EventSink
from guardrails.system.threads import new_lock

__all__ = ["Observer"]

TOLD_MAX = 10_000
"""Limits and models that are remembered as told; then all are told once more."""


class Observer:
    """Tells sinks of limits that do not bind, and of prices that are missing.

    Thread safe.

    Args:
        emit: Tells every sink.
    """

    def __init__(self, emit: Callable[[Callable[[EventSink], None]], None]) -> None:
        self._emit = emit
        self._lock = new_lock()
        self._told: set[tuple[object, ...]] = set()

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

    def settled(self, event: Event) -> None:
        """Tells of a booked call, and of its model if that has no known price."""
        self._emit(lambda sink: sink.settled(event))
        if event.model is not None and event.charge.cost_nano_usd is None:
            unpriced = Unpriced(
                model=event.model, provider=event.provider, calls=OnUnpriced.ALLOW
            )
            self.unpriced(unpriced, event.attribution, event.time_ms)

    def unpriced(self, unpriced: Unpriced, who: Attribution, now_ms: int) -> None:
        """Tells of a model whose price is not known, once a day."""
        if self._is_new((who.project_id, unpriced, now_ms // DAY_MS)):
            self._emit(lambda sink: sink.unpriced(unpriced, who))

    def _is_new(self, told: tuple[object, ...]) -> bool:
        with self._lock:
            if told in self._told:
                return False
            if len(self._told) >= TOLD_MAX:
                self._told.clear()
            self._told.add(told)
            return True
