"""Flat events: an event as one row of plain values, for exports and long reports.

The schema is closed and has a version: fields may be added at the end within a
version, none is taken away or changes its meaning.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from guardrails.core.calls import tool_name
from guardrails.core.events import EVENT_SCHEMA_VERSION, Event
from guardrails.core.layers import LAYER_GROUPS, LAYERS
from guardrails.core.usage import PriceStatus

__all__ = [
    "FLAT_SCHEMA_VERSION",
    "FlatEvent",
    "flat_event",
    "layer_groups",
    "path_text",
    "tags_text",
]

FLAT_SCHEMA_VERSION = EVENT_SCHEMA_VERSION

TEXTS_MAX = 4_096
"""Paths and sets of tags that are remembered as text; most events repeat one."""


class FlatEvent(NamedTuple):
    """One settled call. `None` is not known, or is not of its kind of call."""

    event_id: str
    time_ms: int
    """When it settled, in milliseconds since 1970 (UTC)."""
    project_id: str
    customer_id: str | None
    user_id: str | None
    feature: str | None
    agent: str | None
    agent_path: str
    """Nested agents, parent first, as a JSON array."""
    session_id: str | None
    agent_run_id: str | None
    prompt_version: str | None
    kind: str
    provider: str | None
    model: str | None
    server: str | None
    tool: str | None
    status: str
    error_type: str | None
    latency_ms: int | None
    bytes_in: int | None
    bytes_out: int | None
    input_tokens: int | None
    """All input, cache reads and writes included."""
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    """All output, reasoning included."""
    reasoning_tokens: int | None
    cost_nano_usd: int | None
    price_status: str
    price_source: str | None
    tags: str
    """Free pairs as a JSON object, sorted by name."""
    attempt: int
    """Above 1 for a call that was made again because the one before failed."""
    is_repeat: bool
    """Whether it brought the same result for the same arguments as one before."""
    refused_by: str | None
    """In observe mode: what would have refused it."""
    prompt_tokens: int | None
    """Instructions and the current turn. What tokens were for is an estimate, and not
    known of input that guardrails does not see."""
    tool_tokens: int | None
    """Definitions, calls and results of tools."""
    memory_tokens: int | None
    """Earlier turns, summaries, and what was looked up."""
    response_tokens: int | None
    prompt_nano_usd: int | None
    tool_nano_usd: int | None
    memory_nano_usd: int | None
    response_nano_usd: int | None

    @property
    def is_estimated(self) -> bool:
        """Whether the usage was not reported but bounded."""
        return self.price_status == PriceStatus.ESTIMATED

    @property
    def called(self) -> str:
        """The model, or `server/tool`."""
        if self.model is not None:
            return self.model
        return tool_name(self.tool or "?", self.server)


def flat_event(event: Event) -> FlatEvent:
    """Returns an event as one row."""
    who, usage = event.attribution, event.usage
    return FlatEvent(
        event_id=event.event_id,
        time_ms=event.time_ms,
        project_id=who.project_id,
        customer_id=who.customer_id,
        user_id=who.user_id,
        feature=who.feature,
        agent=who.agent,
        agent_path=path_text(who.agent_path),
        session_id=who.session_id,
        agent_run_id=who.agent_run_id,
        prompt_version=who.prompt_version,
        kind=event.kind.value,
        provider=event.provider,
        model=event.model,
        server=event.server,
        tool=event.tool,
        status=event.status.value,
        error_type=event.error_type,
        latency_ms=event.latency_ms,
        bytes_in=event.bytes_in,
        bytes_out=event.bytes_out,
        input_tokens=usage.input_tokens if usage else None,
        cache_read_tokens=usage.cache_read_tokens if usage else None,
        cache_write_tokens=usage.cache_write_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        reasoning_tokens=usage.reasoning_tokens if usage else None,
        cost_nano_usd=event.charge.cost_nano_usd,
        price_status=event.charge.status.value,
        price_source=event.charge.source,
        tags=tags_text(who.tags),
        attempt=event.attempt,
        is_repeat=event.is_repeat,
        refused_by=event.refused_by,
        **_layers(event),
    )


def _layers(event: Event) -> dict[str, int | None]:
    tokens, costs = layer_groups(
        {
            part.layer.value: (part.tokens, part.cost_nano_usd)
            for part in event.layers or ()
        }
    )
    names = (
        *(f"{group}_tokens" for group in LAYER_GROUPS),
        *(f"{group}_nano_usd" for group in LAYER_GROUPS),
    )
    return dict(zip(names, (*tokens, *costs), strict=True))


def layer_groups(
    parts: Mapping[str, tuple[int, int | None]],
) -> tuple[list[int | None], list[int | None]]:
    """Returns the tokens and the cost of each of `LAYER_GROUPS`.

    Args:
        parts: Tokens and cost by layer. Without any of input, input is not known.
    """
    tokens: list[int | None] = [None] * len(LAYER_GROUPS)
    costs: list[int | None] = [None] * len(LAYER_GROUPS)
    for layer, (count, cost) in parts.items():
        group = _GROUPS[layer]
        tokens[group] = (tokens[group] or 0) + count
        if cost is not None:
            costs[group] = (costs[group] or 0) + cost
    if any(count is not None for count in tokens[:_RESPONSE]):
        is_priced = any(cost is not None for cost in costs)
        for group, count in enumerate(tokens):
            if count is None:
                tokens[group] = 0
                costs[group] = 0 if is_priced else None
    return tokens, costs


_GROUPS: dict[str, int] = {layer: LAYER_GROUPS.index(layer.group) for layer in LAYERS}
_RESPONSE = LAYER_GROUPS.index("response")


@lru_cache(maxsize=TEXTS_MAX)
def path_text(agent_path: Sequence[str]) -> str:
    """Writes nested agents as a JSON array, parent first."""
    return _compact(list(agent_path))


@lru_cache(maxsize=TEXTS_MAX)
def tags_text(tags: Sequence[tuple[str, str]]) -> str:
    """Writes pairs as a JSON object, in their order."""
    return _compact(dict(tags))


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
