"""The ledger: what random operations reach too rarely, and what once went wrong."""

from dataclasses import replace
from decimal import Decimal

import pytest

from guardrails.core.accounts import Account, Charging, Line, StopReason, Threshold
from guardrails.core.attribution import Attribution
from guardrails.core.ledger import SWEEP_MAX, Ledger
from guardrails.core.operations import (
    Close,
    RaiseLimits,
    ReadAccount,
    Release,
    Reserved,
    Settled,
    StopSession,
    Sweep,
    Swept,
    Verdict,
)
from guardrails.core.policy import Limits, Measure
from guardrails.testing.conformance import NOW_MS, charging, reserve, settle

SESSION = "default/session/session_id=s"
INNER, OUTER = "default/session/session_id=inner", "default/session/session_id=outer"


def nested(*, inner: Limits | None = None, outer: Limits | None = None) -> Charging:
    """Builds the charging of a session inside another."""
    lines = [
        Line(account=key, scope=scope, limits=limits or Limits(), is_session=True)
        for key, scope, limits in (
            (INNER, "session", inner),
            (OUTER, "session outer", outer),
        )
    ]
    return Charging(attribution=Attribution.of(session_id="inner"), lines=tuple(lines))


def account(ledger: Ledger, key: str = SESSION) -> Account:
    found = ledger.apply(ReadAccount(account=key))
    assert found is not None
    return found


def reserved(ledger: Ledger, hold_id: str, to: Charging, **values: int) -> Reserved:
    """Reserves one unit, unless something else is said."""
    op = reserve(hold_id, to, **{"cost": 1, "tokens": 0} | values)
    sessions = sum(line.is_session for line in to.lines)
    reply = ledger.apply(replace(op, active_ms=op.active_ms * sessions))
    assert isinstance(reply, Reserved)
    return reply


# --- Nested sessions --------------------------------------------------------


def test_a_call_counts_in_its_session_and_in_the_one_around_it() -> None:
    """Whatever an inner agent spends, the outer session has spent."""
    ledger = Ledger()
    reserved(ledger, "h", nested(), cost=5)
    ledger.apply(replace(settle("h", nested(), cost=3), active_ms=(0, 0)))

    assert account(ledger, INNER).posted_nano_usd == 3
    assert account(ledger, OUTER).posted_nano_usd == 3


def test_the_outer_limit_ends_the_outer_session_and_what_is_in_it() -> None:
    """The inner session is refused by the outer one's stop, and keeps none."""
    ledger = Ledger()
    to = nested(outer=Limits(cost_nano_usd=1))
    denied = reserved(ledger, "1", to, cost=2)
    again = reserved(ledger, "2", to, cost=0)
    elsewhere = reserved(ledger, "3", charging(), cost=2)

    assert denied.new_stop is not None
    assert denied.new_stop.scope == "session outer"
    assert account(ledger, OUTER).stop == denied.new_stop
    assert ledger.apply(ReadAccount(account=INNER)) is None
    assert again.verdict is Verdict.DENY
    assert elsewhere.verdict is Verdict.ALLOW


def test_the_inner_limit_leaves_the_outer_session_running() -> None:
    """A sub-agent that used up its own budget ends alone."""
    ledger = Ledger()
    denied = reserved(ledger, "1", nested(inner=Limits(steps=0)))
    outer = Charging(
        attribution=Attribution.of(session_id="outer"), lines=nested().lines[1:]
    )

    assert denied.new_stop is not None
    assert reserved(ledger, "2", outer).verdict is Verdict.ALLOW


def test_a_session_around_a_call_keeps_its_own_name() -> None:
    """Also when the first call in it is made by the session inside it."""
    ledger, to = Ledger(), nested()
    around = Attribution.of(session_id="outer", agent="router")
    lines = (to.lines[0], replace(to.lines[1], attribution=around))
    reserved(ledger, "h", Charging(attribution=to.attribution, lines=lines))
    inner, outer = (account(ledger, key).session for key in (INNER, OUTER))

    assert inner is not None
    assert outer is not None
    assert (inner.attribution, outer.attribution) == (to.attribution, around)


# --- Refusals and stops -----------------------------------------------------


def test_a_refusal_says_what_was_needed_and_what_was_left() -> None:
    """In the unit of the ledger, held amounts included."""
    ledger = Ledger()
    to = charging(limits=Limits(cost_nano_usd=10))
    reserved(ledger, "1", to, cost=7)
    refusal = reserved(ledger, "2", to, cost=4).refusal

    assert refusal is not None
    assert refusal.measure is Measure.COST
    assert (refusal.used, refusal.needed, refusal.allowed) == (7, 4, 10)
    assert refusal.steps == 1


@pytest.mark.parametrize("refused_by", ["a limit", "a shared limit", "an open hold"])
def test_a_refusal_does_not_begin_a_session_that_was_only_raised(
    refused_by: str,
) -> None:
    """Its clock starts with the first call that is admitted, or that stops it."""
    ledger = Ledger()
    ledger.apply(RaiseLimits(account=SESSION, limits=Limits(steps=50), now_ms=NOW_MS))
    shared = Limits(cost_nano_usd=1)
    if refused_by == "an open hold":
        reserved(ledger, "other", charging(session="other", shared=shared))
    limits = Limits(cost_nano_usd=0) if refused_by == "a limit" else None
    cost = 1 if refused_by == "an open hold" else 2
    reply = reserved(ledger, "1", charging(limits=limits, shared=shared), cost=cost)

    assert reply.verdict is not Verdict.ALLOW
    assert (account(ledger).session is None) is (reply.new_stop is None)


def test_the_first_stop_by_a_person_stays() -> None:
    """A session that is stopped twice says who stopped it first."""
    ledger = Ledger()
    who = charging().attribution
    for by in ("first", "second"):
        op = StopSession(account=SESSION, attribution=who, now_ms=NOW_MS, by=by)
        stop = ledger.apply(op).stop

    assert stop is not None
    assert stop.by == "first"


def test_a_stop_by_a_person_outlives_a_raised_limit() -> None:
    """What a budget has stopped before a person did does not go on by itself."""
    ledger = Ledger()
    to = charging(limits=Limits(cost_nano_usd=1))
    reserved(ledger, "1", to, cost=2)
    ledger.apply(
        StopSession(account=SESSION, attribution=to.attribution, now_ms=NOW_MS)
    )
    raised = ledger.apply(
        RaiseLimits(
            account=SESSION, limits=Limits(cost_nano_usd=9), now_ms=NOW_MS, by="ops"
        )
    )

    assert raised.stop is not None
    assert raised.stop.reason is StopReason.KILLED


def test_raising_lifts_a_budget_stop_only() -> None:
    """Who was stopped by a person is resumed by a person."""
    ledger = Ledger()
    op = StopSession(account=SESSION, attribution=charging().attribution, now_ms=NOW_MS)
    ledger.apply(op)
    raised = ledger.apply(
        RaiseLimits(account=SESSION, limits=Limits(steps=9), now_ms=NOW_MS)
    )

    assert raised.stop is not None
    assert raised.stop.reason is StopReason.KILLED


def test_raising_twice_keeps_the_higher_limit() -> None:
    """A raise never takes back what an earlier one gave."""
    ledger = Ledger()
    ledger.apply(
        RaiseLimits(account=SESSION, limits=Limits(steps=9, tokens=1), now_ms=NOW_MS)
    )
    raised = ledger.apply(
        RaiseLimits(account=SESSION, limits=Limits(steps=5), now_ms=NOW_MS)
    )

    assert raised.raised == Limits(steps=9, tokens=1)


def test_a_ratio_moves_with_a_raised_limit_and_is_told_again() -> None:
    """Half of 10 was passed at 5; half of 20 is passed at 10."""
    ledger = Ledger()
    half = Threshold(
        measure=Measure.COST, value=5, ratio=Decimal("0.5"), label="max_cost_usd:0.5"
    )
    to = charging(limits=Limits(cost_nano_usd=10), thresholds=(half,))
    told: list[int] = []
    for number in range(12):
        if number == 7:
            raised = Limits(cost_nano_usd=20)
            ledger.apply(RaiseLimits(account=SESSION, limits=raised, now_ms=NOW_MS))
        reserved(ledger, f"{number}", to)
        reply = ledger.apply(settle(f"{number}", to, cost=1))
        assert isinstance(reply, Settled)
        told += [crossing.posted for crossing in reply.crossings]

    assert told == [5, 10]


def test_a_step_that_was_given_back_does_not_tell_again() -> None:
    """Steps can go down by a release; people were told already."""
    ledger = Ledger()
    point = Threshold(measure=Measure.STEPS, value=2, label="steps")
    to = charging(thresholds=(point,))
    told: list[int] = []
    for number in range(4):
        told.append(len(reserved(ledger, f"{number}", to).crossings))
        if number == 1:
            ledger.apply(
                Release(
                    hold_id="1", account="default/session/session_id=s", now_ms=NOW_MS
                )
            )

    assert told == [0, 1, 0, 0]


# --- Sweeps and time --------------------------------------------------------


def test_a_sweep_has_a_bound_and_takes_the_oldest_first() -> None:
    """It never keeps a call waiting for long; the next sweep goes on."""
    ledger = Ledger()
    for number in range(SWEEP_MAX + 5):
        reserved(ledger, f"{number:03}", charging(), ttl_ms=1_000 - number)
    later = NOW_MS + 5_000
    first = ledger.apply(Sweep(now_ms=later))
    left = sorted(h.hold_id for h in ledger.holds.values() if h.expires_at_ms < later)
    second = ledger.apply(Sweep(now_ms=later))

    assert first == Swept(unconfirmed=SWEEP_MAX, forgotten=0)
    assert left == [f"{number:03}" for number in range(5)]
    assert second == Swept(unconfirmed=5, forgotten=0)
    assert account(ledger).unconfirmed_nano_usd == SWEEP_MAX + 5


def test_two_processes_at_once_are_active_once() -> None:
    """Overlapping spans that end in any order add up to what they cover."""
    ledger, to = Ledger(), charging()
    reserved(ledger, "1", to, now_ms=NOW_MS + 1_000, active_ms=1_000)
    reserved(ledger, "2", to, now_ms=NOW_MS + 1_500, active_ms=1_500)
    reserved(ledger, "3", to, now_ms=NOW_MS + 1_400, active_ms=300)
    session = account(ledger).session

    assert session is not None
    assert session.active_ms == 1_500


def test_a_clock_that_was_set_back_stops_no_session() -> None:
    """Time goes on from the new instant, and none is counted twice."""
    ledger, to = Ledger(), charging()
    reserved(ledger, "1", to, active_ms=1_000)
    back = NOW_MS - 3_600_000
    reserved(ledger, "2", to, now_ms=back, active_ms=2_000)
    reserved(ledger, "3", to, now_ms=back + 500, active_ms=2_500)
    session = account(ledger).session

    assert session is not None
    assert session.active_ms == 1_500


def test_a_call_reopens_a_session_that_was_closed() -> None:
    """Completion is a note, not a stop."""
    ledger, to = Ledger(), charging()
    reserved(ledger, "1", to)
    ledger.apply(Close(account=SESSION, now_ms=NOW_MS, active_ms=0))
    closed = account(ledger).session
    reserved(ledger, "2", to)
    opened = account(ledger).session

    assert closed is not None
    assert closed.ended_at_ms == NOW_MS
    assert opened is not None
    assert opened.ended_at_ms is None


# --- Amounts ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("cost", "tokens"), [(-1, 0), (0, -1), (2**53, 0), (0, 10**10)]
)
def test_no_amount_can_poison_a_total(cost: int, tokens: int) -> None:
    """What is impossible is refused before any row is touched."""
    with pytest.raises(ValueError, match="must be at"):
        reserve("h", charging(), cost=cost, tokens=tokens)


def test_a_reply_shares_nothing_with_the_ledger() -> None:
    """Whoever changes what was read changes no account."""
    ledger = Ledger()
    reserved(ledger, "h", charging())
    read = account(ledger)
    assert read.session is not None
    read.posted_nano_usd = read.session.active_ms = 99

    assert account(ledger).posted_nano_usd == 0
    assert account(ledger).session != read.session
