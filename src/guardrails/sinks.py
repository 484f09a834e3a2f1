"""Sinks: where a guard tells what happened. By default, in the log."""

import logging

from guardrails.core.accounts import Stop
from guardrails.core.attribution import Attribution
from guardrails.core.decisions import format_amount
from guardrails.core.events import Event
from guardrails.core.loops import LoopFinding
from guardrails.core.money import format_usd
from guardrails.core.operations import Crossing

__all__ = ["LogSink"]

_log = logging.getLogger("guardrails")


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
        _log.warning(
            "guardrails: %s stopped: %s%s. session %s",
            attribution.agent or "session",
            stop.reason.value,
            f" ({stop.measure.value})" if stop.measure else "",
            attribution.session_id,
        )

    def looped(self, finding: LoopFinding, attribution: Attribution) -> None:
        """Warns that an agent repeats itself."""
        _log.warning(
            "guardrails: loop: %s called %s %d times in a row (%s), %s. session %s",
            attribution.agent or "session",
            finding.tool,
            finding.count,
            finding.kind.value,
            format_usd(finding.cost_nano_usd),
            attribution.session_id,
        )

    def degraded(self, reason: str, *, seconds: float | None) -> None:
        """Says nothing: the store's own wrapper logs it, once a minute."""
