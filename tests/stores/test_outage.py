"""Each budget's own answer while the store is away, and how far `local` may go."""

from dataclasses import replace
from decimal import Decimal

import pytest

from guardrails.core.accounts import Charging, StopReason, Threshold
from guardrails.core.operations import (
    RaiseLimits,
    Reserved,
    Resume,
    Turn,
    Verdict,
)
from guardrails.core.policy import Limits, Measure, OnStoreError
from guardrails.errors import StoreUnavailable
from guardrails.stores.resilient import ResilientStore
from guardrails.testing import FakeClock
from guardrails.testing.conformance import CENT, NOW_MS, charging, reserve, settle
from tests.stores.flaky import FlakyStore, Heard, RemoteFlakyStore

SESSION = "default/session/session_id=s"
SHARED = "default/total/customer_id=acme"
DOLLAR = 100 * CENT


class Setting:
    """A fleet of processes on one store that tells totals."""

    def __init__(self) -> None:
        self.real = RemoteFlakyStore()
        self.clock = FakeClock()

    def process(self, on_error: OnStoreError = OnStoreError.LOCAL) -> ResilientStore:
        return ResilientStore(self.real, on_error=on_error, clock=self.clock)

    def come_back(self) -> None:
        self.real.is_away = False
        self.clock.advance(seconds=1)


@pytest.fixture
def it() -> Setting:
    return Setting()


def spend(store: ResilientStore, to: Charging, count: int, *, name: str) -> int:
    """Makes calls of one cent until one is refused; returns how many were made."""
    for number in range(count):
        hold_id = f"{name}{number}"
        try:
            reply = store.execute(reserve(hold_id, to))
        except StoreUnavailable:
            return number
        assert isinstance(reply, Reserved)
        if reply.verdict is not Verdict.ALLOW:
            return number
        store.execute(settle(hold_id, to))
    return count


def on_lines(to: Charging, *policies: OnStoreError | None) -> Charging:
    """Gives each line its own policy."""
    lines = zip(to.lines, policies, strict=True)
    return replace(
        to, lines=tuple(replace(line, on_store_error=one) for line, one in lines)
    )


# --- local ------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 4])
def test_a_process_may_use_a_tenth_of_a_shared_limit(
    it: Setting, processes: int
) -> None:
    """Whatever is left of it: others have it, too."""
    to = charging(shared=Limits(cost_nano_usd=DOLLAR))
    fleet = [it.process() for _ in range(processes)]
    for number, store in enumerate(fleet):
        assert spend(store, to, 1, name=f"before{number}") == 1
    it.real.is_away = True
    made = [spend(store, to, 100, name=f"{n}-") for n, store in enumerate(fleet)]
    with pytest.raises(StoreUnavailable, match="may use a 10th of the limit"):
        fleet[0].execute(reserve("more", to))
    it.come_back()

    assert made == [10] * processes
    assert it.real.account(SHARED).posted_nano_usd == 11 * processes * CENT


def test_the_last_cents_of_a_shared_limit_are_all_that_a_process_may_use(
    it: Setting,
) -> None:
    """Others' spending counts as the store last told it."""
    to = charging(shared=Limits(cost_nano_usd=DOLLAR))
    other, store = it.process(), it.process()
    spend(other, to, 96, name="other")
    spend(store, to, 1, name="before")
    it.real.is_away = True

    assert spend(store, to, 100, name="h") == 3


def test_holds_from_before_count_once(it: Setting) -> None:
    """What a call holds is replaced by what it cost, here as in the store."""
    to = charging(shared=Limits(cost_nano_usd=DOLLAR))
    store = it.process()
    store.execute(reserve("open", to, cost=5 * CENT))
    it.real.is_away = True
    store.execute(settle("open", to, cost=CENT))

    # 5 cents were held and a tenth may be used on top; 4 of them came back.
    assert spend(store, to, 100, name="h") == 14


def test_a_shared_limit_of_which_nothing_is_known_is_closed(it: Setting) -> None:
    """Somebody else may have used it up."""
    to = charging(shared=Limits(cost_nano_usd=DOLLAR))
    store = it.process()
    it.real.is_away = True

    with pytest.raises(StoreUnavailable, match="customer_id=acme has used is not"):
        store.execute(reserve("h", to))


def test_a_session_may_use_all_that_is_left(it: Setting) -> None:
    """Mostly one process has it to itself."""
    to = charging(limits=Limits(cost_nano_usd=20 * CENT))
    store = it.process()
    spend(store, to, 5, name="before")
    it.real.is_away = True

    assert spend(store, to, 100, name="h") == 15


def test_a_raised_shared_limit_has_a_larger_tenth(it: Setting) -> None:
    to = charging(shared=Limits(cost_nano_usd=DOLLAR))
    store = it.process()
    store.execute(
        RaiseLimits(
            account=SHARED, limits=Limits(cost_nano_usd=2 * DOLLAR), now_ms=NOW_MS
        )
    )
    spend(store, to, 1, name="before")
    it.real.is_away = True

    assert spend(store, to, 100, name="h") == 20


# --- one policy per budget --------------------------------------------------


def test_a_closed_budget_refuses_although_the_rest_is_local(it: Setting) -> None:
    to = on_lines(
        charging(shared=Limits(cost_nano_usd=DOLLAR)), None, OnStoreError.CLOSED
    )
    store = it.process()
    spend(store, to, 1, name="before")
    it.real.is_away = True

    with pytest.raises(StoreUnavailable, match="closed for customer_id=acme"):
        store.execute(reserve("h", to))


def test_an_open_budget_lets_pass_although_the_session_is_local(it: Setting) -> None:
    to = on_lines(
        charging(
            limits=Limits(cost_nano_usd=50 * CENT), shared=Limits(cost_nano_usd=CENT)
        ),
        None,
        OnStoreError.OPEN,
    )
    store = it.process()
    it.real.is_away = True

    assert spend(store, to, 100, name="h") == 50


def test_a_budget_that_limits_nothing_closes_nothing(it: Setting) -> None:
    to = on_lines(charging(), None, OnStoreError.CLOSED)
    store = it.process()
    it.real.is_away = True

    assert spend(store, to, 10, name="h") == 10


# --- afterwards -------------------------------------------------------------


def test_a_session_that_ran_out_meanwhile_stays_stopped(it: Setting) -> None:
    """Also for a call that would still fit, until somebody lifts it."""
    to = charging(limits=Limits(cost_nano_usd=10 * CENT))
    store = it.process()
    it.real.is_away = True
    store.execute(reserve("large", to, cost=11 * CENT))
    it.come_back()
    stop = it.real.account(SESSION).stop
    refused = store.execute(reserve("small", to))
    store.execute(Resume(account=SESSION, now_ms=NOW_MS))

    assert stop is not None
    assert stop.reason is StopReason.BUDGET_EXCEEDED
    assert isinstance(refused, Reserved)
    assert refused.verdict is Verdict.DENY
    assert spend(store, to, 1, name="h") == 1
    assert it.real.account(SESSION).held_nano_usd == 0


def test_each_threshold_is_told_once_when_the_store_learns_of_it(it: Setting) -> None:
    """Of two processes that each saw half, one is told."""
    half = Threshold(
        measure=Measure.COST, value=8 * CENT, ratio=Decimal("0.8"), label="soft"
    )
    to = charging()
    to = replace(to, lines=(to.lines[0], replace(to.lines[1], thresholds=(half,))))
    one, two = it.process(), it.process()
    one.listener, two.listener = Heard(), Heard()
    it.real.is_away = True
    spend(one, to, 6, name="one")
    spend(two, to, 6, name="two")
    it.come_back()

    told = [*one.listener.crossings, *two.listener.crossings]
    assert [crossing.threshold.label for crossing in told] == ["soft"]


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(it: Setting) -> None:
    store = it.process()
    store.listener = heard = Heard()
    it.real.is_away = True
    spend(store, charging(), 3, name="h")
    it.clock.advance(seconds=2.5)
    during = store.degraded_seconds
    it.come_back()
    it.clock.advance(seconds=9)

    assert heard.degraded_seconds == [None, 3.0]
    assert (during, store.degraded_seconds) == (2.5, 3.0)


def test_a_turn_is_answered_like_its_halves(it: Setting) -> None:
    to = charging(limits=Limits(cost_nano_usd=2 * CENT))
    store = it.process()
    store.execute(reserve("1", to, cost=2 * CENT))
    it.real.is_away = True
    reply = store.execute(Turn(settle=settle("1", to), reserve=reserve("2", to)))
    denied = store.execute(Turn(settle=settle("2", to), reserve=reserve("3", to)))
    it.come_back()

    assert isinstance(reply.reserved, Reserved)
    assert isinstance(denied.reserved, Reserved)
    assert reply.reserved.verdict is Verdict.ALLOW
    assert denied.reserved.verdict is Verdict.DENY
    account = it.real.account(SESSION)
    assert (account.posted_nano_usd, account.held_nano_usd) == (2 * CENT, 0)


def test_calls_do_not_wait_while_the_store_is_asked_again(it: Setting) -> None:
    """Only what asks in the background notices that it is still away."""
    store = it.process()
    it.real.is_away = True
    spend(store, charging(), 1, name="first")
    asked = it.real.asked
    spend(store, charging(), 50, name="h")
    it.clock.advance(seconds=3)

    assert it.real.asked == asked + 3


def test_a_store_without_totals_goes_by_what_this_process_settled() -> None:
    """A file tells none: the process knows its own calls, and refuses more."""
    real, clock = FlakyStore(), FakeClock()
    store = ResilientStore(real, on_error=OnStoreError.LOCAL, clock=clock)
    to = charging(shared=Limits(cost_nano_usd=10 * CENT))
    store.execute(reserve("open", to, cost=5 * CENT))
    spend(store, to, 4, name="before")
    real.is_away = True

    assert spend(store, to, 10, name="h") == 1
