"""The resilient store: what holds while the real store is away, and afterwards."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import pytest

from guardrails.core.accounts import StopReason
from guardrails.core.calls import CallKind
from guardrails.core.loops import LoopRule, ToolTrace
from guardrails.core.operations import (
    Conflict,
    RaiseLimits,
    ReadAccount,
    Release,
    Released,
    Reserve,
    Reserved,
    Resume,
    Settle,
    Settled,
    StopSession,
    Turn,
    Verdict,
)
from guardrails.core.policy import Limits, OnStoreError
from guardrails.errors import StoreUnavailable
from guardrails.stores.backlog import BACKLOG_MAX
from guardrails.stores.resilient import ResilientStore
from guardrails.stores.resilient.tallies import TALLIES_MAX
from guardrails.testing import FakeClock
from guardrails.testing.conformance import (
    CENT,
    NOW_MS,
    charging,
    reserve,
    settle,
)
from tests.stores.flaky import FlakyStore, Heard, RemoteFlakyStore

R = TypeVar("R")
Build = Callable[[OnStoreError], ResilientStore]

SESSION = "default/session/session_id=s"
SHARED = "default/total/customer_id=acme"

GIVE_BACK = Release(hold_id="h", account=SESSION, now_ms=NOW_MS)


@pytest.fixture
def real() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def build(real: FlakyStore, clock: FakeClock) -> Build:
    def build(on_error: OnStoreError) -> ResilientStore:
        return ResilientStore(real, on_error=on_error, clock=clock)

    return build


@pytest.fixture
def local(build: Build) -> ResilientStore:
    return build(OnStoreError.LOCAL)


def verdict(store: ResilientStore, op: Reserve) -> Verdict:
    reply = store.execute(op)
    assert isinstance(reply, Reserved)
    return reply.verdict


def calls_until_denied(store: ResilientStore, limits: Limits, *, name: str) -> int:
    """Makes calls of one cent, at most 100."""
    to = charging(limits=limits)
    for number in range(100):
        if verdict(store, reserve(f"{name}{number}", to)) is not Verdict.ALLOW:
            return number
        store.execute(settle(f"{name}{number}", to))
    return 100


# --- While the store is away ------------------------------------------------


def test_what_began_and_ended_in_one_turn_counts_while_the_store_is_away(
    local: ResilientStore, real: FlakyStore
) -> None:
    """One cent was spent and two are held: of four, two do not fit meanwhile."""
    to = charging(limits=Limits(cost_nano_usd=4 * CENT))
    assert verdict(local, reserve("1", to)) is Verdict.ALLOW
    turn = Turn(settle=settle("1", to), reserve=reserve("2", to, cost=2 * CENT))
    local.execute(turn)
    real.is_away = True
    local.execute(GIVE_BACK)

    assert verdict(local, reserve("3", to, cost=2 * CENT)) is Verdict.WAIT
    assert verdict(local, reserve("4", to, cost=4 * CENT)) is Verdict.DENY


def test_an_id_of_another_call_stays_a_conflict_and_gives_nothing_back(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """The other call is under way: its hold is not that of who asks."""
    local.execute(reserve("h", charging()))
    real.is_away = True
    asked = [local.execute(reserve("h", charging(), cost=7)) for _ in range(2)]
    real.is_away = False
    clock.advance(seconds=1)

    assert asked == [Conflict(hold_id="h")] * 2
    assert (real.account().held_nano_usd, real.account().steps) == (CENT, 1)


def test_closed_gives_nothing_back_of_the_call_that_has_the_id(
    build: Build, real: FlakyStore, clock: FakeClock
) -> None:
    """It is under way: who asks by its id is another, or tries it again."""
    store = build(OnStoreError.CLOSED)
    store.execute(reserve("h", charging()))
    real.is_away = True
    with pytest.raises(StoreUnavailable):
        store.execute(reserve("h", charging()))
    real.is_away = False
    clock.advance(seconds=1)

    assert (real.account().held_nano_usd, real.account().steps) == (CENT, 1)


def test_closed_refuses_every_call(
    build: Build, real: FlakyStore, clock: FakeClock
) -> None:
    """Nothing paid starts until the store is back, and nothing stays held."""
    store = build(OnStoreError.CLOSED)
    real.is_away = True
    for number in range(3):
        with pytest.raises(StoreUnavailable, match="away"):
            store.execute(reserve(f"h{number}", charging()))
    real.is_away = False
    clock.advance(seconds=1)

    assert verdict(store, reserve("h", charging())) is Verdict.ALLOW
    assert real.account().steps == 1


def test_closed_books_what_was_paid_before(
    build: Build, real: FlakyStore, clock: FakeClock
) -> None:
    """A call that runs when the store fails costs what it costs."""
    store = build(OnStoreError.CLOSED)
    store.execute(reserve("h", charging()))
    real.is_away = True
    store.execute(settle("h", charging()))
    real.is_away = False
    clock.advance(seconds=1)

    assert [event.event_id for event in real.events()] == ["h"]
    assert real.account().held_nano_usd == 0


def test_a_refused_reservation_whose_reply_was_lost_is_given_back(
    build: Build, real: FlakyStore, clock: FakeClock
) -> None:
    """The store had admitted it; the caller was told that it may not be made."""
    store = build(OnStoreError.CLOSED)
    real.forgets_to_answer = True
    with pytest.raises(StoreUnavailable):
        store.execute(reserve("h", charging()))
    held = real.account().held_nano_usd
    real.forgets_to_answer = False
    clock.advance(seconds=1)

    assert (held, real.account().held_nano_usd) == (CENT, 0)
    assert real.account().steps == 0


def test_a_call_that_was_given_back_does_not_wait_to_be_asked_again(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """Asked again, the store would admit what it had admitted, and hold nothing."""
    to = charging(limits=Limits(cost_nano_usd=2 * CENT))
    local.execute(reserve("booked", to))
    local.execute(reserve("open", to))
    local.execute(settle("booked", to))
    raised = Limits(cost_nano_usd=5 * CENT)  # By somebody else.
    real.real.execute(RaiseLimits(account=SESSION, limits=raised, now_ms=NOW_MS))
    real.forgets_to_answer = True
    with pytest.raises(StoreUnavailable):
        local.execute(reserve("h", to))
    held = real.account().held_nano_usd
    real.forgets_to_answer = False
    clock.advance(seconds=1)

    assert (held, real.account().held_nano_usd) == (2 * CENT, CENT)


def test_local_keeps_the_limit_from_the_last_known_totals(
    local: ResilientStore, real: FlakyStore
) -> None:
    """8 cents before and 12 without the store: the limit of 20 is not passed."""
    limits = Limits(cost_nano_usd=20 * CENT)
    to = charging(limits=limits)
    for number in range(8):
        local.execute(reserve(f"before{number}", to))
        local.execute(settle(f"before{number}", to))
    real.is_away = True

    assert calls_until_denied(local, limits, name="h") == 12
    assert local.is_degraded


def test_a_failure_that_nobody_has_thought_of_is_no_way_past_a_limit(
    local: ResilientStore, real: FlakyStore, caplog: pytest.LogCaptureFixture
) -> None:
    """As where somebody watches the sockets of an event loop."""
    limits = Limits(cost_nano_usd=20 * CENT)
    real.fails = lambda _: True

    assert calls_until_denied(local, limits, name="h") == 20
    assert "store: it fails with RuntimeError." in caplog.text
    assert "secret" not in caplog.text


async def test_a_failure_that_nobody_has_thought_of_refuses_calls_if_that_is_wanted(
    build: Build, real: FlakyStore
) -> None:
    store = build(OnStoreError.CLOSED)
    real.fails = lambda _: True
    with pytest.raises(StoreUnavailable):
        await store.aexecute(reserve("h", charging()))


def test_local_admits_together_what_fits_together(
    local: ResilientStore, real: FlakyStore
) -> None:
    """Open calls count while the store is away, too."""
    to = charging(limits=Limits(cost_nano_usd=2 * CENT))
    real.is_away = True
    verdicts = [verdict(local, reserve(f"{n}", to)) for n in range(3)]

    assert verdicts == [Verdict.ALLOW, Verdict.ALLOW, Verdict.WAIT]


@pytest.mark.parametrize("reason", list(StopReason))
def test_local_lets_nothing_start_in_a_session_that_was_stopped(
    local: ResilientStore, real: FlakyStore, reason: StopReason
) -> None:
    """A stop that this process has seen holds while the store is away."""
    to = charging(limits=Limits(cost_nano_usd=5 * CENT), loop=LoopRule())
    match reason:
        case StopReason.BUDGET_EXCEEDED:
            local.execute(reserve("large", to, cost=6 * CENT))
        case StopReason.LOOP_DETECTED:
            trace = ToolTrace(tool="t", arguments_digest="a", result_digest="r")
            for number in range(3):
                op = settle(f"{number}", to, kind=CallKind.TOOL, cost=0, trace=trace)
                local.execute(op)
        case StopReason.KILLED:
            local.execute(
                StopSession(account=SESSION, attribution=to.attribution, now_ms=NOW_MS)
            )
    real.is_away = True
    reply = local.execute(reserve("small", to, cost=0))

    assert isinstance(reply, Reserved)
    assert reply.verdict is Verdict.DENY
    assert reply.refusal is not None
    assert reply.refusal.stop is not None
    assert reply.refusal.stop.reason is reason


@pytest.mark.parametrize("lifted_by", ["this process", "another process"])
def test_local_knows_of_a_stop_that_was_lifted(
    local: ResilientStore, real: FlakyStore, lifted_by: str
) -> None:
    """Who lifts a stop does not matter, once a call was admitted."""
    to = charging()
    stop = StopSession(account=SESSION, attribution=to.attribution, now_ms=NOW_MS)
    local.execute(stop)
    lifting = local if lifted_by == "this process" else real.real
    lifting.execute(Resume(account=SESSION, now_ms=NOW_MS))
    local.execute(reserve("1", to))
    real.is_away = True

    assert verdict(local, reserve("2", to)) is Verdict.ALLOW


def test_local_keeps_to_a_limit_that_was_raised(
    local: ResilientStore, real: FlakyStore
) -> None:
    """A limit that a person raised is raised while the store is away, too."""
    limits = Limits(cost_nano_usd=2 * CENT)
    raised = Limits(cost_nano_usd=5 * CENT)
    local.execute(RaiseLimits(account=SESSION, limits=raised, now_ms=NOW_MS))
    real.is_away = True

    assert calls_until_denied(local, limits, name="h") == 5


def test_local_forgets_the_totals_that_were_used_least_lately(
    local: ResilientStore, real: FlakyStore
) -> None:
    """A shared budget is older than its sessions, and is not forgotten first."""
    for number in range(TALLIES_MAX + 1):
        local.execute(settle(f"{number}", charging(session=f"{number}"), cost=CENT))
    real.is_away = True
    shared = Limits(cost_nano_usd=(TALLIES_MAX + 1) * CENT)
    to = charging(session="new", shared=shared)

    assert verdict(local, reserve("h", to)) is Verdict.DENY


def test_open_lets_every_call_pass(build: Build, real: FlakyStore) -> None:
    """No limit is kept while the store is away; all is booked afterwards."""
    store = build(OnStoreError.OPEN)
    real.is_away = True

    assert calls_until_denied(store, Limits(steps=2), name="h") == 100


@pytest.mark.parametrize("on_error", list(OnStoreError))
def test_orders_and_questions_of_people_are_never_made_up(
    build: Build,
    real: FlakyStore,
    on_error: OnStoreError,
) -> None:
    """Whoever stops a session or reads one is told that the store is away."""
    store = build(on_error)
    real.is_away = True
    operations = [
        RaiseLimits(account=SESSION, limits=Limits(steps=1), now_ms=NOW_MS),
        ReadAccount(account=SESSION),
        Resume(account=SESSION, now_ms=NOW_MS),
        StopSession(account=SESSION, attribution=charging().attribution, now_ms=NOW_MS),
    ]
    for op in operations:
        with pytest.raises(StoreUnavailable):
            store.execute(op)


def test_a_store_that_failed_is_asked_again_after_a_second(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """In between no call waits for it."""
    real.is_away = True
    for number in range(5):
        local.execute(reserve(f"{number}", charging()))
    asked = real.asked
    clock.advance(seconds=0.999)
    local.execute(reserve("too early", charging()))
    early = real.asked
    clock.advance(seconds=0.001)
    local.execute(reserve("due", charging()))

    assert (asked, early, real.asked) == (1, 1, 2)


def test_a_process_without_a_thread_to_spare_asks_again_once_it_has_one(
    local: ResilientStore,
    real: FlakyStore,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The agent does not hear of it."""

    def no_thread(seconds: float, work: Callable[[], object]) -> None:
        raise RuntimeError("can't start new thread")

    real.is_away = True
    with monkeypatch.context() as patch:
        patch.setattr(clock, "call_later", no_thread)
        assert verdict(local, reserve("1", charging())) is Verdict.ALLOW
    real.is_away = False
    local.execute(settle("1", charging()))
    clock.advance(seconds=1)

    assert not local.is_degraded
    assert [event.event_id for event in real.events()] == ["1"]


def test_a_lasting_trouble_is_logged_once_a_minute(
    local: ResilientStore,
    real: FlakyStore,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Loudly, and not on every call."""
    real.is_away = True
    with caplog.at_level(logging.ERROR, logger="guardrails"):
        for number in range(130):
            local.execute(reserve(f"{number}", charging()))
            clock.advance(seconds=1)

    assert len(caplog.records) == 3


def test_a_trouble_that_comes_again_and_again_is_told_once_a_minute(
    build: Build,
    real: FlakyStore,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that only refuses calls is back each second, until the next call."""
    store = build(OnStoreError.CLOSED)
    store.listener = heard = Heard()
    real.refuses_calls = True
    with caplog.at_level(logging.WARNING, logger="guardrails"):
        for number in range(130):
            with pytest.raises(StoreUnavailable):
                store.execute(reserve(f"{number}", charging()))
            clock.advance(seconds=1)

    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 3
    assert heard.degraded_seconds == [None, 1.0] * 3


def test_another_trouble_is_told_although_one_was_told_just_now(
    build: Build, real: FlakyStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It may need somebody else."""
    store = build(OnStoreError.CLOSED)
    with caplog.at_level(logging.ERROR, logger="guardrails"):
        for number in range(4):
            real.refuses_calls, real.is_away = number % 2 == 0, number % 2 == 1
            with pytest.raises(StoreUnavailable):
                store.execute(reserve(f"{number}", charging()))
            real.is_away = False
            clock.advance(seconds=1)

    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert told == ["a right is missing.", "away."]


def test_a_trouble_that_came_again_and_stays_is_told_with_its_end(
    build: Build, real: FlakyStore, clock: FakeClock
) -> None:
    store = build(OnStoreError.CLOSED)
    store.listener = heard = Heard()
    for seconds in (1, 70):
        real.is_away = True
        for number in range(seconds):
            with pytest.raises(StoreUnavailable):
                store.execute(reserve(f"{seconds} {number}", charging()))
            clock.advance(seconds=1)
        real.is_away = False
        clock.advance(seconds=1)

    assert heard.degraded_seconds == [None, 2.0, None, 71.0]


# --- When the store is back -------------------------------------------------


def test_calls_wait_while_the_last_ones_are_booked(
    build: Build,
    real: FlakyStore,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a busy process would add some for ever, and never ask the store again."""
    monkeypatch.setattr("guardrails.stores.resilient.store.LAST_MS", 10_000)
    store = build(OnStoreError.CLOSED)
    store.execute(reserve("before", charging()))
    real.is_away = True
    store.execute(settle("before", charging()))
    with ThreadPoolExecutor(1) as pool:
        calls: list[Future[Verdict]] = []

        def call() -> None:
            calls.append(pool.submit(verdict, store, reserve("new", charging())))
            assert not wait(calls, timeout=0.1).done, "it did not wait"

        real.is_away, real.meanwhile = False, call
        clock.advance(seconds=2)
        answer = calls[0].result(10)

    assert answer is Verdict.ALLOW
    assert real.account().steps == 2
    assert not store.is_degraded


@pytest.mark.parametrize("on_error", [OnStoreError.LOCAL, OnStoreError.OPEN])
def test_what_happened_meanwhile_is_booked_once(
    build: Build,
    real: FlakyStore,
    clock: FakeClock,
    on_error: OnStoreError,
) -> None:
    """Calls that span the outage, at either end or wholly, are one event each."""
    store, to = build(on_error), charging()
    store.execute(reserve("before", to))
    real.is_away = True
    store.execute(settle("before", to))
    store.execute(reserve("within", to))
    store.execute(settle("within", to))
    store.execute(settle("within", to))
    store.execute(reserve("after", to))
    real.is_away = False
    clock.advance(seconds=1)
    store.execute(settle("after", to))

    assert not store.is_degraded
    assert [e.event_id for e in real.events()] == ["before", "within", "after"]
    account = real.account()
    assert (account.steps, account.posted_nano_usd) == (3, 3 * CENT)
    assert (account.held_nano_usd, account.unconfirmed_nano_usd) == (0, 0)


def test_a_call_in_the_moment_of_the_recovery_begins_no_other_outage(
    real: FlakyStore,
) -> None:
    """It was answered without the store, which is back when that is noted."""
    clock = MeanwhileClock()
    store = ResilientStore(real, on_error=OnStoreError.LOCAL, clock=clock)
    real.is_away = True
    store.execute(reserve("1", charging()))
    real.is_away = False
    clock.meanwhile = lambda: clock.advance(seconds=1)
    store.execute(reserve("2", charging()))
    is_degraded = store.is_degraded
    clock.advance(seconds=0.001)

    assert not is_degraded
    assert real.account().steps == 2


class MeanwhileClock(FakeClock):
    """One on which something else may happen while somebody reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] | None = None

    def monotonic_ms(self) -> int:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return super().monotonic_ms()


def test_what_the_store_had_applied_before_it_failed_counts_once(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """A reply that was lost is no reason to book again."""
    to = charging()
    real.forgets_to_answer = True
    local.execute(reserve("h", to))
    local.execute(settle("h", to))
    clock.advance(seconds=1)
    local.execute(reserve("2", to))  # The backlog is tried, and its reply lost.
    real.forgets_to_answer = False
    clock.advance(seconds=1)
    local.execute(settle("2", to))

    assert [event.event_id for event in real.events()] == ["h", "2"]
    assert real.account().steps == 2
    assert real.account(SHARED).posted_nano_usd == 2 * CENT


def test_a_recovery_that_breaks_off_goes_on_where_it_was(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """The order is kept, and nothing is booked twice."""
    real.is_away = True
    for number in range(3):
        local.execute(settle(f"{number}", charging()))
    real.is_away = False
    real.goes_away_after = 1
    clock.advance(seconds=1)
    local.execute(settle("3", charging()))
    half_way = [event.event_id for event in real.events()]
    real.goes_away_after = None
    real.is_away = False
    clock.advance(seconds=1)
    local.execute(settle("4", charging()))

    assert half_way == ["0"]
    assert [event.event_id for event in real.events()] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("kind", [FlakyStore, RemoteFlakyStore])
def test_what_no_store_can_take_holds_nobody_up(
    kind: type[FlakyStore], clock: FakeClock
) -> None:
    """It is said, and all else is booked: in the recovery and afterwards."""
    real = kind()
    store = ResilientStore(real, on_error=OnStoreError.LOCAL, clock=clock)
    heard = store.listener = Heard()
    real.fails = lambda op: isinstance(op, Settle) and op.hold_id == "1"
    real.is_away = True
    for number in range(3):
        store.execute(settle(f"{number}", charging()))
    real.is_away = False
    clock.advance(seconds=1)
    store.execute(settle("3", charging()))

    assert [event.event_id for event in real.events()] == ["0", "2", "3"]
    assert heard.failures == ["booking a call"]
    assert (store.is_degraded, store.waiting) == (False, 0)


def test_a_hold_from_before_can_be_given_back_meanwhile(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """A release that only the store can apply waits for it."""
    to = charging()
    local.execute(reserve("h", to))
    real.is_away = True
    reply = local.execute(GIVE_BACK)
    real.is_away = False
    clock.advance(seconds=1)
    local.execute(reserve("2", to, cost=0))

    assert reply == Released(is_applied=True)
    assert real.account().steps == 1
    assert real.account().held_nano_usd == 0


def test_a_call_that_ends_while_its_reservation_is_booked_is_booked_too(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """Its settlement takes the place of what is just being sent, and waits."""
    to = charging()
    real.is_away = True
    local.execute(reserve("h", to))
    real.is_away = False
    real.meanwhile = lambda: local.execute(settle("h", to))
    clock.advance(seconds=1)

    assert [event.event_id for event in real.events()] == ["h"]
    assert real.account().held_nano_usd == 0
    assert local.waiting == 0


@pytest.mark.parametrize("is_answered_by_the_store", [False, True])
def test_a_call_given_back_while_its_reservation_is_booked_holds_nothing(
    local: ResilientStore,
    real: FlakyStore,
    clock: FakeClock,
    *,
    is_answered_by_the_store: bool,
) -> None:
    """Whoever answers the release, the store hears of it after the reservation."""
    real.is_away = True
    local.execute(reserve("h", charging()))
    real.is_away = False

    def give_back() -> None:
        if is_answered_by_the_store:
            local._end_outage()  # Another thread's look at the store.
        local.execute(GIVE_BACK)

    real.meanwhile = give_back
    clock.advance(seconds=1)

    assert (real.account().steps, real.account().held_nano_usd) == (0, 0)
    assert local.waiting == 0


def test_a_call_whose_answer_was_lost_can_be_given_back(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """The store may hold it, although it was admitted here."""
    real.forgets_to_answer = True
    local.execute(reserve("h", charging()))
    held = real.account().held_nano_usd
    real.forgets_to_answer = False
    local.execute(GIVE_BACK)
    clock.advance(seconds=1)

    assert (held, real.account().held_nano_usd) == (CENT, 0)
    assert real.account().steps == 0


def test_calls_that_were_admitted_meanwhile_are_booked_above_the_limit(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """Two processes had the same last cent: the truth is booked, and it ends."""
    to = charging(limits=Limits(cost_nano_usd=CENT))
    real.is_away = True
    local.execute(reserve("here", to))
    local.execute(settle("here", to))
    real.is_away = False
    real.real.execute(reserve("there", to))
    real.real.execute(settle("there", to))
    clock.advance(seconds=1)
    after = verdict(local, reserve("after", to, cost=0))

    assert real.account().posted_nano_usd == 2 * CENT
    assert after is Verdict.DENY


def test_a_loop_that_was_stopped_meanwhile_stays_stopped(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """The store comes to the same stop when the calls are booked."""
    to = charging(loop=LoopRule())
    trace = ToolTrace(tool="t", arguments_digest="a", result_digest="r")
    real.is_away = True
    for number in range(3):
        local.execute(reserve(f"{number}", to, kind=CallKind.TOOL))
        reply = local.execute(settle(f"{number}", to, kind=CallKind.TOOL, trace=trace))
    assert isinstance(reply, Settled)
    assert reply.new_stop is not None
    real.is_away = False
    clock.advance(seconds=1)

    assert verdict(local, reserve("after", to)) is Verdict.DENY


# --- Bounds and the end -----------------------------------------------------


def test_refuses_calls_past_the_bound_of_what_it_can_keep(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """No new call is promised a booking; those under way are still booked."""
    to = charging()
    real.is_away = True
    for number in range(BACKLOG_MAX):
        local.execute(reserve(f"{number}", to))
    with pytest.raises(StoreUnavailable, match="too many operations wait"):
        local.execute(reserve("one more", to))
    local.execute(settle("0", to))
    real.is_away = False
    clock.advance(seconds=1)

    assert verdict(local, reserve("one more", to)) is Verdict.ALLOW
    assert real.account().steps == BACKLOG_MAX + 1
    assert real.account().posted_nano_usd == CENT


def test_closing_books_what_is_left(local: ResilientStore, real: FlakyStore) -> None:
    """At the end the store is tried at once, not after the next second."""
    real.is_away = True
    local.execute(settle("h", charging()))
    real.is_away = False
    local.close()

    assert [event.event_id for event in real.events()] == ["h"]


def test_closing_says_what_could_not_be_booked(
    local: ResilientStore, real: FlakyStore, caplog: pytest.LogCaptureFixture
) -> None:
    """What is lost is counted in the log, not passed over."""
    real.is_away = True
    local.execute(settle("h", charging()))
    local.close()

    assert "Operations that the store did not take: 1;" in caplog.text


async def test_tasks_are_served_alike(
    local: ResilientStore, real: FlakyStore, clock: FakeClock
) -> None:
    """`aexecute` degrades and recovers like `execute`."""
    to = charging(limits=Limits(steps=2))
    real.is_away = True
    replies = [await local.aexecute(reserve(f"{n}", to)) for n in range(3)]
    real.is_away = False
    clock.advance(seconds=1)
    await local.aexecute(
        Release(hold_id="0", account="default/session/session_id=s", now_ms=NOW_MS)
    )

    assert [r.verdict for r in replies if isinstance(r, Reserved)] == [
        Verdict.ALLOW,
        Verdict.ALLOW,
        Verdict.DENY,
    ]
    assert real.account().steps == 1
