"""Pins what a user's type checker sees. It is checked, and never run."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import assert_type

from guardrails import (
    Attribution,
    BudgetExceeded,
    CallRefused,
    Charge,
    Event,
    Guard,
    GuardedCall,
    GuardrailsError,
    LoopDetected,
    Policy,
    PriceStatus,
    Session,
    SessionStopped,
    TokenUsage,
    carried,
)

# --- building a guard -------------------------------------------------------

guard = Guard()
Guard("guardrails.yaml")
Guard(Path("guardrails.yaml"))
Guard({"version": 1}, store="memory://")
Guard(policy=Policy(), store=Path("ledger.sqlite3"))
Guard(
    max_cost_usd="1.00",
    soft_alert_usd=Decimal("0.50"),
    soft_alert_ratio=[0.5, 0.8],
    max_steps=25,
    max_model_calls=10,
    max_tool_calls=10,
    max_tokens=100_000,
    max_wall_time_s=120,
    mode="observe",
    on_unpriced="allow",
    on_store_error="closed",
    project_id="p",
)
Guard(max_cost=1)  # pyright: ignore[reportArgumentType]
Guard(max_steps="25")  # pyright: ignore[reportArgumentType]

# --- sessions ---------------------------------------------------------------

session = guard.session(
    "support-agent",
    customer_id="acme",
    user_id="u-7",
    feature="triage",
    prompt_version="v12",
    project_id="p",
    session_id="s",
    tags={"env": "prod"},
)
assert_type(session, Session)
assert_type(session.session_id, str)
assert_type(session.attribution, Attribution)
assert_type(session.spent, Decimal)
assert_type(session.remaining, Decimal | None)
assert_type(session.steps, int)
assert_type(session.wall_time_s, float)
assert_type(session.status, str)
assert_type(session.events(), Sequence[Event])
guard.session(customer="acme")  # pyright: ignore[reportCallIssue]
guard.session(customer_id=7)  # pyright: ignore[reportArgumentType]

with guard.session() as entered:
    assert_type(entered, Session)


async def sessions() -> None:
    async with guard.session() as entered:
        assert_type(entered, Session)


# --- calls ------------------------------------------------------------------

with guard.call(model="gpt-4o", provider="openai", input_bytes=2_000) as call:
    assert_type(call, GuardedCall)
    assert_type(call.is_open, bool)
    assert_type(call.session, Session)
    call.settle(TokenUsage(input_tokens=1, output_tokens=2), model="gpt-4o-2024-11-20")
    call.settle(cost_usd="0.01")
    call.settle({"input_tokens": 1})  # pyright: ignore[reportArgumentType]
    call.release()

with guard.call(tool="geocode", server="maps", arguments={"q": 1}, cost_usd="0.005"):
    pass


async def calls() -> None:
    async with guard.call(model="gpt-4o", max_output_tokens=500) as call:
        assert_type(call, GuardedCall)
        call.settle(TokenUsage(input_tokens=1))


# --- tools keep their signatures --------------------------------------------


@guard.tool(server="billing", cost_usd="0.002")
def refund(order_id: str, *, amount: int = 1) -> bool:
    return bool(order_id) and amount > 0


@guard.tool()
async def lookup(name: str) -> list[str]:
    return [name]


assert_type(refund("A-1", amount=2), bool)


async def tools() -> None:
    assert_type(await lookup("a"), list[str])


refund(7)  # pyright: ignore[reportArgumentType]
refund("A-1", order="x")  # pyright: ignore[reportCallIssue]


class Agent:
    """Stands for any object of a framework."""


assert_type(guard.wrap(Agent(), agent="a", tags={"env": "prod"}), Agent)
assert_type(guard.unwrap(Agent()), Agent)
assert_type(guard.child_env(), dict[str, str])
assert_type(carried(refund)("A-1"), bool)


def twice(work: Callable[[int], str]) -> Callable[[int], str]:
    return carried(work)


# --- operating --------------------------------------------------------------

assert_type(guard.raise_limit("s", max_steps=9, by="ops", reason="big one"), None)
assert_type(guard.stop("s", reason="wrong customer", by="ops"), None)
assert_type(guard.stop(session_id="s", for_s=60), None)
assert_type(guard.stop(agent="support-agent", for_s=0.5), None)
assert_type(guard.stop(customer_id="acme", reason="invoice dispute"), None)
assert_type(guard.stop(everything=True), None)
assert_type(guard.resume("s"), None)
assert_type(guard.resume(customer_id="acme", by="ops", reason="paid"), None)
assert_type([order.target.label for order in guard.stops()], list[str])
assert_type([entry.subject for entry in guard.audit(limit=10)], list[str])
assert_type(guard.close(), None)

# --- reading spend ----------------------------------------------------------

for row in guard.spend(by=["customer_id", "feature"], since="7d", limit=10):
    assert_type(row.names, tuple[str | None, ...])
    assert_type(row.usd, Decimal)
    assert_type(row.share, float | None)
    assert_type(row.change_usd, Decimal | None)
    assert_type(row.since, datetime | None)
guard.spend("agent", where={"agent": "a*", "tool": ["x", "y"], "customer": None})
guard.spend(since=timedelta(days=7), every="day", compare=False)
for info in guard.sessions(status="stopped", sort="time"):
    assert_type(info.session_id, str)
    assert_type(info.limit_usd, Decimal | None)

# --- what is raised ---------------------------------------------------------

try:
    pass
except BudgetExceeded as stop:
    assert_type(stop.limit, str)
    assert_type(stop.scope, str)
    assert_type(stop.spent, Decimal | int)
    assert_type(stop.allowed, Decimal | int)
    assert_type(stop.needed, Decimal | int | None)
    assert_type(stop.top_costs, tuple[tuple[str, Decimal, int], ...])
    assert_type(stop.attribution, Attribution | None)
except LoopDetected as stop:
    assert_type(stop.tool, str)
    assert_type(stop.count, int)
    assert_type(stop.cost, Decimal)
except SessionStopped as stop:
    assert_type(stop.message, str)
    assert_type(stop.reason, str)
    assert_type(stop.session_id, str | None)
    assert_type(stop.agent, str | None)
    assert_type(stop.steps, int)
except CallRefused as refusal:
    assert_type(refusal, CallRefused)
except GuardrailsError as error:
    assert_type(error, GuardrailsError)

# --- events -----------------------------------------------------------------

for event in session.events():
    assert_type(event.time_ms, int)
    assert_type(event.model, str | None)
    assert_type(event.tool, str | None)
    assert_type(event.attribution, Attribution)
    assert_type(event.usage, TokenUsage | None)
    assert_type(event.charge, Charge)
    assert_type(event.charge.cost_nano_usd, int | None)
    assert_type(event.charge.status, PriceStatus)
