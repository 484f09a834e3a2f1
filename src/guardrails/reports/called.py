"""Called: which models and tools were called, and how often without a price."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from guardrails.core.calls import CallKind
from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.core.usage import PriceStatus

__all__ = ["Called", "called_in"]


@dataclass(slots=True, kw_only=True)
class Called:
    """Calls of one model of one provider, or of one tool."""

    kind: CallKind
    name: str
    """The model, or `server/tool`."""
    provider: str | None
    calls: int = 0
    unpriced_calls: int = 0
    """Calls of unknown cost."""
    reported_calls: int = 0
    """Calls whose cost the provider, or the server, named itself."""
    cost_nano_usd: int = 0
    """As far as it is known."""
    last_ms: int = 0
    last_cost_nano_usd: int | None = None
    """Of the last call with a known cost."""
    sources: set[str] = field(default_factory=set[str])
    """Where prices came from, as events name it."""

    def add(self, event: FlatEvent) -> None:
        """Counts one call."""
        self.calls += 1
        self.reported_calls += event.price_status == PriceStatus.REPORTED
        if event.price_source is not None:
            self.sources.add(event.price_source)
        if event.cost_nano_usd is None:
            self.unpriced_calls += 1
            return
        self.cost_nano_usd += event.cost_nano_usd
        if event.time_ms >= self.last_ms:
            self.last_ms = event.time_ms
            self.last_cost_nano_usd = event.cost_nano_usd


def called_in(pages: Iterable[Sequence[FlatEvent]]) -> list[Called]:
    """Counts calls by model and tool: models first, then by their number."""
    found: dict[tuple[str, str | None, str], Called] = {}
    for event in (event for page in pages for event in page):
        key = (event.kind, event.provider, event.called)
        called = found.get(key)
        if called is None:
            kind, provider, name = key
            called = Called(kind=CallKind(kind), name=name, provider=provider)
            found[key] = called
        called.add(event)
    return sorted(
        found.values(),
        key=lambda one: (one.kind.value, -one.calls, one.name, one.provider or ""),
    )
