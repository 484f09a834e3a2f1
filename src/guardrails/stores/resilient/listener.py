"""The listener: who is told what a store does beside the calls."""

from collections.abc import Iterable

from guardrails.core.operations import Crossing, Reserve, Settle

__all__ = ["Listener"]


class Listener:
    """Is told what happens beside the calls. By default, nobody."""

    def crossed(self, op: Reserve | Settle, crossings: Iterable[Crossing]) -> None:
        """Thresholds were crossed by what was booked afterwards."""

    def degraded(self, reason: str, *, seconds: float | None) -> None:
        """The store has failed, or after so many seconds is back."""

    def failed(self, error: Exception, doing: str) -> None:
        """Something of ours failed and was contained."""
