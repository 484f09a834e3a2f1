"""Unpriced: a model whose price is not known, as a closed record."""

from dataclasses import dataclass

__all__ = ["Unpriced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """A model of unknown price that an agent wants to call, or has called."""

    model: str
    provider: str | None
    is_refused: bool
    """Whether its calls are refused; otherwise they are made, and their cost is not
    known."""
