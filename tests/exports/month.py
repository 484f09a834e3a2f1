"""A generated month: customers, agents, tools, failures, loops and unknown prices."""

import random  # noqa: TID251 - seeded, so that every run is alike
from collections.abc import Iterator

from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.usage import Charge, PriceStatus, TokenUsage

__all__ = ["MONTH_MS", "month"]

MONTH_MS = 30 * 86_400_000

_MODELS = (("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), (None, "my-ft"))
_TOOLS = (("maps", "geocode"), ("crm", "=lookup"), (None, "検索"))


def month(count: int, *, until_ms: int) -> Iterator[Event]:
    """Yields events of the 30 days before an instant, in any order of time."""
    dice = random.Random(7)
    for number in range(count):
        session = dice.randrange(max(1, count // 100))
        customer = session % 200
        agent = f"agent-{session % 20}"
        is_tool = dice.random() < 0.5
        looping = session % 97 == 0  # Calls of one tool, again and again.
        provider, model = _MODELS[dice.randrange(3)]
        server, tool = _TOOLS[0 if looping else dice.randrange(3)]
        is_unpriced = dice.random() < 0.02
        cost = None if is_unpriced else dice.randrange(10**8)
        status = PriceStatus.UNPRICED if is_unpriced else PriceStatus.PRICED
        fresh, read, out = (dice.randrange(5_000) for _ in range(3))
        usage = TokenUsage(
            input_tokens=fresh + read, cache_read_tokens=read, output_tokens=out
        )
        yield Event(
            event_id=f"{number:08d}",
            time_ms=until_ms - 1 - dice.randrange(MONTH_MS),
            attribution=Attribution(
                customer_id=f"customer-{customer}" if customer % 10 else None,
                user_id=f"user-{session}",
                feature=f"feature-{session % 5}",
                agent=agent,
                agent_path=("router", agent),
                session_id=f"session-{session}",
            ),
            kind=CallKind.TOOL if is_tool else CallKind.MODEL,
            provider=None if is_tool else provider,
            model=None if is_tool else model,
            server=server if is_tool else None,
            tool=tool if is_tool else None,
            status=CallStatus.ERROR if dice.random() < 0.05 else CallStatus.OK,
            latency_ms=dice.randrange(3_000),
            usage=None if is_tool else usage,
            charge=Charge(cost_nano_usd=cost, status=status, source="genai-prices"),
            reserved_nano_usd=cost or 0,
        )
