"""Simulation: the limits of tomorrow on the calls of yesterday, computed twice."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails import Attribution, Budget, Charge, Event, Limits, Policy, PriceStatus
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.policy import BudgetAction, Measure, SoftAlerts
from guardrails.core.windows import Window
from guardrails.reports.simulation import Simulation, simulated

DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS


def event(
    number: int,
    *,
    at_ms: int,
    took_ms: int = 0,
    session: str = "s",
    customer: str = "acme",
    agent: str = "a",
    cost: int = 10,
    held: int = 10,
) -> Event:
    return Event(
        event_id=f"e{number}",
        time_ms=at_ms + took_ms,
        attribution=Attribution.of(
            session_id=session, customer_id=customer, agent=agent
        ),
        kind=CallKind.TOOL,
        tool="t",
        status=CallStatus.OK,
        latency_ms=took_ms,
        charge=Charge(cost_nano_usd=cost, status=PriceStatus.PRICED, source="test"),
        reserved_nano_usd=held,
    )


def policy(
    *,
    session: int | None = None,
    steps: int | None = None,
    day: int | None = None,
    action: BudgetAction = BudgetAction.STOP,
) -> Policy:
    own = Budget(
        name="session",
        per=("session_id",),
        every=Window.SESSION,
        limits=Limits(cost_nano_usd=session, steps=steps),
    )
    shared = Budget(
        name="day",
        per=("customer_id",),
        every=Window.DAY,
        limits=Limits(cost_nano_usd=day),
        action=action,
    )
    return Policy(session=own, budgets=(shared,) if day is not None else ())


# --- what one limit does -----------------------------------------------------


def test_the_call_that_would_pass_the_limit_is_refused_and_those_after_it() -> None:
    events = [event(n, at_ms=START_MS + n * 1_000) for n in range(5)]

    result = simulated(events, policy(session=25))

    assert (result.calls, result.cost_nano_usd) == (5, 50)
    assert (result.refused_calls, result.refused_nano_usd) == (3, 30)
    [row] = result.refused
    assert (row.session_id, row.agent, row.measure) == ("s", "a", Measure.COST)
    assert (row.calls, row.at_ms) == (3, START_MS + 2_000)
    assert result.stopped_sessions == 1


def test_a_session_that_was_nearly_done_may_be_a_false_alarm() -> None:
    """One that had most of its calls before it is none."""
    events = [
        event(n, at_ms=START_MS + n * 10, session=session)
        for session, calls in (("short", 4), ("long", 9))
        for n in range(calls)
    ]

    result = simulated(sorted(events, key=lambda one: one.time_ms), policy(steps=3))

    assert {row.session_id: row.session_calls for row in result.refused} == {
        "short": 4,
        "long": 9,
    }
    assert (result.stopped_sessions, result.false_alarm_candidates) == (2, 1)


def test_without_limits_nothing_is_refused() -> None:
    events = [event(n, at_ms=START_MS + n) for n in range(5)]

    assert simulated(events, Policy()) == Simulation(calls=5, cost_nano_usd=50)


def test_a_call_holds_its_bound_while_it_runs() -> None:
    """Two at once do not fit where two after one another do."""
    limits = policy(session=100)
    at_once = [event(n, at_ms=START_MS, took_ms=50, cost=10, held=60) for n in range(2)]
    in_turn = [
        event(n, at_ms=START_MS + n * 100, took_ms=50, cost=10, held=60)
        for n in range(2)
    ]

    assert simulated(at_once, limits).refused_calls == 1
    assert simulated(in_turn, limits).refused_calls == 0


def test_a_call_that_cost_more_than_it_held_is_let_pass_as_it_was() -> None:
    """The ledger learnt its cost too late to refuse it, and refuses the next."""
    events = [
        event(n, at_ms=START_MS + n * 100, took_ms=50, cost=40, held=10)
        for n in range(4)
    ]

    assert simulated(events[:3], policy(session=100)).refused_calls == 0
    assert simulated(events[:3], policy(day=100)).refused_calls == 0
    assert simulated(events, policy(session=100)).refused_calls == 1
    assert simulated(events, policy(day=100)).refused_calls == 1


def test_a_shared_budget_refuses_until_its_day_is_over() -> None:
    events = [
        event(n, at_ms=START_MS + n * DAY_MS // 4, session=f"s{n}") for n in range(8)
    ]

    result = simulated(events, policy(day=20))

    assert result.refused_calls == 4
    assert result.stopped_sessions == 0
    assert {row.scope for row in result.refused} == {"customer_id=acme"}


def test_a_budget_that_only_alerts_refuses_nothing() -> None:
    events = [event(n, at_ms=START_MS + n * 10) for n in range(9)]

    result = simulated(events, policy(day=20, action=BudgetAction.ALERT))

    assert result.refused_calls == 0


def test_soft_alerts_are_counted_once_each() -> None:
    alerting = Policy(
        session=Budget(
            name="session",
            per=("session_id",),
            every=Window.SESSION,
            limits=Limits(cost_nano_usd=100),
            soft_alerts=SoftAlerts(cost_nano_usd=20),
        )
    )
    events = [event(n, at_ms=START_MS + n * 10, session=f"s{n % 3}") for n in range(12)]

    assert simulated(events, alerting).soft_alerts == 3


# --- computed again, in another way -------------------------------------------


@dataclass(slots=True)
class Books:
    """Adds everything up anew for every call: slow, and short enough to believe."""

    limit: int | None
    steps_max: int | None = None
    calls: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Beginning, end, cost and bound of each call that was made."""
    is_stopped: bool = False

    def room(self, at_ms: int, need: int) -> bool:
        if self.limit is None:
            return True
        return self.used(at_ms) + need <= self.limit

    def used(self, at_ms: int) -> int:
        return sum(
            cost if end <= at_ms else bound for _, end, cost, bound in self.calls
        )

    def posted(self, at_ms: int) -> int:
        return sum(cost for _, end, cost, _ in self.calls if end <= at_ms)


def recomputed(
    events: Sequence[Event], *, session: int | None, steps: int | None, day: int | None
) -> tuple[int, int]:
    """Returns how many calls would have been refused, and what they had cost."""
    sessions: dict[str | None, Books] = {}
    days: dict[tuple[str | None, int], Books] = {}
    refused = saved = 0
    began = sorted(
        (one.time_ms - (one.latency_ms or 0), number, one)
        for number, one in enumerate(events)
    )
    for at_ms, _, one in began:
        who = one.attribution
        own = sessions.setdefault(who.session_id, Books(session, steps))
        shared = days.setdefault((who.customer_id, at_ms // DAY_MS), Books(day))
        cost = one.charge.cost_nano_usd or 0
        need = one.reserved_nano_usd
        is_out_of_steps = steps is not None and len(own.calls) >= steps
        if own.limit is not None and own.posted(at_ms) + need > own.limit:
            own.is_stopped = True
        own.is_stopped = own.is_stopped or is_out_of_steps
        if own.is_stopped or not own.room(at_ms, need) or not shared.room(at_ms, need):
            refused += 1
            saved += cost
            continue
        end_ms = max(one.time_ms, at_ms + 1)
        for books in (own, shared):
            books.calls.append((at_ms, end_ms, cost, need))
    return refused, saved


CALLS = st.lists(
    st.tuples(
        st.integers(0, 40),  # When it began, in ticks.
        st.integers(0, 15),  # How long it took.
        st.sampled_from(["s1", "s2", "s3"]),
        st.sampled_from(["acme", "globex"]),
        st.integers(0, 20),  # What it cost.
        st.integers(0, 10),  # What was held beyond that.
    ),
    max_size=40,
)
LIMIT = st.none() | st.integers(0, 150)


@given(CALLS, LIMIT, st.none() | st.integers(0, 8), LIMIT)
def test_it_agrees_with_adding_everything_up(
    calls: list[tuple[int, int, str, str, int, int]],
    session: int | None,
    steps: int | None,
    day: int | None,
) -> None:
    events = sorted(
        (
            event(
                number,
                at_ms=START_MS + began,
                took_ms=took,
                session=f"{session_id}-{customer}",
                customer=customer,
                cost=cost,
                held=cost + more,
            )
            for number, (began, took, session_id, customer, cost, more) in enumerate(
                calls
            )
        ),
        key=lambda one: one.time_ms,
    )

    result = simulated(events, policy(session=session, steps=steps, day=day))

    expected = recomputed(events, session=session, steps=steps, day=day)
    assert (result.refused_calls, result.refused_nano_usd) == expected
    assert sum(row.calls for row in result.refused) == result.refused_calls


@cache
def a_month() -> tuple[Event, ...]:
    """Returns the calls of a month: 100 sessions a day, of 40 customers."""

    def drawn(name: str, below: int) -> int:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % below

    found: list[Event] = []
    for day in range(30):
        for number in range(100):
            name = f"{day}-{number}"
            at_ms = START_MS + day * DAY_MS + drawn(f"{name}at", DAY_MS - 10**6)
            for call in range(1 + drawn(f"{name}calls", 12)):
                took_ms = drawn(f"{name}-{call}took", 4_000)
                cost = drawn(f"{name}-{call}cost", 9) * 10**6
                found.append(
                    event(
                        len(found),
                        at_ms=at_ms,
                        took_ms=took_ms,
                        session=name,
                        customer=f"c{drawn(name, 40)}",
                        cost=cost,
                        held=cost + drawn(f"{name}-{call}held", 5) * 10**6,
                    )
                )
                at_ms += drawn(f"{name}-{call}next", 5_000)
    return tuple(sorted(found, key=lambda one: (one.time_ms, one.event_id)))


@pytest.mark.parametrize(
    ("session", "steps", "day"),
    [
        (30 * 10**6, None, None),
        (None, 6, None),
        (None, None, 60 * 10**6),
        (25 * 10**6, 7, 70 * 10**6),
    ],
)
def test_it_agrees_on_a_month_of_traffic(
    session: int | None, steps: int | None, day: int | None
) -> None:
    events = a_month()

    result = simulated(events, policy(session=session, steps=steps, day=day))

    assert result.calls == len(events) > 15_000
    expected = recomputed(events, session=session, steps=steps, day=day)
    assert (result.refused_calls, result.refused_nano_usd) == expected
    assert 0 < result.refused_calls < result.calls


RECORDED = Path(__file__).parents[3] / "shared" / "data" / "airline-sessions.jsonl"


def recorded_calls() -> Iterator[Event]:
    """Yields the calls of recorded sessions of a real agent, an hour apart.

    No usage was recorded: four bytes count as a token, at the list price of gpt-4o.
    """
    for number, line in enumerate(RECORDED.read_text("utf-8").splitlines()):
        record = json.loads(line)
        at_ms, prompt_tokens = START_MS + number * 3_600_000, 0
        for index, message in enumerate(record["messages"]):
            tokens = len(json.dumps(message).encode()) // 4
            is_call = message["role"] in ("assistant", "tool")
            cost = 5_000_000
            if message["role"] == "assistant":
                cost = 2_500 * prompt_tokens + 10_000 * tokens
            prompt_tokens += tokens
            at_ms += 2_000
            if is_call:
                yield event(
                    number * 1_000 + index,
                    at_ms=at_ms,
                    took_ms=1_500,
                    session=record["session"],
                    customer=f"c{number % 40}",
                    cost=cost,
                    held=cost + 5_000 * tokens,
                )


@pytest.mark.skipif(
    not RECORDED.exists(), reason="the recorded sessions are not beside the repository"
)
@pytest.mark.parametrize(
    ("session", "steps", "day"),
    [
        (10**8, None, None),
        (None, 25, None),
        (None, None, 3 * 10**8),
        (10**8, 30, 10**9),
    ],
)
def test_it_agrees_on_recorded_sessions_among_the_traffic(
    session: int | None, steps: int | None, day: int | None
) -> None:
    recorded = list(recorded_calls())
    events = sorted(
        (*a_month(), *recorded), key=lambda one: (one.time_ms, one.event_id)
    )

    result = simulated(events, policy(session=session, steps=steps, day=day))

    assert result.calls == len(events)
    expected = recomputed(events, session=session, steps=steps, day=day)
    assert (result.refused_calls, result.refused_nano_usd) == expected
    names = {one.attribution.session_id for one in recorded}
    stopped = {row.session_id for row in result.refused} & names
    assert 0 < len(stopped) < len(names) if session or steps else not stopped
