"""Rollups: hourly sums per dimension, kept as each call settles.

Reports read these sums, so that their cost does not grow with the number of
events. A cell is one name of one dimension in one hour. One cell of each event, its
mix, is of all its names together: sums over any of them are sums of mixes.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import NamedTuple, Self

from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.layers import INPUT_LAYERS, Layer
from guardrails.core.usage import PriceStatus, TokenUsage

__all__ = [
    "HOUR_MS",
    "LAYER",
    "MIX",
    "ROLLUP_DIMENSIONS",
    "SUM_NAMES",
    "Mix",
    "Spend",
    "added_up",
    "amounts_of",
    "by_layer",
    "cells_of",
    "layer_amounts",
    "layer_spends",
    "ranked",
    "spend_of",
    "spend_of_layer",
]

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
"""What has cells of its own. `tool` is `server/tool`."""

LAYER = "layer"
"""The dimension of what tokens were for. Its cells divide the tokens and the cost of
a call, and count no calls."""

MIX = "mix"
"""The dimension of all names together. It is no dimension of reports."""

PACKED_MAX = 4_096
"""Mixes that are kept written out: a running session has a few."""


class Mix(NamedTuple):
    """All names of an event. The order is that of the stored array."""

    session_id: str | None = None
    agent: str | None = None
    root_agent: str | None = None
    """The outermost of its agents."""
    customer_id: str | None = None
    user_id: str | None = None
    feature: str | None = None
    prompt_version: str | None = None
    kind: str | None = None
    provider: str | None = None
    model: str | None = None
    server: str | None = None
    tool: str | None = None
    """The tool alone: in the dimension `tool` its server stands before it."""
    waste: str | None = None
    """`error`, `repeat` or `retry`: see `Event.waste`."""
    refused_by: str | None = None
    """In observe mode: what would have refused the call."""

    @classmethod
    def of(cls, event: Event) -> Self:
        """Returns the names of an event."""
        who = event.attribution
        return cls(
            session_id=who.session_id,
            agent=who.agent,
            root_agent=who.agent_path[0] if who.agent_path else who.agent,
            customer_id=who.customer_id,
            user_id=who.user_id,
            feature=who.feature,
            prompt_version=who.prompt_version,
            kind=event.kind.value,
            provider=event.provider,
            model=event.model,
            server=event.server,
            tool=event.tool,
            waste=event.waste,
            refused_by=event.refused_by,
        )

    @classmethod
    def unpack(cls, text: str) -> Self:
        """Reads the name of a cell. Names that a later version adds are left out."""
        return cls(*json.loads(text)[: len(cls._fields)])

    @classmethod
    def unpack_all(cls, texts: Iterable[bytes]) -> list[Self]:
        """Reads the names of many cells, which takes half as long together."""
        size = len(cls._fields)
        found = json.loads(b"[%s]" % b",".join(texts))
        return [cls(*names[:size]) for names in found]

    def pack(self) -> str:
        """Writes the name of a cell."""
        return _packed(self)


@lru_cache(maxsize=PACKED_MAX)
def _packed(mix: Mix) -> str:
    return json.dumps(mix, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What was spent under one name. Sums of settled calls."""

    name: str | None
    """The name in its dimension; `None` collects what was not attributed."""
    more_names: tuple[str | None, ...] = ()
    """The names in further dimensions."""
    since_ms: int | None = None
    """Of a step of a series: when it begins."""
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
    cache_read_tokens: int = 0
    """Input from a provider's cache. Part of `input_tokens`."""
    cache_write_tokens: int = 0
    """Input written to a provider's cache. Part of `input_tokens`."""
    reasoning_tokens: int = 0
    """Hidden reasoning. Part of `output_tokens`."""
    failed_nano_usd: int = 0
    """Cost of calls that failed or were broken off. Part of the sums above."""

    @classmethod
    def of(cls, name: str | None, amounts: Iterable[int]) -> Self:
        """Returns sums that are given in the order of `SUM_NAMES`."""
        return replace(cls(name=name), **dict(zip(SUM_NAMES, amounts, strict=True)))

    @property
    def names(self) -> tuple[str | None, ...]:
        """The names in all dimensions."""
        return (self.name, *self.more_names)

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
        sums = {key: getattr(self, key) + getattr(other, key) for key in SUM_NAMES}
        return replace(self, **sums)

    def minus(self, part: "Spend") -> "Spend":
        """Returns what is left without a part of it, under this name."""
        sums = {key: getattr(self, key) - getattr(part, key) for key in SUM_NAMES}
        return replace(self, **sums)


SUM_NAMES = tuple(field.name for field in fields(Spend) if field.type is int)
"""What is summed up in each cell, in the order in which stores keep it."""

_NO_USAGE = TokenUsage()


def cells_of(event: Event) -> tuple[tuple[str, str | None], ...]:
    """Returns the cells that an event belongs to, as (dimension, name)."""
    who = event.attribution
    if event.kind is CallKind.TOOL:
        what = ("tool", event.tool_name)
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
        (MIX, Mix.of(event).pack()),
    )


def amounts_of(event: Event) -> tuple[int, ...]:
    """Returns what one event adds to each of its cells, as `SUM_NAMES`."""
    is_model = event.kind is CallKind.MODEL
    cost = event.charge.cost_nano_usd or 0
    usage = event.usage or _NO_USAGE
    has_failed = event.status is not CallStatus.OK
    return (
        cost if is_model else 0,
        0 if is_model else cost,
        int(is_model),
        int(not is_model),
        usage.input_tokens,
        usage.output_tokens,
        int(event.charge.status is PriceStatus.UNPRICED),
        int(event.charge.status is PriceStatus.ESTIMATED),
        int(has_failed),
        event.latency_ms or 0,
        event.bytes_in or 0,
        event.bytes_out or 0,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        cost if has_failed else 0,
    )


def spend_of(event: Event, *, name: str | None = None) -> Spend:
    """Returns what one event adds to each of its cells."""
    return Spend.of(name, amounts_of(event))


def layer_spends(event: Event) -> list[Spend]:
    """Returns what one event adds to the cells of its layers."""
    return [
        spend_of_layer(
            part.layer, tokens=part.tokens, cost_nano_usd=part.cost_nano_usd or 0
        )
        for part in event.layers or ()
    ]


def layer_amounts(layer: Layer, *, tokens: int, cost_nano_usd: int) -> list[int]:
    """Returns what tokens of one layer come to, as `SUM_NAMES`."""
    amounts = [0] * len(SUM_NAMES)
    amounts[_COST] = cost_nano_usd
    amounts[_INPUT if layer in _INPUT_LAYERS else _OUTPUT] = tokens
    if layer is Layer.RESPONSE_REASONING:
        amounts[_REASONING] = tokens
    return amounts


_COST, _INPUT, _OUTPUT, _REASONING = (
    SUM_NAMES.index(name)
    for name in ("model_nano_usd", "input_tokens", "output_tokens", "reasoning_tokens")
)
_INPUT_LAYERS = frozenset(INPUT_LAYERS)


def spend_of_layer(layer: Layer, *, tokens: int, cost_nano_usd: int) -> Spend:
    """Returns what tokens of one layer come to."""
    amounts = layer_amounts(layer, tokens=tokens, cost_nano_usd=cost_nano_usd)
    return Spend.of(layer.value, amounts)


def by_layer(layers: Iterable[Spend], models: Iterable[Spend]) -> list[Spend]:
    """Returns what was spent by layer, and under no name what is in none.

    Args:
        layers: The sums of each layer.
        models: What model calls come to, in any parts.
    """
    known, whole = list(layers), list(models)

    def rest(of: Callable[[Spend], int]) -> int:
        return sum(map(of, whole)) - sum(map(of, known))

    unknown = Spend(
        name=None,
        model_nano_usd=rest(lambda spend: spend.model_nano_usd),
        input_tokens=rest(lambda spend: spend.input_tokens),
        output_tokens=rest(lambda spend: spend.output_tokens),
        reasoning_tokens=rest(lambda spend: spend.reasoning_tokens),
    )
    return known if unknown == Spend(name=None) else [*known, unknown]


def added_up(spends: Iterable[Spend]) -> list[Spend]:
    """Adds up what has the same name."""
    sums: dict[str | None, Spend] = {}
    for spend in spends:
        known = sums.get(spend.name)
        sums[spend.name] = known.plus(spend) if known else spend
    return list(sums.values())


def ranked(events: Iterable[Event]) -> list[Spend]:
    """Sums events per model and tool, most expensive first."""

    def called(event: Event) -> str:
        return event.model or event.tool_name or "?"

    return sorted(
        added_up(spend_of(event, name=called(event)) for event in events),
        key=lambda spend: (-spend.total_nano_usd, spend.name or ""),
    )
