"""A host that rounds its decimals, or lets none be rounded, changes nothing here."""

from collections.abc import Iterator
from decimal import Context, Inexact, Rounded, localcontext
from typing import Any

import pytest

from guardrails import Attribution, BudgetExceeded, Guard
from guardrails.core.operations import Crossing
from guardrails.sinks import LogSink
from guardrails.testing import FakeClock
from tests.integrations.mcp.peers import Seen, server, session_of

LIMIT = "1234.567891234"

CONTEXTS = {
    "few digits": Context(prec=2),
    "none rounded": Context(prec=12, traps=[Inexact, Rounded]),
    "small numbers": Context(Emax=2, Emin=-2),
}


@pytest.fixture(autouse=True, params=CONTEXTS.values(), ids=list(CONTEXTS))
def host(request: pytest.FixtureRequest) -> Iterator[None]:
    with localcontext(request.param):
        yield


def guarded(**limits: Any) -> Guard:
    return Guard({}, store="memory://", clock=FakeClock(), **limits)


def spend(guard: Guard, cost_usd: str = "123.456789123") -> None:
    with guard.call(tool="report", cost_usd=cost_usd):
        pass


def test_a_stop_is_raised_as_one_and_says_what_was_spent() -> None:
    guard = guarded(max_cost_usd=LIMIT)
    with guard.session("a", session_id="s"), pytest.raises(BudgetExceeded) as stopped:
        while True:
            spend(guard)
    assert str(stopped.value.spent) == "1234.56789123"
    assert str(stopped.value.allowed) == LIMIT
    assert "$1,234.57 of $1,234.57 (max_cost_usd)" in str(stopped.value)


def test_figures_keep_all_their_digits() -> None:
    guard = guarded(max_cost_usd=LIMIT)
    with guard.session("a") as session:
        spend(guard)
        assert str(session.spent) == "123.456789123"
        assert str(session.remaining) == "1111.111102111"
    assert str(guard.spend()[0].usd) == "123.456789123"


def test_a_child_gets_the_very_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guarded(max_cost_usd=LIMIT, max_wall_time_s="1234.567")
    for name, value in guard.child_env().items():
        monkeypatch.setenv(name, value)
    child = Guard(store="memory://").configuration.policy.session.limits
    assert child == guard.configuration.policy.session.limits
    assert (child.cost_nano_usd, child.wall_time_ms) == (1_234_567_891_234, 1_234_567)


def test_people_are_told_at_the_very_fraction() -> None:
    crossed: list[int] = []

    class Sink(LogSink):
        def crossed(self, crossing: Crossing, attribution: Attribution) -> None:
            crossed.append(crossing.posted)

    limits = {"max_cost_usd": "3.333333333", "soft_alert_ratio": 0.777}
    guard = guarded(**limits, sinks=[Sink()])
    with guard.session("a", session_id="s"):
        spend(guard, "2.589999999")
        assert crossed == []
        spend(guard, "0.000000001")
        assert crossed == [2_590_000_000]
        guard.raise_limit("s", max_cost_usd=LIMIT)
        spend(guard, "956.669251488")
        assert crossed == [2_590_000_000]
        spend(guard, "0.000000001")
        assert crossed == [2_590_000_000, 959_259_251_489]


async def test_a_call_of_mcp_is_refused_and_not_let_pass() -> None:
    seen = Seen()
    price = {"cost_per_call_usd": "123.456789123"}
    config: Any = {"tools": {"geo/*": price}}
    guard = Guard(config, store="memory://", max_cost_usd=LIMIT, soft_alert_ratio=0.7)
    async with session_of(guard, server(seen), server="geo") as session:
        with pytest.raises(BudgetExceeded):
            for number in range(20):
                await session.call_tool("echo", {"q": f"{number}"})
    assert len(seen.calls) == 10
    assert guard.engine.failures == 0
