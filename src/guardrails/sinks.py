"""Sinks: where a guard tells what happened. By default, in the log."""

from collections.abc import Callable, Iterable

from guardrails.core.accounts import Stop
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.decisions import format_amount, loop_text
from guardrails.core.events import Event
from guardrails.core.loops import LoopFinding
from guardrails.core.operations import Crossing, Reserve, Settle
from guardrails.core.policy import OnUnpriced
from guardrails.ports import EventSink
from guardrails.stores.resilient.listener import Listener
from guardrails.system.logs import host_log

__all__ = ["LogSink", "StoreListener"]

_log = host_log()


class LogSink:
    """Writes soft alerts, stops and loops to the logger `guardrails`."""

    def settled(self, event: Event) -> None:
        """Says nothing: a settled call is in the store."""

    def crossed(self, crossing: Crossing, attribution: Attribution) -> None:
        """Warns that a threshold was crossed."""
        measure, limit = crossing.threshold.measure, crossing.limit
        of = f" of {format_amount(measure, limit)}" if limit is not None else ""
        _log.warning(
            "guardrails: soft alert: %s has used %s%s (%s, %s). session %s",
            attribution.agent or "session",
            format_amount(measure, crossing.posted),
            of,
            crossing.threshold.label,
            crossing.line.scope,
            attribution.session_id,
        )

    def stopped(self, stop: Stop, attribution: Attribution) -> None:
        """Warns that a session was stopped."""
        detail = stop.measure.value if stop.measure else None
        if detail is not None and stop.scope not in (None, "session"):
            detail += f" of {stop.scope}"  # Of one around the call's.
        if stop.finding is not None:
            detail = loop_text(stop.finding)
        _log.warning(
            "guardrails: %s stopped: %s%s. session %s",
            attribution.agent or "session",
            stop.reason.value,
            f" ({detail})" if detail else "",
            attribution.session_id,
        )

    def looped(self, finding: LoopFinding, attribution: Attribution) -> None:
        """Warns that an agent repeats itself."""
        _log.warning(
            "guardrails: loop: %s: %s. session %s",
            attribution.agent or "session",
            loop_text(finding),
            attribution.session_id,
        )

    def observed(self, refused_by: str, attribution: Attribution) -> None:
        """Warns that a call was made that would have been refused."""
        _log.warning(
            "guardrails: %s would have been refused a call by %s (mode: observe). "
            "session %s",
            attribution.agent or "session",
            refused_by,
            attribution.session_id,
        )

    def unpriced(self, unpriced: Unpriced, attribution: Attribution) -> None:  # noqa: ARG002
        """Warns that the cost of calls is not known; who is refused one is told."""
        if unpriced.calls is not OnUnpriced.REFUSE:
            _log.warning(
                "guardrails: the price of model %r (provider %r) is not known "
                "(on_unpriced: %s). Write it under models: in guardrails.yaml.",
                unpriced.model,
                unpriced.provider,
                unpriced.calls.value,
            )

    def degraded(self, reason: str, *, seconds: float | None) -> None:
        """Says nothing: the store's own wrapper logs it, once a minute."""


class StoreListener(Listener):
    """Passes on to sinks what a store does beside the calls.

    Args:
        emit: Tells every sink.
        contain: Counts and logs a failure of ours.
    """

    def __init__(
        self,
        *,
        emit: Callable[[Callable[[EventSink], None]], None],
        contain: Callable[[BaseException, str], None],
    ) -> None:
        self._emit = emit
        self._contain = contain

    def crossed(self, op: Reserve | Settle, crossings: Iterable[Crossing]) -> None:
        """Thresholds were crossed by what was booked afterwards."""
        who = op.charging.attribution
        for crossing in crossings:
            self._emit(lambda sink, one=crossing: sink.crossed(one, who))

    def degraded(self, reason: str, *, seconds: float | None) -> None:
        """The store has failed, or after so many seconds is back."""
        self._emit(lambda sink: sink.degraded(reason, seconds=seconds))

    def failed(self, error: Exception, doing: str) -> None:
        """Something of ours failed and was contained."""
        self._contain(error, doing)
