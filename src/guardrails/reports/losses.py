"""Losses: what was spent in vain, and what observe mode would have refused."""

from collections.abc import Sequence
from dataclasses import dataclass

from guardrails.core.reporting.groups import in_order
from guardrails.core.reporting.rollups import Spend

__all__ = ["LOSSES_BY", "Losses", "losses"]

LOSSES_BY = ("waste", "refused_by", "session_id")
"""What the spend that losses are of is read by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Parts of what was spent."""

    wasted: Sequence[Spend] = ()
    """By `error`, `repeat` and `retry`, most expensive first."""
    refused: Sequence[Spend] = ()
    """What observe mode let pass, by what would have refused it."""
    refused_sessions: int = 0
    """How many sessions that concerns."""

    @property
    def wasted_nano_usd(self) -> int:
        """All that was spent in vain."""
        return sum(spend.total_nano_usd for spend in self.wasted)

    @property
    def refused_nano_usd(self) -> int:
        """All that would not have been spent."""
        return sum(spend.total_nano_usd for spend in self.refused)

    @property
    def refused_calls(self) -> int:
        """All calls that would not have been made."""
        return sum(spend.steps for spend in self.refused)


def losses(spends: Sequence[Spend]) -> Losses:
    """Adds up losses.

    Args:
        spends: One entry per combination of `LOSSES_BY`, and of further dimensions
            if there are any, in any order.
    """
    wasted: dict[str, Spend] = {}
    refused: dict[str, Spend] = {}
    sessions: set[str | None] = set()
    for spend in spends:
        waste, by, session, *_ = spend.names
        if waste is not None:
            wasted[waste] = wasted.get(waste, Spend(name=waste)).plus(spend)
        if by is not None:
            refused[by] = refused.get(by, Spend(name=by)).plus(spend)
            sessions.add(session)
    return Losses(
        wasted=in_order(wasted.values()),
        refused=in_order(refused.values()),
        refused_sessions=len(sessions - {None}),
    )
