"""Traffic to look for anomalies in: days of customers, and rows of a day."""

import math
import random  # noqa: TID251 - seeded, so that every run is alike
from collections.abc import Callable, Iterable, Iterator

from guardrails.core.reporting.rollups import Spend
from guardrails.reports import Span, Watched, rows_of

DAY_MS = 86_400_000
DAY = 20_420
"""A Friday: Nov 28, 2025."""

CENT = 10_000_000
USD = 1_000_000_000

SPAN = Span(hours=12, until_ms=DAY * DAY_MS + 12 * 3_600_000)
"""Up to noon of that day."""

Kind = Callable[[random.Random, int], float]


def is_weekend(day: int) -> bool:
    return (day + 3) % 7 >= 5


def noise(source: random.Random, sigma: float) -> float:
    return math.exp(source.gauss(0, sigma))


def steady(source: random.Random, day: int) -> float:
    """Twenty dollars on weekdays, five on weekends."""
    return (5 if is_weekend(day) else 20) * noise(source, 0.25)


def growing(source: random.Random, day: int) -> float:
    """Two per cent more each day."""
    return steady(source, day) * 1.02 ** (day - DAY)


def sparse(source: random.Random, day: int) -> float:
    """Something on every third day."""
    return 6 * noise(source, 0.4) if source.random() < 0.35 else 0.0


def bursty(source: random.Random, day: int) -> float:
    """Now and then a job of many times as much."""
    return steady(source, day) * (6 if source.random() < 0.1 else 1)


def tiny(source: random.Random, _: int) -> float:
    """A few cents."""
    return 0.05 * noise(source, 1.0)


def costs_of(kind: Kind, *, seed: object, days: int) -> dict[int, int]:
    """Costs of a customer by day, up to `DAY`."""
    source = random.Random(f"{kind.__name__} {seed}")
    return {
        day: round(kind(source, day) * USD) for day in range(DAY - days + 1, DAY + 1)
    }


def days_of(name: str | None, costs: dict[int, int]) -> Iterator[Spend]:
    """The same as a ledger tells it: nothing of days without calls."""
    for day, cost in costs.items():
        if cost:
            yield Spend(
                name=name, since_ms=day * DAY_MS, model_nano_usd=cost, model_calls=1
            )


def row(
    cost: int,
    *,
    agent: str | None = "support",
    session: str | None = "s-0",
    model: str | None = None,
    tool: str | None = None,
    customer: str | None = "acme",
    waste: str | None = None,
    calls: int = 1,
    input_tokens: int = 0,
    output_tokens: int = 0,
) -> Spend:
    """A row by `NOW_BY`."""
    names = (agent, session, model, tool, customer, waste)
    is_model = tool is None
    return Spend(
        name=agent,
        more_names=names,
        model_nano_usd=cost if is_model else 0,
        tool_nano_usd=0 if is_model else cost,
        model_calls=calls if is_model else 0,
        tool_calls=0 if is_model else calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


def before(*rows: Spend) -> list[Spend]:
    """The same rows by `BEFORE_BY`."""
    return [
        Spend(
            name=one.name,
            more_names=one.more_names[:4],
            model_nano_usd=one.model_nano_usd,
            tool_nano_usd=one.tool_nano_usd,
            model_calls=one.model_calls,
            tool_calls=one.tool_calls,
            input_tokens=one.input_tokens,
            output_tokens=one.output_tokens,
        )
        for one in rows
    ]


def watched(
    now: Iterable[Spend] = (),
    *,
    earlier: Iterable[Spend] = (),
    days: Iterable[Spend] = (),
) -> Watched:
    return Watched(
        span=SPAN,
        now=rows_of(now),
        before=rows_of(before(*earlier)),
        days=list(days),
    )
