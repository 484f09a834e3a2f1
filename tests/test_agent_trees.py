"""Trees of agents that work side by side: no limit above any of them is passed.

Each tree is random: sessions inside sessions, agents inside agents, with budgets for
some of them, for a tool and for their customer. Every agent's calls and children run
at the same time, in threads. What was refused must not have fitted: at the end, when
no call is open, what is booked and what was refused pass a limit together.
"""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardrails import BudgetExceeded, CallRefused, Guard, Session, carried
from guardrails.core.accounts import Account, Line
from guardrails.core.attribution import Attribution
from guardrails.core.calls import ModelCall, Outcome, ToolCall
from guardrails.core.operations import ReadAccount
from guardrails.core.policy import Measure
from guardrails.ports import Store
from guardrails.stores import open_store
from tests.servers.processes import Server

CENT = 10_000_000
AGENTS = ("router", "researcher", "writer", "critic")
THREADS = 16

projects = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Node:
    """An agent, what it calls, and the agents it hands work to."""

    agent: str
    has_session: bool
    """Its own, inside that around it; else it only is a name on the path."""
    calls: tuple[tuple[int, int], ...]
    """Cents that a call may cost at most, and does cost. None is a call of a tool."""
    children: tuple["Node", ...] = ()


@dataclass(frozen=True, kw_only=True)
class Denied:
    """A call that was refused for good."""

    needed: int
    measure: Measure
    lines: tuple[Line, ...]


@dataclass
class Seen:
    """What happened in a tree."""

    lines: dict[str, Line] = field(default_factory=dict[str, Line])
    denied: list[Denied] = field(default_factory=list[Denied])
    made: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def nodes(
    children: st.SearchStrategy[tuple[Node, ...]],
) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        agent=st.sampled_from(AGENTS),
        has_session=st.booleans(),
        calls=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4).map(
            lambda pairs: tuple((max(pair), min(pair)) for pair in pairs)
        ),
        children=children,
    )


trees = st.recursive(
    nodes(st.just(())),
    lambda below: nodes(st.lists(below, min_size=1, max_size=3).map(tuple)),
    max_leaves=6,
)
cents = st.none() | st.integers(0, 8)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, object]:
    """Limits for some agents, a tool and a customer."""
    agents = {
        agent: {"session": {"max_cost_usd": f"0.0{limit}"}}
        for agent in AGENTS
        if (limit := draw(cents)) is not None
    }
    calls, customer, unknown = draw(cents), draw(cents), draw(cents)
    config: dict[str, object] = {"agents": agents}
    if calls is not None:
        config["tools"] = {"maps/*": {"max_calls": calls}}
    if customer is not None:
        budget = {"name": "customer", "per": ["customer_id"], "every": "total"}
        budget |= {"max_cost_usd": f"0.0{customer}"}
        if unknown is not None:
            budget |= {"unknown": {"max_cost_usd": f"0.0{unknown}"}}
        config["budgets"] = [budget]
    return config


cases = given(tree=trees, config=configurations(), customer=st.none() | st.just("acme"))
enough = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    urls = {"memory": "memory://", "sqlite": tmp_path / "ledger.sqlite3"}
    store = open_store(urls[request.param])
    yield store
    store.close()


@pytest.mark.timeout(300)
@enough
@cases
def test_no_limit_is_passed_and_nothing_that_fits_is_refused(
    store: Store, tree: Node, config: dict[str, object], customer: str | None
) -> None:
    work(store, tree, config, customer)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("patient")
@enough
@cases
def test_no_limit_is_passed_on_a_server(
    server: Server, tree: Node, config: dict[str, object], customer: str | None
) -> None:
    store = open_store(server.url)
    work(store, tree, config, customer)
    store.close()


def work(
    store: Store, tree: Node, config: dict[str, object], customer: str | None
) -> None:
    """Has a tree work, and looks at the books afterwards."""
    guard = Guard(config, store=store, project_id=f"project-{next(projects)}")
    seen = Seen()
    with guard.session(tree.agent, customer_id=customer) as session:
        run(guard, session, session.attribution, tree, seen)

    accounts = {key: account_of(guard, key) for key in seen.lines}
    for key, line in seen.lines.items():
        assert accounts[key].held_nano_usd == 0
        for measure in (Measure.COST, Measure.TOOL_CALLS):
            limit = line.limits.of(measure)
            assert limit is None or accounts[key].posted(measure) <= limit, line.scope
    for call in seen.denied:
        assert any(
            accounts[line.account].posted(call.measure) + call.needed > limit
            for line in call.lines
            if (limit := line.limits.of(call.measure)) is not None
        )


def run(
    guard: Guard, session: Session, who: Attribution, node: Node, seen: Seen
) -> None:
    """Makes the calls of an agent and lets its children work, all at once."""
    works = [
        carried(lambda call=call: make(session, who, call, seen)) for call in node.calls
    ]
    works += [
        carried(lambda child=child: hand_on(guard, session, who, child, seen))
        for child in node.children
    ]
    with ThreadPoolExecutor(THREADS) as threads:
        done, _ = wait([threads.submit(work) for work in works])
    for work in done:
        work.result()


def hand_on(
    guard: Guard, session: Session, who: Attribution, node: Node, seen: Seen
) -> None:
    """Has a child work: in a session of its own, or as a name on the path."""
    if not node.has_session:
        run(guard, session, who.under(node.agent), node, seen)
        return
    try:
        call = session.begin(ToolCall(tool="delegate"), attribution=who)
    except (BudgetExceeded, CallRefused):
        return
    call.enter_scope()
    with guard.session(node.agent) as inner:
        run(guard, inner, inner.attribution, node, seen)
    call.leave_scope()
    call.finish(Outcome())


def make(session: Session, who: Attribution, cost: tuple[int, int], seen: Seen) -> None:
    """Makes a call and books what it cost."""
    most, actual = cost
    call: ModelCall | ToolCall = ModelCall(
        model="gpt-4o",
        provider="openai",
        input_tokens_max=4_000 * most,  # A cent per 4,000 tokens.
        output_tokens_max=0,
        is_output_bound=True,
    )
    if most == 0:
        call = ToolCall(tool="geocode", server="maps")
    tool = call.name if isinstance(call, ToolCall) else None
    lines = session.charging(who, tool=tool).lines
    with seen.lock:
        seen.lines |= {line.account: line for line in lines}
    try:
        guarded = session.begin(call, attribution=who)
    except CallRefused:
        return  # Others hold what it needs; that is decided later.
    except BudgetExceeded as stop:
        measure = Measure(stop.limit)
        needed = 1 if measure is Measure.TOOL_CALLS else int(stop.needed * 10**9)
        with seen.lock:
            seen.denied.append(Denied(needed=needed, measure=measure, lines=lines))
        return
    guarded.finish(Outcome(cost_nano_usd=actual * CENT if most else None))
    with seen.lock:
        seen.made += 1


def account_of(guard: Guard, key: str) -> Account:
    return guard.store.execute(ReadAccount(account=key)) or Account(key=key)
