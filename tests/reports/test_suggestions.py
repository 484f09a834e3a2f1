"""Suggestions: limits that the sessions of the past fit into, each with its reason."""

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from guardrails import Attribution, Charge, Event, PriceStatus
from guardrails.cli.screens.names import safe
from guardrails.cli.screens.suggestions import suggestions_yaml
from guardrails.config import load_configuration
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.policy import Measure
from guardrails.reports.suggestions import SESSIONS_MIN, suggested


def calls(agent: str | None, costs: Sequence[int], *, inner: str = "b") -> list[Event]:
    """A session per cost: it calls once for nothing, and once inside for its cost."""
    events: list[Event] = []
    for number, cost in enumerate(costs):
        own = Attribution(session_id=f"{agent}-{number}")
        own = own if agent is None else own.under(agent)
        for who, price in ((own, 0), (own.under(inner), cost)):
            events.append(
                Event(
                    event_id=f"{agent}-{number}-{len(events)}",
                    time_ms=len(events),
                    attribution=who,
                    kind=CallKind.TOOL,
                    tool="t",
                    status=CallStatus.OK,
                    charge=Charge(
                        cost_nano_usd=price, status=PriceStatus.PRICED, source="test"
                    ),
                    reserved_nano_usd=price,
                )
            )
    return events


def test_a_limit_is_half_as_much_again_as_99_of_100_needed() -> None:
    """The runaway among them counts as one, and is said to be beyond the limit."""
    costs = [100_000] * 150 + [400_000] * 49 + [90_000_000]

    [found] = suggested(calls("support", costs))

    assert (found.agent, found.sessions) == ("support", 200)
    cost, steps = found.limits
    assert cost.measure is Measure.COST
    assert (cost.median, cost.p99, cost.most) == (100_000, 400_000, 90_000_000)
    assert (cost.limit, cost.beyond) == (600_000, 1)
    assert (steps.limit, steps.p99, steps.beyond) == (3, 2, 0)


def test_few_sessions_suggest_nothing() -> None:
    """And say how many there are."""
    [few] = suggested(calls("new", [5] * (SESSIONS_MIN - 1)))

    assert (few.sessions, few.limits) == (SESSIONS_MIN - 1, ())


def test_what_cost_nothing_is_not_limited_in_money() -> None:
    [found] = suggested(calls("free", [0] * SESSIONS_MIN))

    assert [limit.measure for limit in found.limits] == [Measure.STEPS]


def test_agents_inside_belong_to_the_session_around_them() -> None:
    """The agent that called first is the session's."""
    found = suggested([*calls("a", [1] * 30), *calls(None, [1] * 25)])

    assert [(one.agent, one.sessions) for one in found] == [("a", 30), (None, 25)]


@given(st.lists(st.integers(0, 10**12), min_size=SESSIONS_MIN, max_size=60))
def test_no_session_of_the_99_is_beyond(costs: list[int]) -> None:
    [found] = suggested(calls("a", costs))

    for limit in found.limits:
        assert limit.median <= limit.p99 <= limit.limit
        assert limit.p99 <= limit.most
        assert limit.beyond <= len(costs) // 100


NAMES = [
    "\u202egnp.exe",
    "a\u200fb",
    "\u2066x\u2069",
    "\uffff",
    "a*[?]",
    'q"\\',
    "'",
    "A",
    "a",
    "x: #",
]


def test_a_suggested_limit_is_that_of_the_agent_whatever_it_is_called(
    tmp_path: Path,
) -> None:
    """What is not to reach a terminal is written so that YAML still means it."""
    events = [one for name in NAMES for one in calls(name, [5] * SESSIONS_MIN)]
    text = "\n".join(
        suggestions_yaml(suggested([*events, *calls("\uffff few", [5])]), hours=1)
    )
    file = tmp_path / "guardrails.yaml"
    file.write_text(text, encoding="utf-8")
    tried = load_configuration(file, environ={}, cwd=None, overrides={}).policy

    assert all(line == safe(line) for line in text.splitlines())
    for name in NAMES:
        assert tried.session_budget(name).limits.steps == 3, name
