"""The tests of the scripts notice every mistake that somebody could make in them."""

import inspect
import random  # noqa: TID251 - seeded, so that every run compares alike
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import cast

import pytest

from guardrails.core.accounts import HoldState, Threshold
from guardrails.core.alerting.deliveries import ClaimAlerts, DeliveryState, NoteAlerts
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind
from guardrails.core.ledger import SWEEP_MAX, Ledger
from guardrails.core.loops import LoopAction, LoopRule, ToolTrace
from guardrails.core.operations import (
    Operation,
    RaiseLimits,
    ReadAccount,
    Release,
    Reserve,
    Resume,
    ResumeScope,
    Settle,
    Settled,
    StopScope,
    StopSession,
    Sweep,
    Swept,
)
from guardrails.core.policy import Limits, Measure
from guardrails.core.reporting.rollups import HOUR_MS, ROLLUP_DIMENSIONS
from guardrails.core.stops import AUDIT_MAX, STOPS_MAX, StopKind, StopTarget
from guardrails.errors import StoreUnavailable
from guardrails.ports import Store
from guardrails.stores.memory import MemoryStore
from guardrails.stores.redis import RedisStore
from guardrails.testing.conformance import (
    CENT,
    NOW_MS,
    PLACES,
    TELLING,
    StoreConformance,
    charging,
    reserve,
    settle,
)
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.stores.mutants import MUTANTS, mutated_script
from tests.stores.running import SESSION
from tests.stores.scenarios import (
    READS,
    SCRIPT_BYTES,
    SESSIONS,
    SETUP_BYTES,
    SHARED,
    Scenario,
    codes_of,
)

pytestmark = pytest.mark.usefixtures("patient")

SCENARIOS = 8
"""Random lists of 40 operations that are compared with the ledger."""

DAY_MS = 86_400_000

MONTH_S = 30 * 86_400

NOTES_TOGETHER = 8
"""As in notes.lua."""

VERSION = "gr:{default}:version"

LIVE_FOR_EVER = {"version", "holds", "due", "lost", "events"}
"""Keys of a project that are as long as it is in use. What is stopped without an end
is so, too."""

Open = Callable[[], Store]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(next(iter(BINARIES.values()))) as server:
        yield server


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_in_a_script_is_noticed(server: Server, name: str) -> None:
    which, old, new = MUTANTS[name]
    mutated = mutated_script(which, old, new)
    server.ask("SCRIPT", "LOAD", mutated.text)  # It is Lua, if the wrong one.

    def opened() -> Store:
        store = RedisStore(server.unix_url)
        setattr(store, f"_{which}", mutated)
        return store

    # A script may fail for it too; that refuses the call.
    with pytest.raises((AssertionError, StoreUnavailable)):
        _battery(server, opened)


def test_no_mistake_is_noticed_in_the_scripts_themselves(server: Server) -> None:
    _battery(server, lambda: RedisStore(server.unix_url))


# --- What must notice -------------------------------------------------------


def _battery(server: Server, opened: Open) -> None:
    """Quick ones first: most mistakes need no more than the first."""
    checks = [*_conformance(), *(_agreement(ops) for ops in _cases())]
    checks += [_check_lifetimes, _check_lifetimes_of_orders, _check_lifetimes_of_alerts]
    checks += [_check_versions, _check_new_versions, _check_ends]
    checks += [*(_comparison(seed) for seed in range(SCENARIOS))]
    checks += [_check_bounds, *_conformance(are_long=True)]
    for check in checks:
        server.ask("FLUSHALL")
        with closing(opened()) as store:
            check(store, server)


Check = Callable[[Store, Server], None]


LONG = (
    "test_history_yields_pages_of_flat_events",
    "test_history_yields_the_events_of_a_span_as_they_were_booked",
    "test_many_stopped_sessions_keep_nobody_from_stopping_a_customer",
)
"""Those that take a thousand operations come last: others notice most mistakes."""


def _conformance(*, are_long: bool = False) -> Iterator[Check]:
    """Yields what every store must do, but for the races: scripts have none."""
    suite = StoreConformance()
    for name, test in inspect.getmembers(suite, inspect.ismethod):
        is_check = name.startswith("test_") and "never_pass_the_limit" not in name
        if is_check and (name in LONG) == are_long:
            yield lambda store, server, test=test: test(store)


def _check_lifetimes(store: Store, server: Server) -> None:
    """Every key expires, and not while it is in use."""
    to = charging(loop=LoopRule())
    window = replace(to.lines[1], expires_at_ms=NOW_MS + 3_660 * DAY_MS)
    to = replace(to, lines=(to.lines[0], window))
    trace = ToolTrace(tool="t", arguments_digest="a", result_digest="r")
    for hold_id in ("released", "settled"):
        store.execute(reserve(hold_id, to, kind=CallKind.TOOL))
    store.execute(Release(hold_id="released", account=SESSION, now_ms=NOW_MS))
    released = server.ask("KEYS", "*finished*")
    assert released
    assert all(server.ask("TTL", key) > 0 for key in released)
    server.ask("DEL", *released)  # The next that finishes opens it again.
    store.execute(settle("settled", to, kind=CallKind.TOOL, trace=trace))
    assert server.ask("TTL", "gr:{default}:notes") > 12 * MONTH_S
    for number in range(NOTES_TOGETHER):
        store.execute(settle(str(number), to))
    stopped = "default/session/session_id=stopped"
    who = Attribution.of(session_id="stopped")
    store.execute(
        StopSession(
            account=stopped, attribution=who, now_ms=NOW_MS, by="ops", note=None
        )
    )
    keys = {key.decode(): server.ask("TTL", key) for key in server.ask("KEYS", "*")}
    for_ever = {key.rpartition(":")[2] for key, ttl in keys.items() if ttl < 0}
    assert for_ever <= LIVE_FOR_EVER
    assert len(keys) > len(for_ever) + len(to.lines)

    session = "gr:{default}:session/session_id=s"
    server.ask("EXPIRE", session, 100)
    store.execute(reserve("a day later", to, now_ms=NOW_MS + DAY_MS))
    assert server.ask("TTL", session) > MONTH_S - 100


def _check_lifetimes_of_orders(store: Store, server: Server) -> None:
    """The list of stops lives as long as one does, the audit for a year."""
    stops, audit = "gr:{default}:stops", "gr:{default}:audit"
    raised = RaiseLimits(account=SESSION, limits=Limits(steps=9), now_ms=NOW_MS)
    store.execute(raised)
    assert server.ask("TTL", audit) > 12 * MONTH_S
    assert server.ask("TTL", "gr:{default}:session/session_id=s") > 0
    server.ask("DEL", audit)
    acme = StopTarget(kind=StopKind.CUSTOMER, name="acme")
    everything = StopTarget(kind=StopKind.EVERYTHING)
    for_a_day = StopScope(
        project_id="default", target=acme, now_ms=NOW_MS, until_ms=NOW_MS + DAY_MS
    )
    store.execute(for_a_day)
    store.execute(replace(for_a_day, target=everything, until_ms=NOW_MS + 1))
    assert 86_400 < server.ask("TTL", stops) <= 3 * 86_400
    assert server.ask("TTL", audit) > 12 * MONTH_S
    for_good = replace(for_a_day, target=everything, until_ms=None)
    store.execute(for_good)
    assert server.ask("TTL", stops) == -1
    store.execute(
        ResumeScope(project_id="default", target=everything, now_ms=NOW_MS + 1)
    )
    assert 0 < server.ask("TTL", stops) <= 3 * 86_400
    store.execute(ResumeScope(project_id="default", target=acme, now_ms=NOW_MS))
    assert not server.ask("EXISTS", stops)


def _check_lifetimes_of_alerts(store: Store, server: Server) -> None:
    """Whatever belongs to the outbox ends a week after its last alert."""
    agent = StopTarget(kind=StopKind.AGENT, name="other")
    store.execute(
        StopScope(project_id="default", target=agent, now_ms=NOW_MS, telling=TELLING)
    )
    claim = ClaimAlerts(
        project_id="default",
        place=PLACES[0],
        owner="a",
        now_ms=NOW_MS,
        until_ms=NOW_MS + 1,
        singles_max=1,
    )
    claimed = store.execute(claim)
    for state in (DeliveryState.SENDING, DeliveryState.DELIVERED):
        server.ask("PERSIST", "gr:{default}:outbox/to/slack-1")
        store.execute(
            NoteAlerts(
                project_id="default",
                place=PLACES[0],
                label="there",
                owner="a",
                alert_ids=(claimed.alerts[0].alert_id,),
                now_ms=NOW_MS,
                state=state,
                due_ms=0,
                cooldown_ms=60_000,
            )
        )
    keys = {key.decode() for key in server.ask("KEYS", "*outbox*")}
    assert len(keys) == 6
    assert all(0 < server.ask("TTL", key) <= 7 * 86_400 for key in keys), keys


def _check_ends(store: Store, server: Server) -> None:
    """Nobody looks again for a call that has ended."""
    store.execute(reserve("settled", charging()))
    store.execute(settle("settled", charging()))
    store.execute(reserve("given back", charging()))
    store.execute(Release(hold_id="given back", account=SESSION, now_ms=NOW_MS))
    assert not server.ask("EXISTS", "gr:{default}:due")


def _check_bounds(store: Store, server: Server) -> None:
    """No sweep takes long."""
    to = charging()
    for number in range(SWEEP_MAX + 1):
        store.execute(reserve(f"{number}", to))
    swept = [store.execute(Sweep(now_ms=NOW_MS + 1_000)).unconfirmed for _ in "123"]
    assert swept == [SWEEP_MAX, 1, 0]
    for number in range(STOPS_MAX + 1):
        agent = StopTarget(kind=StopKind.AGENT, name=f"{number}")
        op = StopScope(project_id="default", target=agent, now_ms=NOW_MS)
        assert (store.execute(op) is None) is (number == STOPS_MAX)
    assert server.ask("LLEN", "gr:{default}:audit") == AUDIT_MAX


def _check_versions(store: Store, server: Server) -> None:
    """Whatever changes something counts the version up: so a loss is noticed."""
    to, agent = charging(), StopTarget(kind=StopKind.AGENT, name="other")
    store.execute(reserve("0", to))
    versions = [int(server.ask("GET", VERSION) or 0)]

    def version() -> int:
        versions.append(int(server.ask("GET", VERSION) or 0))
        return versions[-1] - versions[-2]

    changes: list[Operation[object]] = [
        reserve("1", to),
        settle("1", to),
        reserve("2", to),
        Release(hold_id="2", account=SESSION, now_ms=NOW_MS),
        reserve("3", to),
        Sweep(now_ms=NOW_MS + 1_000),
        StopScope(project_id="default", target=agent, now_ms=NOW_MS),
        ResumeScope(project_id="default", target=agent, now_ms=NOW_MS),
    ]
    for op in changes:
        store.execute(op)
        assert version() == 1, op
    looping = _tool_calls(results="aaa", action=LoopAction.BLOCK)
    trace = ToolTrace(tool="t", arguments_digest="a", result_digest=None)
    blocked = cast("Reserve", looping[-2])
    for op in (*looping, replace(blocked, hold_id="refused", trace=trace)):
        hold_id = f"looping {cast('Reserve | Settle', op).hold_id}"
        store.execute(replace(cast("Reserve", op), hold_id=hold_id))
        assert version() == 1, op
    nothing = ResumeScope(project_id="default", target=agent, now_ms=NOW_MS)
    for op in (settle("1", to), ReadAccount(account=SESSION), nothing):
        store.execute(op)
        assert version() == 0, op


def _check_new_versions(store: Store, server: Server) -> None:
    """Each begins lower than all before it, whoever began those."""
    assert isinstance(store, RedisStore)
    store.execute(reserve("1", charging()))
    first = int(server.ask("GET", VERSION))
    server.ask("FLUSHALL")
    with closing(RedisStore(server.unix_url)) as other:
        for number in range(3):
            other.execute(reserve(f"{number}", charging()))
        assert int(server.ask("GET", VERSION)) < first
        store.execute(reserve("2", charging()))
        assert store.rollbacks == 1
        server.ask("SET", VERSION, 40)  # As an earlier version of ours counted.
        store.execute(reserve("3", charging()))
        assert store.rollbacks == 2
        server.ask("FLUSHALL")
        other.execute(reserve("4", charging()))
        store.execute(reserve("5", charging()))
        assert store.rollbacks == 3


def _cases() -> Iterator[list[Operation[object]]]:
    """Yields what random operations meet too seldom."""
    to = charging(limits=Limits(tokens=20))
    yield [
        reserve("spent", to),
        settle("spent", to),
        reserve("open", to, tokens=5),
        reserve("fits to the last token once that settles", to, tokens=10),
    ]
    to = charging(shared=Limits(steps=1))
    to = replace(to, lines=(to.lines[0], replace(to.lines[1], is_binding=False)))
    yield [reserve("1", to), reserve("2", to)]
    stop = StopSession(
        account=SESSION, attribution=charging().attribution, now_ms=NOW_MS, by="ops"
    )
    again = replace(stop, now_ms=NOW_MS + 1, by="somebody else")
    to = charging(limits=Limits(cost_nano_usd=CENT - 1))
    raising = RaiseLimits(
        account=SESSION, limits=Limits(cost_nano_usd=CENT), now_ms=NOW_MS
    )
    yield [reserve("1", to), stop, again, raising, reserve("2", to)]
    yield [
        reserve("1", charging()),
        StopSession(
            account=SESSION,
            attribution=charging().attribution,
            now_ms=NOW_MS,
            by="ops",
            note=None,
        ),
        RaiseLimits(account=SESSION, limits=Limits(steps=9), now_ms=NOW_MS),
        reserve("2", charging()),
    ]
    half = Threshold(measure=Measure.COST, value=CENT, ratio=Decimal("0.5"), label="½")
    to = charging(limits=Limits(cost_nano_usd=2 * CENT), thresholds=(half,))
    yield [
        reserve("told", to),
        settle("told", to),
        RaiseLimits(
            account=SESSION, limits=Limits(cost_nano_usd=4 * CENT), now_ms=NOW_MS
        ),
        reserve("told again", to),
        settle("told again", to),
    ]
    to = charging()
    yield [
        reserve("late", to),
        Sweep(now_ms=NOW_MS + 1_000),
        settle("late", to),
        Release(hold_id="late", account=SESSION, now_ms=NOW_MS),
    ]
    yield [
        reserve("lost", to),
        Sweep(now_ms=NOW_MS + 1_000),
        Release(hold_id="lost", account=SESSION, now_ms=NOW_MS),
    ]
    yield [
        reserve("1", to),
        reserve("set back", to, now_ms=NOW_MS - 70_000),
        reserve("goes on from there", to, now_ms=NOW_MS - 65_000, active_ms=4_000),
    ]
    once_more = _tool_calls(results="aaaa")
    yield [*once_more[:-2], Resume(account=SESSION, now_ms=NOW_MS), *once_more[-2:]]
    yield _tool_calls(results="abab")
    yield _tool_calls(results=[None] * 4)
    yield _tool_calls(results="aaaa", action=LoopAction.WARN)
    yield _tool_calls(results="aaaa", call_id="run again after an interrupt")


def _tool_calls(
    *,
    results: Sequence[str | None],
    action: LoopAction = LoopAction.STOP,
    call_id: str | None = None,
) -> list[Operation[object]]:
    """Returns calls with the same arguments, and these results."""
    to = charging(loop=LoopRule(action=action))
    ops: list[Operation[object]] = []
    for number, result in enumerate(results):
        trace = ToolTrace(
            tool="t", arguments_digest="a", result_digest=result, call_id=call_id
        )
        hold_id = f"{number}"
        ops += [
            reserve(hold_id, to, kind=CallKind.TOOL),
            settle(hold_id, to, kind=CallKind.TOOL, trace=trace),
        ]
    return ops


def _alike(one: object, other: object) -> None:
    """Fails if they differ, and does not say how: pytest takes seconds for that."""
    if one != other:
        raise AssertionError("the store does not answer as the ledger does")


def _agreement(ops: list[Operation[object]]) -> Check:
    """Compares replies with those of the ledger."""

    def check(store: Store, server: Server) -> None:
        memory = MemoryStore()
        for op in (*ops, ReadAccount(account=SESSION)):
            _alike(store.execute(op), memory.execute(op))

    return check


def _comparison(seed: int) -> Check:
    """Compares replies, accounts and history with those of the ledger."""
    return lambda store, server: _compare(store, random.Random(seed))


def _compare(store: Store, dice: random.Random) -> None:
    scenario = Scenario(dice.randbytes(SETUP_BYTES), is_honest=dice.random() < 0.5)
    ledger, memory = Ledger(), MemoryStore()
    finished: set[str] = set()
    for code in codes_of(dice.randbytes(SCRIPT_BYTES)):
        op = scenario.operation(code, ledger)
        if _is_forgotten(op, ledger, finished, scenario.now_ms):
            continue
        ledger.apply(op)
        finished |= {hold.hold_id for hold in ledger.removed_holds}
        reply = memory.execute(op)
        if isinstance(op, Settle) and isinstance(reply, Settled) and reply.is_applied:
            scenario.settled.add(op.hold_id)
        if isinstance(reply, Swept):  # Redis forgets finished holds by itself.
            reply = replace(reply, forgotten=0)
        _alike(store.execute(op), reply)
        for key in (*SESSIONS, *SHARED):
            read = ReadAccount(account=key)
            _alike(store.execute(read), memory.execute(read))
    for read in READS:
        _alike(store.execute(read), memory.execute(read))
    _compare_history(store, memory, until_ms=scenario.now_ms)


def _compare_history(store: Store, memory: Store, *, until_ms: int) -> None:
    for by in ROLLUP_DIMENSIONS:
        sums = [
            one.history.spend(
                project_id="default",
                by=by,
                since_ms=NOW_MS - HOUR_MS,
                until_ms=until_ms + HOUR_MS,
            )
            for one in (store, memory)
        ]
        assert list(sums[0]) == list(sums[1]), by


def _is_forgotten(
    op: Operation[object], ledger: Ledger, finished: set[str], now_ms: int
) -> bool:
    """Whether an id is used again after its retention, which nobody does."""
    hold_id = cast("str", getattr(op, "hold_id", ""))
    hold = ledger.holds.get(hold_id)
    if hold is None:
        return hold_id in finished
    is_over = hold.state in (HoldState.SETTLED, HoldState.RELEASED)
    return is_over and hold.expires_at_ms <= now_ms
