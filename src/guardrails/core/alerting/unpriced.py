"""Unpriced: a model whose price is not known, as a closed record."""

from dataclasses import dataclass

from guardrails.core.policy import OnUnpriced

__all__ = ["Unpriced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """A model of unknown price that an agent wants to call, or has called."""

    model: str
    provider: str | None
    calls: OnUnpriced
    """What becomes of its calls."""
