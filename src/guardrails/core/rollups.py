"""Rollups: hourly sums per dimension, kept as each call settles.

Reports read these sums, so that their cost does not grow with the number of
events. A cell is one name of one dimension in one hour.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from guardrails.core.calls import CallKind
from guardrails.core.events import Event
from guardrails.core.usage import PriceStatus

__all__ = ["HOUR_MS", "ROLLUP_DIMENSIONS", "Spend", "cells_of", "ranked", "spend_of"]

HOUR_MS = 3_600_000

ROLLUP_DIMENSIONS = (
    "project_id",
    "agent",
    "customer_id",
    "user_id",
    "feature",
    "prompt_version",
    "session_id",
    "model",
    "tool",
)
"""What spend can be grouped by. `tool` is `server/tool`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What was spent under one name. Sums of settled calls."""

    name: str | None
    """The name in its dimension; `None` collects what was not attributed."""
    model_nano_usd: int = 0
    """Cost of model calls, as far as it is known."""
    tool_nano_usd: int = 0
    """Cost of tool calls, as far as it is known."""
    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    """All input, cache reads and writes included."""
    output_tokens: int = 0
    """All output, reasoning included."""
    unpriced_calls: int = 0
    """Calls of unknown cost; they add nothing to the sums above."""
    estimated_calls: int = 0
    """Calls whose usage was not reported but bounded."""
    failed_calls: int = 0
    latency_ms: int = 0
    """Time that calls took, one after another: more than passed where they overlap."""
    bytes_in: int = 0
    """Of arguments of tool calls, as far as it is known."""
    bytes_out: int = 0
    """Of results of tool calls, as far as it is known."""

    @property
    def total_nano_usd(self) -> int:
        """Models and tools together."""
        return self.model_nano_usd + self.tool_nano_usd

    @property
    def steps(self) -> int:
        """Model calls and tool calls together."""
        return self.model_calls + self.tool_calls

    def plus(self, other: "Spend") -> "Spend":
        """Returns the sum, under this name."""
        return Spend(
            name=self.name,
            model_nano_usd=self.model_nano_usd + other.model_nano_usd,
            tool_nano_usd=self.tool_nano_usd + other.tool_nano_usd,
            model_calls=self.model_calls + other.model_calls,
            tool_calls=self.tool_calls + other.tool_calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            unpriced_calls=self.unpriced_calls + other.unpriced_calls,
            estimated_calls=self.estimated_calls + other.estimated_calls,
            failed_calls=self.failed_calls + other.failed_calls,
            latency_ms=self.latency_ms + other.latency_ms,
            bytes_in=self.bytes_in + other.bytes_in,
            bytes_out=self.bytes_out + other.bytes_out,
        )

    def minus(self, part: "Spend") -> "Spend":
        """Returns what is left without a part of it, under this name."""
        amounts = asdict(part)
        amounts.pop("name")
        return self.plus(Spend(name=None, **{k: -v for k, v in amounts.items()}))


def cells_of(event: Event) -> tuple[tuple[str, str | None], ...]:
    """Returns the cells that an event belongs to, as (dimension, name)."""
    who = event.attribution
    if event.kind is CallKind.TOOL:
        tool = f"{event.server}/{event.tool}" if event.server else event.tool
        what = ("tool", tool)
    else:
        what = ("model", event.model)
    return (
        ("project_id", who.project_id),
        ("agent", who.agent),
        ("customer_id", who.customer_id),
        ("user_id", who.user_id),
        ("feature", who.feature),
        ("prompt_version", who.prompt_version),
        ("session_id", who.session_id),
        what,
    )


def spend_of(event: Event, *, name: str | None = None) -> Spend:
    """Returns what one event adds to each of its cells."""
    is_model = event.kind is CallKind.MODEL
    cost = event.charge.cost_nano_usd or 0
    usage = event.usage
    return Spend(
        name=name,
        model_nano_usd=cost if is_model else 0,
        tool_nano_usd=0 if is_model else cost,
        model_calls=int(is_model),
        tool_calls=int(not is_model),
        input_tokens=usage.input_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        unpriced_calls=int(event.charge.status is PriceStatus.UNPRICED),
        estimated_calls=int(event.charge.status is PriceStatus.ESTIMATED),
        failed_calls=int(event.status.value != "ok"),
        latency_ms=event.latency_ms or 0,
        bytes_in=event.bytes_in or 0,
        bytes_out=event.bytes_out or 0,
    )


def ranked(events: Iterable[Event]) -> list[Spend]:
    """Sums events per model and tool, most expensive first."""
    sums: dict[str, Spend] = {}
    for event in events:
        tool = f"{event.server}/{event.tool}" if event.server else event.tool
        name = event.model or tool or "?"
        spend = spend_of(event, name=name)
        sums[name] = sums[name].plus(spend) if name in sums else spend
    return sorted(
        sums.values(), key=lambda spend: (-spend.total_nano_usd, spend.name or "")
    )
