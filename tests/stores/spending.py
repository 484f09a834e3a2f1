"""Calls that differ in all that a report can tell apart, for the tests of reports."""

from dataclasses import replace

from hypothesis import strategies as st

from guardrails.core.accounts import Charging, Line
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.layers import (
    Author,
    LayerPart,
    Piece,
    billed_prompt,
    layers_of,
)
from guardrails.core.operations import Settle
from guardrails.core.policy import Limits
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from guardrails.testing.conformance import NOW_MS

NAMES = ("a", "ab", "Ünï ﷽ 名", 'q"\\/[*]?', "=1+1", "\u200fעברית", "new\x7fline")
"""A few, so that they meet, with what JSON, globs and terminals take for theirs."""

names = st.none() | st.sampled_from(NAMES)

START_MS = NOW_MS // HOUR_MS * HOUR_MS
HOURS = 50
"""The calls are of two days and a bit."""


@st.composite
def layers(
    draw: st.DrawFn, usage: TokenUsage, cost: int | None
) -> tuple[LayerPart, ...] | None:
    """What the tokens of a call are for, whether its prompt was seen or not."""
    pieces = draw(
        st.none()
        | st.lists(
            st.builds(
                Piece,
                st.sampled_from(Author),
                st.integers(1, 99),
                st.integers(0, 99),
                st.none(),
            ),
            min_size=1,
            max_size=4,
        )
    )
    prompt = billed_prompt(
        usage, tools=1, pieces=pieces or (), written=None, earlier=None
    )
    return layers_of(usage, prompt, pieces=pieces, cost_nano_usd=cost) or None


@st.composite
def _events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(CallKind))
    is_model = kind is CallKind.MODEL
    agent = draw(names)
    who = Attribution(
        session_id=draw(names),
        customer_id=draw(names),
        user_id=draw(names),
        feature=draw(names),
        prompt_version=draw(names),
    )
    if agent is not None:
        who = who.under(agent)
        who = who.under("a") if draw(st.booleans()) else who
    cost = draw(st.none() | st.integers(0, 10**12))
    cached, read, reasoning = (draw(st.integers(0, 99)) for _ in range(3))
    usage = TokenUsage(
        input_tokens=cached + read + draw(st.integers(0, 99)),
        cache_read_tokens=read,
        cache_write_tokens=cached,
        output_tokens=reasoning + draw(st.integers(0, 99)),
        reasoning_tokens=reasoning,
    )
    return Event(
        event_id="",
        time_ms=START_MS + draw(st.integers(0, HOURS * HOUR_MS - 1)),
        attribution=who,
        kind=kind,
        provider=draw(names) if is_model else None,
        model=draw(names) if is_model else None,
        server=None if is_model else draw(names),
        tool=None if is_model else draw(st.sampled_from(NAMES)),
        status=draw(st.sampled_from(CallStatus)),
        latency_ms=draw(st.none() | st.integers(0, 10**6)),
        bytes_in=draw(st.none() | st.integers(0, 10**6)),
        bytes_out=draw(st.none() | st.integers(0, 10**6)),
        usage=usage if is_model else None,
        layers=draw(layers(usage, cost)) if is_model else None,
        charge=Charge(
            cost_nano_usd=cost,
            status=PriceStatus.UNPRICED
            if cost is None
            else draw(st.sampled_from((PriceStatus.PRICED, PriceStatus.ESTIMATED))),
        ),
        reserved_nano_usd=0,
    )


@st.composite
def event_lists(draw: st.DrawFn) -> list[Event]:
    """Up to 120 events of one project, in no order, of which some are alike."""
    events = draw(st.lists(_events(), max_size=30)) * draw(st.integers(1, 4))
    return [replace(event, event_id=f"e{n}") for n, event in enumerate(events)]


def settle_of(event: Event) -> Settle:
    """The operation that books an event."""
    name = (event.attribution.session_id or "-").encode().hex()
    line = Line(
        account=f"default/session/session_id={name}",
        scope="session",
        limits=Limits(),
        is_session=True,
    )
    return Settle(
        hold_id=event.event_id,
        charging=Charging(attribution=event.attribution, lines=(line,)),
        kind=event.kind,
        cost_nano_usd=event.charge.cost_nano_usd or 0,
        tokens=event.usage.total_tokens if event.usage else 0,
        event=event,
        now_ms=event.time_ms,
        active_ms=(0,),
    )
