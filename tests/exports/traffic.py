"""A month of agents: customers, sessions, loops, retries and spikes, all generated."""

import random  # noqa: TID251 - seeded, so that every run is the same month
from collections.abc import Iterator
from dataclasses import dataclass

from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.layers import Author, LayerPart, Piece, billed_prompt, layers_of
from guardrails.core.usage import Charge, PriceStatus, TokenUsage

__all__ = ["START_MS", "Month"]

START_MS = 1_764_547_200_000
"""The first of December 2025."""

DAY_MS = 86_400_000
SESSION_MS = 1_200_000
MODELS = (("openai", "gpt-4o", 2_500), ("anthropic", "claude-sonnet-4-5", 3_000))
LOOP_CALLS = 120
"""How often one tool is called in a session that runs away."""


@dataclass(frozen=True, kw_only=True)
class Month:
    """What happens in it. The same numbers make the same month."""

    sessions: int
    events: int
    customers: int = 200
    agents: int = 20
    days: int = 30
    start_ms: int = START_MS

    def all_events(self) -> Iterator[Event]:
        """Yields its calls, session by session."""
        dice = random.Random(self.events)
        for number in range(self.events):
            session = number * self.sessions // self.events
            yield self._event(dice, session, number)

    def _began_ms(self, session: int) -> int:
        day = session * 7 % self.days
        within = session * 7_919_333 % (DAY_MS - SESSION_MS)
        return self.start_ms + day * DAY_MS + within

    def _event(self, dice: random.Random, session: int, number: int) -> Event:
        customer = session % self.customers
        day = session * 7 % self.days
        is_loop = session % 97 == 3
        is_retry = number % 53 == 1
        is_tool = is_loop or number % 3 == 0
        is_spike = customer == 7 and day == 20
        agent = f"agent-{session % self.agents}"
        cost: int | None = dice.randint(0, 50_000_000) * (10 if is_spike else 1)
        usage = None if is_tool else _usage(dice)
        provider, model, rate = MODELS[session % len(MODELS)]
        if usage is not None:
            cost = usage.input_tokens * rate + usage.output_tokens * 4 * rate
        if number % 211 == 5:
            cost = None
        has_failed = number % 53 == 0
        return Event(
            event_id=f"e{number:08d}",
            time_ms=self._began_ms(session) + dice.randrange(SESSION_MS),
            attribution=Attribution(
                customer_id=None if customer == 11 else f"customer-{customer}",
                user_id=f"user-{session % 997}",
                feature=("triage", "search", None)[session % 3],
                agent=agent,
                agent_path=("router", agent) if session % 5 == 0 else (agent,),
                session_id=f"session-{session:06d}",
                tags=(("env", "prod"),),
            ),
            kind=CallKind.TOOL if is_tool else CallKind.MODEL,
            provider=None if is_tool else provider,
            model=None if is_tool else model,
            server="maps" if is_tool else None,
            tool=("geocode" if is_loop else f"tool-{number % 9}") if is_tool else None,
            status=CallStatus.ERROR if has_failed else CallStatus.OK,
            error_type="TimeoutError" if has_failed else None,
            latency_ms=dice.randint(1, 3_000),
            usage=usage,
            charge=Charge(
                cost_nano_usd=cost,
                status=PriceStatus.UNPRICED if cost is None else PriceStatus.PRICED,
            ),
            reserved_nano_usd=0,
            attempt=2 if is_retry else 1,
            is_repeat=is_loop,
            layers=None if usage is None else _layers(dice, usage, cost),
        )


def _usage(dice: random.Random) -> TokenUsage:
    cached, fresh = dice.randint(0, 3_000), dice.randint(10, 3_000)
    hidden, shown = dice.choice((0, 0, 200)), dice.randint(1, 800)
    return TokenUsage(
        input_tokens=cached + fresh,
        cache_read_tokens=cached,
        output_tokens=hidden + shown,
        reasoning_tokens=hidden,
    )


def _layers(
    dice: random.Random, usage: TokenUsage, cost: int | None
) -> tuple[LayerPart, ...]:
    pieces = [
        Piece(Author.SYSTEM, dice.randint(100, 900)),
        Piece(Author.PERSON, dice.randint(10, 500)),
        Piece(Author.MODEL, 30, 60),
        Piece(Author.PERSON, dice.randint(10, 90)),
        Piece(Author.TOOL, dice.randint(10, 5_000)),
    ]
    prompt = billed_prompt(usage, tools=300, pieces=pieces, written=None, earlier=None)
    return layers_of(usage, prompt, pieces=pieces, cost_nano_usd=cost)
