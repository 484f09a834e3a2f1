"""Events of any kind, with names as they come from outside."""

from hypothesis import strategies as st

from guardrails.core.attribution import Attribution, clean_name
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.layers import LAYERS, LayerPart
from guardrails.core.usage import Charge, PriceStatus, TokenUsage

__all__ = ["events", "names", "no_rates"]

HARD_NAMES = (
    "=1+1",
    '=HYPERLINK("http://x";"y")',
    "+49 30",
    "-",
    "@SUM(A1)",
    " =1",
    "'quoted",
    "''",
    '"',
    "a,b;c\td",
    "\x1b[31mred",
    "line\nbreak\r\n",
    "日本語の名前",
    "שלום",
    "e\u0301",
    "null",
    "NaN",
    "0012",
    "1e5",
    "{}",
    "\u202eevil",
)

_dirty = st.one_of(
    st.sampled_from(HARD_NAMES), st.text(min_size=1, max_size=12).filter(str.strip)
)
names = _dirty.map(clean_name).filter(bool)
_maybe = st.none() | names
_counts = st.integers(0, 10**6)


@st.composite
def _usages(draw: st.DrawFn) -> TokenUsage:
    fresh, read, write = draw(_counts), draw(_counts), draw(_counts)
    reasoning, text = draw(_counts), draw(_counts)
    return TokenUsage(
        input_tokens=fresh + read + write,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=reasoning + text,
        reasoning_tokens=reasoning,
    )


@st.composite
def _charges(draw: st.DrawFn) -> Charge:
    status = draw(st.sampled_from(PriceStatus))
    cost = draw(st.integers(0, 10**15))
    return Charge(
        cost_nano_usd=None if status is PriceStatus.UNPRICED else cost,
        status=status,
        source=draw(st.none() | st.sampled_from(["config", "genai-prices 0.2.3"])),
    )


@st.composite
def events(draw: st.DrawFn, *, number: int = 0) -> Event:
    """One event; its id holds a number, so that a list of them has none twice."""
    kind = draw(st.sampled_from(CallKind))
    path = tuple(draw(st.lists(names, max_size=3)))
    tags = draw(st.dictionaries(names, names, max_size=3))
    is_tool = kind is CallKind.TOOL
    charge = draw(_charges())
    return Event(
        event_id=f"{number:04d}",
        time_ms=draw(st.integers(1_760_000_000_000, 1_770_000_000_000)),
        attribution=Attribution(
            customer_id=draw(_maybe),
            user_id=draw(_maybe),
            feature=draw(_maybe),
            agent=path[-1] if path else None,
            agent_path=path,
            session_id=draw(names),
            agent_run_id=draw(_maybe),
            prompt_version=draw(_maybe),
            tags=tuple(sorted(tags.items())),
        ),
        kind=kind,
        provider=None if is_tool else draw(_maybe),
        model=None if is_tool else draw(names),
        server=draw(_maybe) if is_tool else None,
        tool=draw(names) if is_tool else None,
        status=draw(st.sampled_from(CallStatus)),
        error_type=draw(st.none() | st.just("ValueError")),
        latency_ms=draw(st.none() | st.integers(0, 2**40)),
        bytes_in=draw(st.none() | st.integers(0, 2**40)),
        bytes_out=draw(st.none() | st.integers(0, 2**40)),
        usage=None if is_tool else draw(st.none() | _usages()),
        charge=charge,
        reserved_nano_usd=0,
        attempt=draw(st.integers(1, 9)),
        is_repeat=draw(st.booleans()),
        refused_by=draw(st.none() | st.just("max_cost_usd of session")),
        layers=None if is_tool else draw(_layers(charge.cost_nano_usd)),
    )


@st.composite
def _layers(draw: st.DrawFn, cost: int | None) -> tuple[LayerPart, ...] | None:
    found = draw(st.lists(st.sampled_from(LAYERS), unique=True))
    costs = st.none() if cost is None else _counts
    parts = [
        LayerPart(layer=layer, tokens=draw(_counts), cost_nano_usd=draw(costs))
        for layer in found
    ]
    return tuple(parts) or None


def no_rates(provider: str | None, model: str, now_ms: int) -> None:
    """Knows the rates of no model."""
