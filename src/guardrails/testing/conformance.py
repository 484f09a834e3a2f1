"""The battery that every store passes: inherit it and name a store.

class TestMyStore(StoreConformance):
    @pytest.fixture
    def store(self):
        ...
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

from guardrails.core.accounts import Account, Charging, Line, StopReason, Threshold
from guardrails.core.alerting.deliveries import (
    AlertLog,
    ClaimAlerts,
    Claimed,
    DeliveryState,
    NoteAlerts,
    ReadAlerts,
    RetryAlerts,
    TellAlerts,
)
from guardrails.core.alerting.outbox import KEPT_MS
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.layers import Layer, LayerPart
from guardrails.core.ledger import SETTLED_RETENTION_MS
from guardrails.core.loops import (
    FAILED,
    LoopAction,
    LoopFinding,
    LoopKind,
    LoopRule,
    ToolTrace,
)
from guardrails.core.operations import (
    Close,
    Conflict,
    Operation,
    RaiseLimits,
    ReadAccount,
    ReadAudit,
    ReadStops,
    Release,
    Reserve,
    Reserved,
    Resume,
    ResumeScope,
    Settle,
    Settled,
    StopScope,
    StopSession,
    Sweep,
    Turn,
    Verdict,
)
from guardrails.core.policy import Limits, Measure
from guardrails.core.reporting.flat_events import flat_event
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.core.stops import (
    AUDIT_MAX,
    SESSIONS_LISTED_MAX,
    AuditAction,
    StopKind,
    StopOrder,
    StopTarget,
)
from guardrails.core.telling import AlertKind, Telling
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from guardrails.errors import StoreUnavailable
from guardrails.ports import Store
from guardrails.system.ids import new_id
from guardrails.testing.watched import watched_alerts

__all__ = ["StoreConformance", "charging", "reserve", "settle"]

R = TypeVar("R")

NOW_MS = 1_764_000_000_000

LONG_AGO_MS = 1_000_000_000_000
"""Years before any clock that is right."""

LATENCY_MS, BYTES_IN, BYTES_OUT = 2**31, 3, 2**31
"""Of each tool call. Sums of them do not fit into 32 bits."""
WORKERS = 50
TRIES_MAX = 10
CENT = 10_000_000
"""One cent in nano-USD."""


def charging(
    *,
    session: str = "s",
    limits: Limits | None = None,
    shared: Limits | None = None,
    thresholds: tuple[Threshold, ...] = (),
    loop: LoopRule | None = None,
    is_enforced: bool = True,
    telling: Telling | None = None,
) -> Charging:
    """Builds what a call is charged to: a session and one shared account."""
    who = Attribution.of(agent="a", customer_id="acme", session_id=session)
    return Charging(
        attribution=who,
        lines=(
            Line(
                account=f"default/session/session_id={session}",
                scope="session",
                limits=limits or Limits(),
                thresholds=thresholds,
                is_session=True,
            ),
            Line(
                account="default/total/customer_id=acme",
                scope="customer_id=acme",
                limits=shared or Limits(),
            ),
        ),
        loop=loop,
        is_enforced=is_enforced,
        telling=telling,
    )


def reserve(
    hold_id: str,
    to: Charging,
    *,
    cost: int = CENT,
    tokens: int = 10,
    kind: CallKind = CallKind.MODEL,
    now_ms: int = NOW_MS,
    ttl_ms: int = 1_000,
    active_ms: int = 0,
) -> Reserve:
    """Builds a reservation."""
    return Reserve(
        hold_id=hold_id,
        charging=to,
        kind=kind,
        cost_nano_usd=cost,
        tokens=tokens,
        now_ms=now_ms,
        expires_at_ms=now_ms + ttl_ms,
        active_ms=(active_ms,),
    )


def settle(
    hold_id: str,
    to: Charging,
    *,
    cost: int = CENT,
    tokens: int = 10,
    kind: CallKind = CallKind.MODEL,
    now_ms: int = NOW_MS,
    active_ms: int = 0,
    trace: ToolTrace | None = None,
) -> Settle:
    """Builds a settlement with its event."""
    is_model = kind is CallKind.MODEL
    event = Event(
        event_id=hold_id,
        time_ms=now_ms,
        attribution=to.attribution,
        kind=kind,
        model="m" if is_model else None,
        tool=None if is_model else "t",
        status=CallStatus.OK,
        latency_ms=LATENCY_MS,
        bytes_in=None if is_model else BYTES_IN,
        bytes_out=None if is_model else BYTES_OUT,
        usage=TokenUsage(input_tokens=tokens) if is_model else None,
        charge=Charge(cost_nano_usd=cost, status=PriceStatus.PRICED, source="test"),
        reserved_nano_usd=cost,
    )
    return Settle(
        hold_id=hold_id,
        charging=to,
        kind=kind,
        cost_nano_usd=cost,
        tokens=tokens,
        now_ms=now_ms,
        active_ms=(active_ms,),
        event=event,
        trace=trace,
    )


def _account(store: Store, key: str = "default/session/session_id=s") -> Account:
    account = store.execute(ReadAccount(account=key))
    assert account is not None
    return account


_SESSION = "default/session/session_id=s"
_TARGETS = (
    StopTarget(kind=StopKind.EVERYTHING),
    StopTarget(kind=StopKind.CUSTOMER, name="acme"),
    StopTarget(kind=StopKind.AGENT, name="a"),
)
_READ_STOPS = ReadStops(project_id="default", now_ms=NOW_MS)


def _stop(target: StopTarget, *, until_ms: int | None = None) -> StopScope:
    return StopScope(
        project_id="default",
        target=target,
        now_ms=NOW_MS,
        until_ms=until_ms,
        by="ops",
        note="invoice dispute",
    )


def _resume(target: StopTarget, *, now_ms: int = NOW_MS) -> ResumeScope:
    return ResumeScope(
        project_id="default", target=target, now_ms=now_ms, by="ops", note="paid"
    )


def _use_tools(store: Store, to: Charging, *calls: str) -> list[Settled]:
    """Makes tool calls, each written `tool/arguments/result`."""
    replies: list[Settled] = []
    for call in calls:
        tool, arguments, result = call.split("/")
        hold_id = new_id()
        store.execute(reserve(hold_id, to, kind=CallKind.TOOL))
        trace = ToolTrace(
            tool=tool,
            arguments_digest=arguments,
            result_digest=result,
            cost_nano_usd=CENT,
        )
        op = settle(hold_id, to, kind=CallKind.TOOL, trace=trace)
        reply = store.execute(op)
        assert isinstance(reply, Settled)
        replies.append(reply)
    return replies


def _ask(
    store: Store, to: Charging, call: str, *, hold_id: str | None = None
) -> Reserved:
    """Asks whether a tool call may be made, written `tool/arguments`."""
    tool, arguments = call.split("/")
    trace = ToolTrace(tool=tool, arguments_digest=arguments, result_digest=None)
    op = reserve(hold_id or new_id(), to, kind=CallKind.TOOL)
    reply = store.execute(replace(op, trace=trace))
    assert isinstance(reply, Reserved)
    return reply


def _verdict(reply: Reserved | Conflict) -> Verdict:
    assert isinstance(reply, Reserved)
    return reply.verdict


class StoreConformance:
    """What every store must do. The fixture `store` returns a fresh one."""

    def test_holds_then_posts(self, store: Store) -> None:
        """A reservation is held on every line; settling books the truth instead."""
        to = charging()
        assert _verdict(store.execute(reserve("h", to))) is Verdict.ALLOW
        held = _account(store)
        store.execute(settle("h", to, cost=3, tokens=2))
        posted = _account(store, "default/total/customer_id=acme")

        assert (held.held_nano_usd, held.held_tokens, held.steps) == (CENT, 10, 1)
        assert (posted.posted_nano_usd, posted.posted_tokens) == (3, 2)
        assert (posted.held_nano_usd, posted.steps, posted.model_calls) == (0, 1, 1)

    def test_takes_all_lines_or_none(self, store: Store) -> None:
        """A refusal by the last line leaves the first as it was."""
        to = charging(shared=Limits(cost_nano_usd=CENT - 1))
        reply = store.execute(reserve("h", to))

        assert _verdict(reply) is Verdict.DENY
        assert (
            store.execute(ReadAccount(account="default/session/session_id=s")) is None
        )

    def test_admits_up_to_the_limit_exactly(self, store: Store) -> None:
        """A call that fills a budget to the last nano-dollar is admitted."""
        to = charging(limits=Limits(cost_nano_usd=2 * CENT))
        for hold_id in ("1", "2"):
            assert _verdict(store.execute(reserve(hold_id, to))) is Verdict.ALLOW
            store.execute(settle(hold_id, to))
        free = store.execute(reserve("3", to, cost=0))
        one_more = store.execute(reserve("4", to, cost=1))

        assert _verdict(free) is Verdict.ALLOW
        assert _verdict(one_more) is Verdict.DENY

    def test_waits_while_only_open_holds_are_in_the_way(self, store: Store) -> None:
        """WAIT decides nothing: once the hold settles low, the call fits."""
        to = charging(limits=Limits(cost_nano_usd=CENT))
        store.execute(reserve("1", to))
        waiting = store.execute(reserve("2", to))
        store.execute(settle("1", to, cost=0))
        admitted = store.execute(reserve("2", to))

        assert _verdict(waiting) is Verdict.WAIT
        assert _verdict(admitted) is Verdict.ALLOW

    def test_names_the_first_account_that_has_a_call_wait(self, store: Store) -> None:
        """In the order of the lines; one that refuses for good comes before it."""
        limit = Limits(cost_nano_usd=CENT)
        to = charging(limits=limit, shared=limit)
        store.execute(reserve("1", to))
        waiting = store.execute(reserve("2", to))
        lower = charging(limits=limit, shared=Limits(cost_nano_usd=1))
        denied = store.execute(reserve("3", lower))

        assert _verdict(waiting) is Verdict.WAIT
        assert _verdict(denied) is Verdict.DENY
        for reply, scope in ((waiting, "session"), (denied, "customer_id=acme")):
            assert isinstance(reply, Reserved)
            assert reply.refusal is not None
            assert reply.refusal.line.scope == scope

    def test_a_stop_is_sticky_until_the_limit_is_raised(self, store: Store) -> None:
        """After a DENY even a free call is refused; raising lifts the stop."""
        to = charging(limits=Limits(cost_nano_usd=CENT))
        first = store.execute(reserve("1", to, cost=CENT + 1))
        again = store.execute(reserve("2", to, cost=0))
        store.execute(
            RaiseLimits(
                account="default/session/session_id=s",
                limits=Limits(cost_nano_usd=2 * CENT),
                now_ms=NOW_MS,
            )
        )
        raised = store.execute(reserve("3", to, cost=CENT + 1))

        assert isinstance(first, Reserved)
        assert first.new_stop is not None
        assert first.new_stop.reason is StopReason.BUDGET_EXCEEDED
        assert first.new_stop.measure is Measure.COST
        assert isinstance(again, Reserved)
        assert again.new_stop is None
        assert again.verdict is Verdict.DENY
        assert _verdict(raised) is Verdict.ALLOW

    def test_a_shared_budget_stops_no_session(self, store: Store) -> None:
        """What a shared account refuses is refused; the session lives on."""
        to = charging(shared=Limits(cost_nano_usd=CENT))
        denied = store.execute(reserve("1", to, cost=CENT + 1))
        smaller = store.execute(reserve("2", to))

        assert isinstance(denied, Reserved)
        assert denied.new_stop is None
        assert denied.verdict is Verdict.DENY
        assert _verdict(smaller) is Verdict.ALLOW

    def test_a_refusal_counts_the_steps_of_the_session_that_asks(
        self, store: Store
    ) -> None:
        """Whatever others have done in the shared budget that refuses."""
        limit = Limits(cost_nano_usd=2 * CENT)
        for number in range(2):
            store.execute(reserve(str(number), charging(shared=limit)))
        own = charging(session="other", shared=limit)
        waiting = store.execute(reserve("2", own))
        denied = store.execute(reserve("3", own, cost=2 * CENT + 1))

        for reply in (waiting, denied):
            assert isinstance(reply, Reserved)
            assert reply.refusal is not None
            assert reply.refusal.steps == 0

    def test_counts_one_reservation_once(self, store: Store) -> None:
        """The same id with the same content has its effect once."""
        to = charging()
        for _ in range(3):
            assert _verdict(store.execute(reserve("h", to))) is Verdict.ALLOW
        for _ in range(3):
            store.execute(settle("h", to))
        replayed = store.execute(settle("h", to))
        account = _account(store)

        assert isinstance(replayed, Settled)
        assert not replayed.is_applied
        assert (account.steps, account.posted_nano_usd) == (1, CENT)
        assert account.held_nano_usd == 0

    def test_refuses_one_id_with_two_contents(self, store: Store) -> None:
        """Other content under a known id is a conflict and has no effect."""
        to = charging()
        store.execute(reserve("h", to))
        before = _account(store)
        reply = store.execute(reserve("h", to, cost=2 * CENT))
        other = store.execute(settle("h", charging(session="other")))

        assert isinstance(reply, Conflict)
        assert isinstance(other, Conflict)
        assert _account(store) == before

    def test_a_turn_books_first_and_then_reserves(self, store: Store) -> None:
        """What was booked below its bound leaves room for the next call."""
        to = charging(limits=Limits(cost_nano_usd=2 * CENT))
        store.execute(reserve("1", to, cost=2 * CENT))
        reply = store.execute(
            Turn(settle=settle("1", to), reserve=reserve("2", to, cost=CENT))
        )
        again = store.execute(
            Turn(settle=settle("1", to), reserve=reserve("3", to, cost=CENT))
        )
        account = _account(store)

        assert isinstance(reply.settled, Settled)
        assert isinstance(again.settled, Settled)
        assert (reply.settled.is_applied, again.settled.is_applied) == (True, False)
        assert _verdict(reply.reserved) is Verdict.ALLOW
        assert _verdict(again.reserved) is Verdict.WAIT
        assert (account.posted_nano_usd, account.held_nano_usd) == (CENT, CENT)
        assert account.steps == 2

    def test_a_turn_may_go_on_in_another_session(self, store: Store) -> None:
        """Each half is charged to its own accounts."""
        one, other = charging(session="one"), charging(session="other")
        store.execute(reserve("1", one))
        store.execute(Turn(settle=settle("1", one), reserve=reserve("2", other)))

        assert _account(store, "default/session/session_id=one").held_nano_usd == 0
        assert _account(store, "default/session/session_id=other").steps == 1
        events = store.history.events(project_id="default", session_id="one", limit=9)
        assert [event.event_id for event in events] == ["1"]

    def test_release_gives_all_back(self, store: Store) -> None:
        """A call that was never sent leaves no amount and no step."""
        to = charging()
        store.execute(reserve("h", to))
        assert store.execute(
            Release(hold_id="h", account="default/session/session_id=s", now_ms=NOW_MS)
        ).is_applied
        assert not store.execute(
            Release(hold_id="h", account="default/session/session_id=s", now_ms=NOW_MS)
        ).is_applied
        account = _account(store)

        assert (account.held_nano_usd, account.held_tokens, account.steps) == (0, 0, 0)

    def test_what_was_given_back_admits_no_call(self, store: Store) -> None:
        """Its id would be a way past every limit: nothing is held for it any more."""
        to = charging(limits=Limits(cost_nano_usd=CENT))
        key = "default/session/session_id=s"
        store.execute(reserve("h", to))
        store.execute(Release(hold_id="h", account=key, now_ms=NOW_MS))
        store.execute(reserve("other", to))
        again = store.execute(reserve("h", to, now_ms=NOW_MS + 1))
        account = _account(store)

        assert again == Conflict(hold_id="h")
        assert (account.held_nano_usd, account.steps) == (CENT, 1)

    def test_an_expired_hold_is_charged_until_it_settles(self, store: Store) -> None:
        """Its owner may have spent it, so it goes on counting; late is not lost."""
        to = charging(limits=Limits(cost_nano_usd=CENT))
        store.execute(reserve("h", to))
        swept = store.execute(Sweep(now_ms=NOW_MS + 1_000))
        unconfirmed = _account(store)
        denied = store.execute(reserve("2", charging(session="s"), cost=0))
        late = store.execute(settle("h", to, cost=7))
        account = _account(store)

        assert swept.unconfirmed == 1
        assert (unconfirmed.held_nano_usd, unconfirmed.unconfirmed_nano_usd) == (
            0,
            CENT,
        )
        assert _verdict(denied) is Verdict.ALLOW
        assert isinstance(late, Settled)
        assert late.is_late
        assert late.is_applied
        assert (account.posted_nano_usd, account.unconfirmed_nano_usd) == (7, 0)

    def test_an_unconfirmed_amount_denies(self, store: Store) -> None:
        """What may be spent is no reason to wait."""
        to = charging(limits=Limits(cost_nano_usd=CENT))
        store.execute(reserve("h", to))
        store.execute(Sweep(now_ms=NOW_MS + 1_000))

        assert _verdict(store.execute(reserve("2", to))) is Verdict.DENY

    def test_settles_the_truth_above_the_reservation(self, store: Store) -> None:
        """What is spent is spent: it is booked, and the session ends."""
        to = charging(limits=Limits(cost_nano_usd=CENT))
        store.execute(reserve("h", to))
        reply = store.execute(settle("h", to, cost=3 * CENT))
        after = store.execute(reserve("2", to, cost=0))

        assert _account(store).posted_nano_usd == 3 * CENT
        assert isinstance(reply, Settled)
        assert reply.new_stop is not None
        assert _verdict(after) is Verdict.DENY

    def test_books_a_settlement_whose_hold_is_lost(self, store: Store) -> None:
        """A settlement names all that it needs."""
        reply = store.execute(settle("gone", charging()))
        account = _account(store)

        assert isinstance(reply, Settled)
        assert reply.is_late
        assert reply.is_applied
        assert (account.posted_nano_usd, account.steps) == (CENT, 1)

    def test_tells_each_threshold_once(self, store: Store) -> None:
        """Only the settle that crosses it is told, also when it is replayed."""
        point = Threshold(measure=Measure.COST, value=CENT + 1, label="soft")
        to = charging(thresholds=(point,))
        replies: list[Settled | Conflict] = []
        for number in range(4):
            store.execute(reserve(str(number), to))
            replies.append(store.execute(settle(str(number), to)))
        replies.append(store.execute(settle("1", to)))
        told = [len(reply.crossings) for reply in replies if isinstance(reply, Settled)]

        assert told == [0, 1, 0, 0, 0]

    def test_tells_a_threshold_that_comes_to_lie_below_what_is_posted(
        self, store: Store
    ) -> None:
        """As a limit is lowered: by the next call, once, in whichever process."""
        high, low = (
            charging(
                thresholds=(Threshold(measure=Measure.COST, value=value, label="soft"),)
            )
            for value in (9 * CENT, CENT)
        )
        told: list[int] = []
        for number, to in enumerate((high, high, low, low, high)):
            reserved = store.execute(reserve(str(number), to))
            settled = store.execute(settle(str(number), to))
            assert isinstance(reserved, Reserved)
            assert isinstance(settled, Settled)
            told += [len(reserved.crossings), len(settled.crossings)]

        assert told == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]

    def test_limits_steps_and_calls_by_kind(self, store: Store) -> None:
        """Steps count both kinds, the other limits one each."""
        to = charging(limits=Limits(steps=3, model_calls=1))
        kinds = (CallKind.MODEL, CallKind.TOOL, CallKind.TOOL, CallKind.TOOL)
        verdicts = [
            _verdict(store.execute(reserve(str(i), to, kind=kind)))
            for i, kind in enumerate(kinds)
        ]
        other = charging(session="t", limits=Limits(model_calls=1))
        store.execute(reserve("m1", other))
        second = store.execute(reserve("m2", other))

        assert verdicts == [*[Verdict.ALLOW] * 3, Verdict.DENY]
        assert isinstance(second, Reserved)
        assert second.new_stop is not None
        assert second.new_stop.measure is Measure.MODEL_CALLS

    def test_limits_tokens(self, store: Store) -> None:
        """Tokens are held and posted like money."""
        to = charging(limits=Limits(tokens=25))
        store.execute(reserve("1", to))
        store.execute(reserve("2", to))
        waiting = store.execute(reserve("3", to))
        store.execute(settle("1", to, tokens=10))
        store.execute(settle("2", to, tokens=10))

        assert _verdict(waiting) is Verdict.WAIT
        assert _verdict(store.execute(reserve("3", to))) is Verdict.DENY

    def test_counts_in_a_window_that_is_over_by_the_clock_of_the_store(
        self, store: Store
    ) -> None:
        """Which window it is, says the caller's clock, however far it is behind."""
        to = charging(shared=Limits(cost_nano_usd=CENT))
        until_ms = LONG_AGO_MS + 86_400_000
        shared = replace(to.lines[1], expires_at_ms=until_ms)
        to = replace(to, lines=(to.lines[0], shared))
        store.execute(reserve("1", to, now_ms=LONG_AGO_MS))
        store.execute(settle("1", to, now_ms=LONG_AGO_MS))

        refused = store.execute(reserve("2", to, now_ms=until_ms - 1))
        assert _verdict(refused) is Verdict.DENY

    def test_adds_active_time_and_no_waiting(self, store: Store) -> None:
        """Overlapping reports count once; the time between two runs does not."""
        to = charging(limits=Limits(wall_time_ms=5_000))
        store.execute(reserve("1", to, now_ms=NOW_MS, active_ms=1_000))
        store.execute(settle("1", to, now_ms=NOW_MS + 1_000, active_ms=2_000))
        store.execute(
            Close(
                account="default/session/session_id=s",
                now_ms=NOW_MS + 1_500,
                active_ms=2_500,
            )
        )
        later = NOW_MS + 3_600_000
        admitted = store.execute(reserve("2", to, now_ms=later, active_ms=500))
        session = _account(store).session
        denied = store.execute(reserve("3", to, now_ms=later + 2_000, active_ms=2_500))

        assert _verdict(admitted) is Verdict.ALLOW
        assert session is not None
        assert session.active_ms == 3_000
        assert isinstance(denied, Reserved)
        assert denied.new_stop is not None
        assert denied.new_stop.measure is Measure.WALL_TIME

    def test_stops_and_resumes_by_hand(self, store: Store) -> None:
        """A session can be stopped before it begins, and taken up again."""
        to = charging()
        store.execute(
            StopSession(
                account="default/session/session_id=s",
                attribution=to.attribution,
                now_ms=NOW_MS,
                by="ops",
                note="invoice",
            )
        )
        denied = store.execute(reserve("1", to))
        store.execute(Resume(account="default/session/session_id=s", now_ms=NOW_MS))

        assert isinstance(denied, Reserved)
        assert denied.refusal is not None
        stop = denied.refusal.stop
        assert stop is not None
        assert (stop.by, stop.note) == ("ops", "invoice")
        assert _verdict(store.execute(reserve("1", to))) is Verdict.ALLOW

    def test_a_stop_of_a_person_refuses_until_it_is_lifted(self, store: Store) -> None:
        """It ends no session, and calls in flight are booked."""
        to = charging()
        for number, target in enumerate(_TARGETS):
            store.execute(reserve(f"{number}", to))
            order = store.execute(_stop(target))
            reply = store.execute(
                Turn(settle=settle(f"{number}", to), reserve=reserve(f"{number}+", to))
            )
            assert isinstance(reply.settled, Settled)
            assert reply.settled.is_applied
            assert isinstance(reply.reserved, Reserved)
            assert reply.reserved.verdict is Verdict.DENY
            assert reply.reserved.new_stop is None
            assert reply.reserved.refusal is not None
            assert reply.reserved.refusal.order == order
            assert order == StopOrder(
                target=target, at_ms=NOW_MS, by="ops", note="invoice dispute"
            )
            assert store.execute(_resume(target)) == order
            lifted = store.execute(reserve(f"{number}+", to))
            assert _verdict(lifted) is Verdict.ALLOW
        assert _account(store).stop is None

    def test_a_stop_is_over_at_its_instant(self, store: Store) -> None:
        """The first instant of it refuses, the one named is free again."""
        to, until_ms = charging(), NOW_MS + 5_000
        session = StopTarget(kind=StopKind.SESSION, name="s")
        for target in (*_TARGETS, session):
            store.execute(_stop(target, until_ms=until_ms))
            early = store.execute(reserve("1", to, now_ms=until_ms - 1))
            assert _verdict(early) is Verdict.DENY
            listed = store.execute(_READ_STOPS)
            assert [order.target for order in listed] == [target]
            store.execute(_resume(target, now_ms=until_ms))
        for target in (*_TARGETS, session):
            store.execute(_stop(target, until_ms=until_ms))
        after = store.execute(ReadStops(project_id="default", now_ms=until_ms))
        late = store.execute(reserve("1", to, now_ms=until_ms))

        assert after == ()
        assert _verdict(late) is Verdict.ALLOW
        assert _account(store).stop is None

    def test_a_stop_hits_what_it_names(self, store: Store) -> None:
        """An agent wherever it is in the path, and nobody else's calls."""
        outer = charging()
        nested = replace(outer, attribution=outer.attribution.under("inner"))
        other = charging(session="other")
        who = Attribution.of(agent="b", customer_id="globex", session_id="other")
        other = replace(other, attribution=who)
        hits = {
            StopTarget(kind=StopKind.AGENT, name="a"): [False, False, True],
            StopTarget(kind=StopKind.AGENT, name="inner"): [True, False, True],
            StopTarget(kind=StopKind.AGENT, name="s"): [True, True, True],
            StopTarget(kind=StopKind.CUSTOMER, name="acme"): [False, False, True],
            StopTarget(kind=StopKind.CUSTOMER, name="a%2F/ä"): [True, True, True],
            StopTarget(kind=StopKind.SESSION, name="other"): [True, True, False],
            StopTarget(kind=StopKind.EVERYTHING): [False, False, False],
        }
        for number, (target, passes) in enumerate(hits.items()):
            store.execute(_stop(target, until_ms=NOW_MS + 1))
            replies = [
                store.execute(reserve(f"{number}/{index}", to))
                for index, to in enumerate((outer, nested, other))
            ]
            verdicts = [_verdict(reply) is Verdict.ALLOW for reply in replies]
            assert verdicts == passes, target
            assert [one.target for one in store.execute(_READ_STOPS)] == [target]
            store.execute(_resume(target))
        elsewhere = replace(_stop(_TARGETS[0]), project_id="elsewhere/%")
        store.execute(elsewhere)
        assert _verdict(store.execute(reserve("h", outer))) is Verdict.ALLOW

    def test_a_session_is_hit_by_the_stop_of_one_around_it(self, store: Store) -> None:
        """Also if that is stopped for a time only."""
        to = charging()
        around = replace(to.lines[0], account="default/session/session_id=around")
        to = replace(to, lines=(to.lines[0], around, *to.lines[1:]))
        target = StopTarget(kind=StopKind.SESSION, name="around")
        store.execute(_stop(target, until_ms=NOW_MS + 1))
        op = replace(reserve("h", to), active_ms=(0, 0))

        assert _verdict(store.execute(op)) is Verdict.DENY

    def test_the_longer_of_two_stops_counts(self, store: Store) -> None:
        """Neither a repeated order nor a shorter one changes anything."""
        target = _TARGETS[0]
        nine_ms = NOW_MS + 9
        ends = (NOW_MS + 5, nine_ms, nine_ms, NOW_MS + 7, None, None, nine_ms)
        orders = [
            store.execute(
                replace(_stop(target, until_ms=end), by=f"{n}", now_ms=NOW_MS + n)
            )
            for n, end in enumerate(ends)
        ]
        found = store.execute(ReadAudit(project_id="default", limit=9))

        in_force = [order and order.by for order in orders]
        assert in_force == ["0", "1", "1", "1", "4", "4", "4"]
        assert [entry.by for entry in found] == ["4", "1", "0"]

    def test_a_session_that_is_stopped_for_good_is_listed(self, store: Store) -> None:
        """Until it is resumed; a shorter stop of it changes nothing."""
        stop = StopSession(
            account=_SESSION,
            attribution=charging().attribution,
            now_ms=NOW_MS,
            by="ops",
            note="why",
        )
        store.execute(stop)
        target = StopTarget(kind=StopKind.SESSION, name="s")
        order = StopOrder(target=target, at_ms=NOW_MS, by="ops", note="why")
        listed = store.execute(_READ_STOPS)
        kept = store.execute(_stop(target, until_ms=NOW_MS + 5))
        denied = store.execute(reserve("1", charging(), now_ms=NOW_MS + 6))
        store.execute(Resume(account=_SESSION, now_ms=NOW_MS))

        assert (listed, kept) == ((order,), order)
        assert _verdict(denied) is Verdict.DENY
        assert store.execute(_READ_STOPS) == ()
        assert _verdict(store.execute(reserve("1", charging()))) is Verdict.ALLOW

    def test_many_stopped_sessions_keep_nobody_from_stopping_a_customer(
        self, store: Store
    ) -> None:
        """A session beyond the list's bound is stopped all the same.

        And of what people did the newest is kept.
        """
        who = charging().attribution
        for number in range(SESSIONS_LISTED_MAX + 1):
            account = f"default/session/session_id={number}"
            op = StopSession(account=account, attribution=who, now_ms=NOW_MS)
            assert store.execute(op).stop is not None
        order = store.execute(_stop(_TARGETS[1]))
        listed = store.execute(_READ_STOPS)

        audit = store.execute(ReadAudit(project_id="default", limit=2 * AUDIT_MAX))
        assert order in listed
        assert len(listed) == SESSIONS_LISTED_MAX + 1
        assert len(audit) == AUDIT_MAX
        assert audit[0].subject == "customer acme"

    def test_observing_a_stop_refuses_nothing(self, store: Store) -> None:
        """The reply says what would have refused."""
        order = store.execute(_stop(_TARGETS[0]))
        reply = store.execute(reserve("h", charging(is_enforced=False)))

        assert isinstance(reply, Reserved)
        assert reply.verdict is Verdict.ALLOW
        assert reply.refusal is not None
        assert reply.refusal.order == order
        assert _account(store).steps == 1

    def test_audits_what_people_did(self, store: Store) -> None:
        """Who, when, why and what, newest first; what had no effect is left out."""
        stop = StopSession(
            account=_SESSION,
            attribution=charging().attribution,
            now_ms=NOW_MS,
            by="ops",
            note="why",
        )
        limits, policy = Limits(steps=7), Limits(steps=5, tokens=1)
        raising = RaiseLimits(
            account=_SESSION, limits=limits, now_ms=NOW_MS + 2, by="b", policy=policy
        )
        resume = Resume(account=_SESSION, now_ms=NOW_MS + 1, by="c", note="n")
        ops: list[Operation[Any]] = [stop, stop, resume, resume, raising, raising]
        for op in (*ops, _stop(_TARGETS[1], until_ms=NOW_MS + 9)):
            store.execute(op)
        for op in (_resume(_TARGETS[1]), _resume(_TARGETS[0])):
            store.execute(op)
        found = store.execute(ReadAudit(project_id="default", limit=9))

        assert [(e.action, e.subject, e.at_ms, e.by, e.note) for e in found] == [
            (AuditAction.RESUME, "customer acme", NOW_MS, "ops", "paid"),
            (AuditAction.STOP, "customer acme", NOW_MS, "ops", "invoice dispute"),
            (AuditAction.RAISE, "session s", NOW_MS + 2, "b", None),
            (AuditAction.RESUME, "session s", NOW_MS + 1, "c", "n"),
            (AuditAction.STOP, "session s", NOW_MS, "ops", "why"),
        ]
        raised = found[2]
        assert found[1].until_ms == NOW_MS + 9
        assert (raised.policy, raised.raised_before) == (policy, None)
        assert raised.raised_after == limits
        assert store.execute(ReadAudit(project_id="default", limit=1)) == found[:1]
        assert store.execute(ReadAudit(project_id="other", limit=1)) == ()

    def test_audits_a_raise_that_only_lifts_a_stop(self, store: Store) -> None:
        """The limit is what it was, and a person has let the session go on."""
        limits = Limits(cost_nano_usd=2 * CENT)
        raising = RaiseLimits(account=_SESSION, limits=limits, now_ms=NOW_MS, by="ops")
        store.execute(raising)
        too_much = reserve("h", charging(limits=Limits(cost_nano_usd=1)), cost=3 * CENT)
        refused = store.execute(too_much)
        store.execute(raising)
        found = store.execute(ReadAudit(project_id="default", limit=9))

        assert _verdict(refused) is Verdict.DENY
        assert _account(store).stop is None
        assert [(e.raised_before, e.raised_after) for e in found] == [
            (limits, limits),
            (None, limits),
        ]

    def test_finds_a_loop_in_the_settle(self, store: Store) -> None:
        """The third identical call with an identical result ends the session."""
        to = charging(loop=LoopRule())
        trace = ToolTrace(tool="t", arguments_digest="a", result_digest="r")
        replies: list[Settled | Conflict] = []
        for number in range(3):
            store.execute(reserve(str(number), to, kind=CallKind.TOOL))
            replies.append(
                store.execute(settle(str(number), to, kind=CallKind.TOOL, trace=trace))
            )
        denied = store.execute(reserve("after", to))
        last = replies[-1]

        assert [r.new_stop for r in replies[:2] if isinstance(r, Settled)] == [None] * 2
        assert isinstance(last, Settled)
        assert last.new_stop is not None
        assert last.new_stop.finding is not None
        assert last.new_stop.finding.count == 3
        assert _verdict(denied) is Verdict.DENY

    def test_finds_a_round_of_calls_that_comes_again(self, store: Store) -> None:
        """The second round ends the session, and the stop says what was in it."""
        to = charging(loop=LoopRule())
        replies = _use_tools(store, to, "t/a/r", "u/b/r", "t/c/r", "t/a/r", "u/b/r")
        last = _use_tools(store, to, "t/c/r")[0]
        stop = _account(store).stop

        assert [reply.finding for reply in replies] == [None] * 5
        assert last.new_stop == stop
        assert stop is not None
        assert stop.finding == LoopFinding(
            kind=LoopKind.CYCLE,
            tool="t",
            arguments_digest="c",
            count=6,
            cost_nano_usd=6 * CENT,
            tools=("t", "u", "t"),
        )

    def test_finds_an_error_that_comes_again(self, store: Store) -> None:
        """Whatever the arguments; told once, as long as it goes on."""
        to = charging(loop=LoopRule(action=LoopAction.WARN, error_repeats=3))
        calls = [f"t/{number}/{FAILED}e" for number in range(5)]
        replies = _use_tools(store, to, *calls, f"u/5/{FAILED}e")
        replies += _use_tools(store, to, *[f"t/{number}/e" for number in range(4)])

        assert [reply.finding and reply.finding.count for reply in replies] == [
            *(None, None, 3, None, None),
            *(None, None, None, None, None),
        ]
        finding = replies[2].finding
        assert finding is not None
        assert (finding.kind, finding.tool) == (LoopKind.REPEATED_ERROR, "t")

    def test_tells_a_cycle_once(self, store: Store) -> None:
        """Wherever in the round the next call is, and again if it begins anew."""
        to = charging(loop=LoopRule(action=LoopAction.WARN))
        calls = ["t/a/r", "u/b/r"] * 4
        replies = _use_tools(store, to, *calls, "t/x/r", *calls)

        told = [n for n, reply in enumerate(replies) if reply.finding]
        assert told == [3, 9 + 3]

    def test_refuses_every_call_of_a_cycle(self, store: Store) -> None:
        """Leaving one out is no way out; another call is."""
        to = charging(loop=LoopRule(action=LoopAction.BLOCK, refusals=9))
        _use_tools(store, to, *["t/a/r", "u/b/r"] * 2)
        refused = [_ask(store, to, call) for call in ("t/a", "u/b", "u/a", "t/b")]
        _use_tools(store, to, "u/a/r")
        again = _ask(store, to, "t/a")

        assert [reply.verdict for reply in refused] == [
            *(Verdict.DENY, Verdict.DENY, Verdict.ALLOW, Verdict.ALLOW)
        ]
        assert again.verdict is Verdict.ALLOW

    def test_refuses_a_tool_that_fails_whatever_the_arguments(
        self, store: Store
    ) -> None:
        """Until another call has been made."""
        to = charging(loop=LoopRule(action=LoopAction.BLOCK, error_repeats=3))
        _use_tools(store, to, *[f"t/{number}/{FAILED}e" for number in range(3)])
        verdicts = [_ask(store, to, call).verdict for call in ("t/new", "u/new")]
        _use_tools(store, to, "u/new/r")

        assert verdicts == [Verdict.DENY, Verdict.ALLOW]
        assert _ask(store, to, "t/new").verdict is Verdict.ALLOW

    def test_looks_at_the_last_calls_only(self, store: Store) -> None:
        """What lies further back is no part of a loop."""
        rule = LoopRule(
            error_repeats=3, polling_repeats=4, within=4, action=LoopAction.BLOCK
        )
        to = charging(loop=rule)
        _use_tools(store, to, *["t/a/r"] * 6)
        refusal = _ask(store, to, "t/a").refusal

        assert refusal is not None
        assert refusal.finding is not None
        assert refusal.finding.count == 4

    def test_stops_who_goes_on_after_refusals(self, store: Store) -> None:
        """The refusals are counted in the store; the one too many stops, once."""
        to = charging(loop=LoopRule(action=LoopAction.BLOCK, refusals=2))
        _use_tools(store, to, *["t/a/r"] * 3)
        refused = [_ask(store, to, "t/a", hold_id=f"try{n}") for n in range(4)]
        finding = refused[0].refusal and refused[0].refusal.finding
        stop = _account(store).stop

        assert [reply.verdict for reply in refused] == [Verdict.DENY] * 4
        assert [reply.new_stop is None for reply in refused] == [
            True,
            True,
            False,
            True,
        ]
        assert finding is not None
        assert finding.count == 3
        assert stop == refused[2].new_stop
        assert stop is not None
        assert stop.finding == finding
        assert refused[3].refusal is not None
        assert refused[3].refusal.stop == stop

    def test_counts_a_refused_call_once(self, store: Store) -> None:
        """However often it asks: a reply may be lost, or a framework run it again."""
        to = charging(loop=LoopRule(action=LoopAction.BLOCK, refusals=1))
        _use_tools(store, to, *["t/a/r"] * 3)
        replies = [_ask(store, to, "t/a", hold_id="same") for _ in range(3)]

        assert [reply.new_stop for reply in replies] == [None] * 3
        assert _ask(store, to, "t/a", hold_id="other").new_stop is not None

    def test_forgets_refusals_once_another_call_was_made(self, store: Store) -> None:
        """Only an agent that goes on with the same loop is stopped."""
        to = charging(loop=LoopRule(action=LoopAction.BLOCK, refusals=1))
        for loop in range(3):
            _use_tools(store, to, *["t/a/r"] * 3)
            refused = _ask(store, to, "t/a", hold_id=f"try{loop}")
            _use_tools(store, to, "t/b/r")

            assert refused.verdict is Verdict.DENY
            assert refused.new_stop is None

    def test_forgets_refusals_when_a_session_is_resumed(self, store: Store) -> None:
        """With the loop: a person has decided."""
        to = charging(loop=LoopRule(action=LoopAction.BLOCK, refusals=1))
        _use_tools(store, to, *["t/a/r"] * 3)
        _ask(store, to, "t/a", hold_id="1")
        store.execute(Resume(account=_SESSION, now_ms=NOW_MS))

        assert _ask(store, to, "t/a", hold_id="2").verdict is Verdict.ALLOW

    def test_observing_counts_no_refusals(self, store: Store) -> None:
        """The call is made; what would have been refused is told."""
        rule = LoopRule(action=LoopAction.BLOCK, refusals=1)
        to = charging(loop=rule, is_enforced=False)
        _use_tools(store, to, *["t/a/r"] * 3)
        replies = [_ask(store, to, "t/a", hold_id=f"try{n}") for n in range(3)]

        assert [reply.verdict for reply in replies] == [Verdict.ALLOW] * 3
        assert all(reply.refusal and reply.refusal.finding for reply in replies)
        enforced = charging(loop=rule)
        assert _ask(store, enforced, "t/a", hold_id="first").new_stop is None

    def test_observes_without_refusing(self, store: Store) -> None:
        """Unenforced, everything is recorded and nothing is refused."""
        to = charging(limits=Limits(steps=1), is_enforced=False)
        store.execute(reserve("1", to))
        reply = store.execute(reserve("2", to))

        assert isinstance(reply, Reserved)
        assert reply.verdict is Verdict.ALLOW
        assert reply.refusal is not None
        assert reply.new_stop is None
        assert _account(store).stop is None

    def test_knows_finished_holds_for_their_retention(self, store: Store) -> None:
        """A day later, and swept meanwhile, a settlement still counts once.

        What was given back admits no call until then, either.
        """
        to = charging()
        for hold_id in ("h", "unsent"):
            store.execute(reserve(hold_id, to))
        store.execute(settle("h", to))
        store.execute(Release(hold_id="unsent", account=_SESSION, now_ms=NOW_MS))
        later_ms = NOW_MS + SETTLED_RETENTION_MS - 1
        store.execute(Sweep(now_ms=later_ms))
        again = store.execute(settle("h", to, now_ms=later_ms))
        unsent = store.execute(reserve("unsent", to, now_ms=later_ms))

        assert unsent == Conflict(hold_id="unsent")
        assert isinstance(again, Settled)
        assert not again.is_applied
        assert _account(store).posted_nano_usd == CENT

    def test_history_adds_up_to_the_accounts(self, store: Store) -> None:
        """Events, sums by dimension and account totals are the same money."""
        to = charging()
        for number in range(5):
            kind = CallKind.MODEL if number % 2 else CallKind.TOOL
            store.execute(reserve(str(number), to, kind=kind))
            store.execute(settle(str(number), to, kind=kind, cost=number))
        span: dict[str, Any] = {
            "project_id": "default",
            "since_ms": NOW_MS,
            "until_ms": NOW_MS,
        }
        history = store.history
        events = history.events(project_id="default", session_id="s", limit=10)
        sums = {
            by: sum(spend.total_nano_usd for spend in history.spend(by=by, **span))
            for by in ("session_id", "agent", "customer_id", "user_id", "project_id")
        }
        tools, models = (
            history.spend(by="tool", **span),
            history.spend(by="model", **span),
        )

        assert set(sums.values()) == {10}
        assert sum(event.charge.cost_nano_usd or 0 for event in events) == 10
        assert [spend.tool_calls for spend in tools] == [3]
        assert [
            (spend.latency_ms, spend.bytes_in, spend.bytes_out) for spend in tools
        ] == [(3 * LATENCY_MS, 3 * BYTES_IN, 3 * BYTES_OUT)]
        assert [spend.model_calls for spend in models] == [2]
        assert _account(store).posted_nano_usd == 10

    def test_history_groups_by_any_names(self, store: Store) -> None:
        """Several dimensions, a filter, and steps of an hour."""
        hour_ms = NOW_MS // HOUR_MS * HOUR_MS
        for number, session in enumerate(("s-1", "s-1", "s-2", "t-1")):
            to = charging(session=session)
            kind = CallKind.TOOL if number == 1 else CallKind.MODEL
            now_ms = hour_ms + number * HOUR_MS
            store.execute(
                settle(str(number), to, kind=kind, cost=number + 1, now_ms=now_ms)
            )
        span: dict[str, Any] = {
            "project_id": "default",
            "since_ms": hour_ms,
            "until_ms": hour_ms + 3 * HOUR_MS,
        }

        found = store.history.spend(
            by=("session_id", "kind"), where={"session_id": ["s-*", "u"]}, **span
        )
        assert [(spend.names, spend.total_nano_usd) for spend in found] == [
            (("s-2", "model"), 3),
            (("s-1", "tool"), 2),
            (("s-1", "model"), 1),
        ]
        series = store.history.spend(
            by=(), where={"user_id": [""], "agent": ["a"]}, every="hour", **span
        )
        assert [(spend.since_ms, spend.total_nano_usd) for spend in series] == [
            (hour_ms + number * HOUR_MS, number + 1) for number in range(4)
        ]

    def test_history_adds_up_any_number_of_calls(self, store: Store) -> None:
        """Of several hours, sessions and layers, and whenever it is read."""
        span: dict[str, Any] = {
            "project_id": "default",
            "since_ms": NOW_MS,
            "until_ms": NOW_MS + 2 * HOUR_MS,
        }
        layer = Layer.PROMPT_USER
        sessions, hours = dict[str | None, int](), dict[int | None, int]()
        divided = 0
        for cost in range(1, 101):
            name, hour = f"s-{cost % 3}", cost % 2
            op = settle(
                str(cost),
                charging(session=name),
                cost=cost,
                now_ms=NOW_MS + hour * HOUR_MS,
            )
            if cost % 3 == 0:
                part = LayerPart(layer=layer, tokens=cost, cost_nano_usd=cost)
                op = replace(op, event=replace(op.event, layers=(part,)))
                divided += cost
            store.execute(op)
            start_ms = (NOW_MS // HOUR_MS + hour) * HOUR_MS
            sessions[name] = sessions.get(name, 0) + cost
            hours[start_ms] = hours.get(start_ms, 0) + cost
            if cost % 20:
                continue
            spends = store.history.spend(by="session_id", **span)
            assert {one.name: one.total_nano_usd for one in spends} == sessions
            spends = store.history.spend(by="agent", every="hour", **span)
            assert {one.since_ms: one.total_nano_usd for one in spends} == hours
            assert sum(one.model_calls for one in spends) == cost
            spends = store.history.spend(by="layer", **span)
            assert {one.name: one.input_tokens for one in spends}[
                layer.value
            ] == divided

    def test_history_yields_the_events_of_a_span_as_they_were_booked(
        self, store: Store
    ) -> None:
        """Of one project, and with both instants included."""
        for number in range(1_105):  # More than a page.
            to = charging(session=f"s-{number % 7}")
            store.execute(settle(str(number), to, now_ms=NOW_MS + number))
        found = store.history.timeline(
            project_id="default", since_ms=NOW_MS + 3, until_ms=NOW_MS + 1_101
        )

        assert [event.event_id for event in found] == [
            str(number) for number in range(3, 1_102)
        ]
        span = {"since_ms": 0, "until_ms": 2 * NOW_MS}
        assert not list(store.history.timeline(project_id="other", **span))

    def test_history_keeps_events_whole(self, store: Store) -> None:
        """An event comes back as it was booked."""
        to = charging()
        op = settle("h", to)
        store.execute(op)
        events = store.history.events(project_id="default", session_id="s", limit=10)

        assert list(events) == [op.event]

    def test_history_knows_the_events_of_a_session_by_any_name(
        self, store: Store
    ) -> None:
        """Whatever is in it, and although others have it in theirs."""
        names = ['say "hi"', "naïve 東京 🚀", "back\\slash", "acme", '["s"]']
        for number, name in enumerate(names):
            store.execute(settle(str(number), charging(session=name)))

        for number, name in enumerate(names):
            found = store.history.events(
                project_id="default", session_id=name, limit=10
            )
            assert [event.event_id for event in found] == [str(number)]

    def test_history_yields_pages_of_flat_events(self, store: Store) -> None:
        """All of a project, or of one of its sessions; each as its event says."""
        for number in range(2_105):  # More than a page of every store.
            to = charging(session=f"s-{number % 3}")
            kind = CallKind.TOOL if number % 2 else CallKind.MODEL
            store.execute(settle(str(number), to, kind=kind, now_ms=NOW_MS + number))
        history = store.history
        events = list(
            history.timeline(project_id="default", since_ms=0, until_ms=2 * NOW_MS)
        )
        pages = list(history.event_pages(project_id="default"))
        of_session = history.event_pages(
            project_id="default",
            session_id="s-1",
            since_ms=NOW_MS + 4,
            until_ms=NOW_MS + 1_000,
        )

        flat = [flat_event(event) for event in events]
        assert all(pages)
        assert [row for page in pages for row in page] == flat
        assert [row for page in of_session for row in page] == [
            row
            for row in flat
            if row.session_id == "s-1" and 4 <= row.time_ms - NOW_MS <= 1_000
        ]
        assert not list(history.event_pages(project_id="other"))

    def test_tells_nobody_where_nobody_wants_to_know(self, store: Store) -> None:
        """Without a place to tell it nothing is kept, nor what is not asked for."""
        nowhere = replace(_told_to(limits=Limits(cost_nano_usd=CENT)), telling=None)
        for_loops = replace(nowhere, telling=replace(TELLING, kinds=(AlertKind.LOOP,)))
        for number, plan in enumerate((nowhere, for_loops)):
            own = _halfway(plan.lines[0], f"{number}")
            to = replace(plan, lines=(own, *plan.lines[1:]))
            store.execute(reserve(f"{number}", to))
            store.execute(settle(f"{number}", to))
            store.execute(reserve(f"{number}+", to))
        assert not _told(store)

    def test_tells_each_threshold_and_level_once(self, store: Store) -> None:
        """A repeated settlement tells nothing; a raised limit has thresholds again."""
        to = _told_to(limits=Limits(cost_nano_usd=2 * CENT))
        to = replace(to, lines=(_halfway(to.lines[0]), *to.lines[1:]))
        for hold_id in ("1", "1"):
            store.execute(reserve(hold_id, to))
            store.execute(settle(hold_id, to))
        [first] = _told(store, 1)
        raised = Limits(cost_nano_usd=6 * CENT)
        store.execute(RaiseLimits(account=_SESSION, limits=raised, now_ms=NOW_MS))
        for hold_id in ("2", "3"):
            store.execute(reserve(hold_id, to))
            store.execute(settle(hold_id, to, now_ms=NOW_MS + 1))
        second, _ = _told(store, 2)

        assert first.alert.kind is AlertKind.SOFT
        assert (first.alert.used, first.alert.limit) == (CENT, 2 * CENT)
        assert (first.alert.threshold, first.alert.steps) == ("half", 1)
        assert first.alert.attribution == to.attribution
        assert (second.alert.used, second.alert.limit) == (3 * CENT, 6 * CENT)
        assert first.alert.alert_id != second.alert.alert_id
        assert [one.place for one in first.deliveries] == list(PLACES)
        assert {one.state for one in first.deliveries} == {DeliveryState.WAITING}

    def test_tells_the_stop_of_a_session_once(self, store: Store) -> None:
        """By a limit that refuses, or that a settlement has passed."""
        to = _told_to(limits=Limits(cost_nano_usd=CENT))
        for hold_id in ("1", "2", "2", "3"):
            store.execute(reserve(hold_id, to, cost=2 * CENT))
        delivered = store.execute(_claim())
        store.execute(_note(delivered))
        store.execute(Resume(account=_SESSION, now_ms=NOW_MS))
        store.execute(reserve("4", to, cost=2 * CENT))
        assert store.execute(_claim()) == Claimed(), "of this level it was told"
        over = _told_to(session="over", limits=Limits(tokens=5))
        store.execute(settle("o", over, tokens=9, now_ms=NOW_MS + 1))
        store.execute(settle("p", over, tokens=9, now_ms=NOW_MS + 1))

        later, refused = [log.alert for log in _told(store, 2)]
        assert (refused.kind, refused.reason) == (
            AlertKind.STOP,
            StopReason.BUDGET_EXCEEDED,
        )
        assert (refused.used, refused.limit, refused.needed) == (0, CENT, 2 * CENT)
        assert (later.measure, later.used, later.steps) == (Measure.TOKENS, 9, 1)
        assert later.attribution == over.attribution

    def test_tells_once_that_a_shared_budget_refuses(self, store: Store) -> None:
        """Whoever is refused there, until its limit is raised and reached again."""
        limit = Limits(steps=1)
        for number in range(3):
            one = _told_to(session=f"{number}", shared=limit)
            store.execute(reserve(f"{number}", one))
        to = _told_to(session="later", shared=limit)
        shared = to.lines[1].account
        assert _account(store, shared).alerted == ("reached max_steps",)
        raise_it = RaiseLimits(account=shared, limits=Limits(steps=2), now_ms=NOW_MS)
        store.execute(raise_it)
        for number in range(3):
            store.execute(reserve(f"{number}+", to, now_ms=NOW_MS + 1))

        second, first = [log.alert for log in _told(store, 2)]
        assert (first.kind, first.scope) == (AlertKind.LIMIT, "customer_id=acme")
        assert (first.measure, first.used, first.limit) == (Measure.STEPS, 1, 1)
        assert first.attribution is not None
        assert first.attribution.session_id == "1"
        assert (second.used, second.limit) == (2, 2)
        assert not first.is_session

    def test_tells_nobody_that_a_shared_budget_makes_calls_wait(
        self, store: Store
    ) -> None:
        """It may refuse nobody once open holds settle."""
        to = _told_to(shared=Limits(cost_nano_usd=CENT))
        store.execute(reserve("1", to))
        assert _verdict(store.execute(reserve("2", to))) is Verdict.WAIT
        assert not _told(store)

    def test_tells_of_a_loop_or_of_the_stop_that_it_leads_to(
        self, store: Store
    ) -> None:
        """And of another run of repetitions again."""
        rule = LoopRule(repeats=2, polling_repeats=4, within=8)
        warning = _told_to(loop=replace(rule, action=LoopAction.WARN))
        for number, result in enumerate("aaabb"):
            trace = ToolTrace(tool="t", arguments_digest="x", result_digest=result)
            op = settle(
                f"{number}",
                warning,
                kind=CallKind.TOOL,
                trace=trace,
                now_ms=NOW_MS + number,
            )
            store.execute(op)
            store.execute(op)
        third, second, first = [log.alert for log in _told(store, 3)]
        found = (first, second, third)
        assert {one.kind for one in found} == {AlertKind.LOOP}
        assert [one.finding and one.finding.kind for one in found] == [
            LoopKind.IDENTICAL,
            LoopKind.POLLING,
            LoopKind.IDENTICAL,
        ]
        assert len({one.alert_id for one in found}) == 3

        stopping = _told_to(session="stopped", loop=rule)
        for number in range(3):
            trace = ToolTrace(tool="t", arguments_digest="x", result_digest="a")
            hold_id, now_ms = f"s{number}", NOW_MS + 100 + number
            store.execute(
                settle(
                    hold_id, stopping, kind=CallKind.TOOL, trace=trace, now_ms=now_ms
                )
            )
        stop, *others = [log.alert for log in _told(store, 4)]
        assert others == [third, second, first]
        assert (stop.kind, stop.reason) == (AlertKind.STOP, StopReason.LOOP_DETECTED)
        assert stop.finding is not None
        assert stop.finding.count == 2

    def test_tells_what_people_stop_and_raise(self, store: Store) -> None:
        """What changes nothing tells nothing."""
        to = charging()
        store.execute(reserve("1", to))
        stop = StopSession(
            account=_SESSION,
            attribution=Attribution(session_id="s"),
            now_ms=NOW_MS,
            by="ops",
            telling=TELLING,
        )
        raising = RaiseLimits(
            account=_SESSION,
            limits=Limits(steps=9),
            now_ms=NOW_MS + 1,
            by="ann",
            telling=TELLING,
        )
        customer = replace(
            _stop(_TARGETS[1], until_ms=NOW_MS + 9_000),
            now_ms=NOW_MS + 2,
            telling=TELLING,
        )
        unknown = "default/session/session_id=%C3%A9t%C3%A9"
        before = replace(raising, account=unknown, now_ms=NOW_MS + 3)
        again = replace(stop, now_ms=NOW_MS + 50)
        ops: list[Operation[Any]] = [stop, raising, customer, again, raising, customer]
        for op in (*ops, before):
            store.execute(op)

        early, scope, raised, killed = [log.alert for log in _told(store, 4)]
        assert (killed.kind, killed.reason, killed.by) == (
            AlertKind.STOP,
            StopReason.KILLED,
            "ops",
        )
        assert killed.attribution == to.attribution, "as the account knows it"
        assert killed.steps == raised.steps == 1
        assert (raised.kind, raised.by) == (AlertKind.RAISED, "ann")
        assert raised.raised == Limits(steps=9)
        assert (scope.scope, scope.until_ms) == ("customer acme", NOW_MS + 9_000)
        assert scope.attribution == Attribution(customer_id="acme")
        read = ReadAlerts(project_id="default", limit=1)
        assert [log.alert for log in store.execute(read)] == [early]
        assert early.attribution == Attribution(session_id="été")
        assert early.steps is None

    def test_adds_what_a_watch_tells_once(self, store: Store) -> None:
        """However many watch, and with all of its content; it is then sent."""
        told = watched_alerts("default", now_ms=NOW_MS)
        tell = TellAlerts(project_id="default", alerts=told, places=PLACES)
        ids = tuple(alert.alert_id for alert in told)
        again = replace(tell, alerts=(*told, replace(told[0], alert_id="another")))

        assert store.execute(tell) == ids
        assert store.execute(tell) == ()
        assert store.execute(again) == ("another",)
        kept = {log.alert.alert_id: log.alert for log in _told(store, 5)}
        for alert in told:
            assert kept[alert.alert_id] == alert
        assert len(store.execute(replace(_claim(), singles_max=0)).alerts) == 5
        nothing = replace(tell, alerts=())
        assert store.execute(nothing) == ()

    def test_gives_out_few_alerts_one_by_one(self, store: Store) -> None:
        """To one owner at a time, and no faster than a place may be told."""
        _tell(store, 2)
        oldest, _ = [log.alert for log in reversed(_told(store, 2))]
        first = store.execute(_claim())
        assert first.alerts
        busy = store.execute(_claim(owner="b"))
        store.execute(_note(first, due_ms=NOW_MS + 1_000))
        early = store.execute(_claim(owner="b", now_ms=NOW_MS + 999))
        second = store.execute(_claim(owner="b", now_ms=NOW_MS + 1_000))
        store.execute(_note(second, owner="b", now_ms=NOW_MS + 1_001))
        nothing = store.execute(_claim(now_ms=NOW_MS + 2_000))

        assert (first.alerts, first.message_id) == ((oldest,), oldest.alert_id)
        assert busy == Claimed(next_ms=NOW_MS + LEASE_MS)
        assert early == Claimed(next_ms=NOW_MS + 1_000)
        assert len(second.alerts) == 1
        assert second.alerts != first.alerts
        assert nothing == Claimed()
        other = store.execute(_claim(place=PLACES[1]))
        assert other.alerts == (oldest,), "each place is told by itself"

    def test_gives_out_many_alerts_as_one_message(self, store: Store) -> None:
        """With a message's own id, under which it is given out until it arrived."""
        _tell(store, 4)
        digest = store.execute(_claim())
        _tell(store, 1, first=4)
        failed = _note(digest, state=DeliveryState.SENDING, due_ms=NOW_MS + 9_000)
        assert store.execute(failed) == 4
        again = store.execute(_claim(owner="b", now_ms=NOW_MS + 9_000))
        store.execute(
            _note(again, owner="b", now_ms=NOW_MS + 9_001, rest_ms=NOW_MS + 19_000)
        )
        late = store.execute(
            _note(digest, state=DeliveryState.DEAD, rest_ms=NOW_MS + 19_000)
        )
        resting = store.execute(_claim(now_ms=NOW_MS + 9_002))
        ending = replace(_claim(now_ms=NOW_MS + 9_002), is_last=True)
        last = store.execute(ending)

        assert resting == Claimed(next_ms=NOW_MS + 19_000)
        assert len(digest.alerts) == 4
        assert digest.message_id not in [one.alert_id for one in digest.alerts]
        assert replace(again, failures=0) == digest
        assert again.failures == 1
        assert late == 0, "what was delivered stays so"
        assert len(last.alerts) == 1
        states = {log.deliveries[0].state for log in _told(store)}
        assert states == {DeliveryState.DELIVERED, DeliveryState.SENDING}

    def test_gives_a_message_out_again_when_its_owner_is_gone(
        self, store: Store
    ) -> None:
        """After its claim, unchanged; what it notes then counts all the same."""
        _tell(store, 1)
        first = store.execute(_claim())
        later_ms = NOW_MS + LEASE_MS
        second = store.execute(_claim(owner="b", now_ms=later_ms))
        store.execute(_note(first, now_ms=later_ms + 1))
        busy = store.execute(_claim(owner="c", now_ms=later_ms + 2))

        assert second == first
        assert busy == Claimed(), "nothing waits"
        _tell(store, 1, first=1)
        busy = store.execute(_claim(owner="c", now_ms=later_ms + 2))
        assert busy == Claimed(next_ms=later_ms + LEASE_MS), "it is still b's"

    def test_holds_back_what_repeats_a_delivered_alert(self, store: Store) -> None:
        """For a while; then all of it passes."""
        for number in range(3):
            _kill(store, now_ms=NOW_MS + number)
            if not number:
                first = store.execute(_claim())
                store.execute(_note(first, cooldown_ms=900_000))
        early = store.execute(_claim(now_ms=NOW_MS + 10))
        passing = store.execute(_claim(now_ms=NOW_MS + 900_000))

        assert early == Claimed(next_ms=NOW_MS + 900_000)
        assert len(passing.alerts) == 1
        store.execute(_note(passing, now_ms=NOW_MS + 900_000, cooldown_ms=900_000))
        last = store.execute(_claim(now_ms=NOW_MS + 900_001))
        assert len(last.alerts) == 1
        assert last.alerts != passing.alerts
        store.execute(_note(last, now_ms=NOW_MS + 900_001))
        _kill(store, now_ms=NOW_MS + 900_002)
        again = store.execute(_claim(now_ms=NOW_MS + 900_002))
        assert again.next_ms == NOW_MS + 1_800_000
        held = store.execute(_claim(now_ms=NOW_MS + 1_800_000))
        store.execute(_note(held, now_ms=NOW_MS + 1_800_000))
        _kill(store, now_ms=NOW_MS + 2_800_000)
        assert store.execute(_claim(now_ms=NOW_MS + 2_800_000)).alerts

    def test_a_clock_that_is_days_ahead_silences_nobody(self, store: Store) -> None:
        """Neither by what it claims, nor by what it told, sent or failed to send."""
        ahead_ms = NOW_MS + 5 * 86_400_000
        _kill(store, now_ms=NOW_MS + 3_600_000)
        told = store.execute(_claim())
        theirs = store.execute(_claim(owner="b", now_ms=ahead_ms))
        ours = store.execute(_claim())
        theirs_sent = _note(
            theirs,
            owner="b",
            now_ms=ahead_ms,
            due_ms=ahead_ms + 1_000,
            rest_ms=ahead_ms + 10_000,
            cooldown_ms=900_000,
        )
        for op in (theirs_sent, replace(theirs_sent, owner="a")):
            store.execute(op)
        _kill(store, now_ms=ahead_ms + 1)
        second = store.execute(_claim(now_ms=NOW_MS + 1))
        failed = _note(second, state=DeliveryState.SENDING)
        due_ms = ahead_ms + 3_600_000
        store.execute(replace(failed, now_ms=ahead_ms, due_ms=due_ms))
        again = store.execute(_claim(owner="b", now_ms=NOW_MS + 2))
        due_ms = NOW_MS + 9_000
        store.execute(replace(failed, owner="b", now_ms=NOW_MS + 2, due_ms=due_ms))
        early = store.execute(_claim(now_ms=NOW_MS + 8_999))

        assert len(told.alerts) == 1
        assert ours == theirs == told
        assert len(second.alerts) == 1
        assert second.alerts != theirs.alerts
        assert replace(again, failures=0) == second
        assert early == Claimed(next_ms=NOW_MS + 9_000), "others wait as they should"

    def test_counts_and_retries_what_was_given_up(self, store: Store) -> None:
        """Its log says so; a retry has it sent again at once."""
        _tell(store, 2)
        claimed = store.execute(_claim())
        gone = _note(
            claimed,
            state=DeliveryState.DEAD,
            status=404,
            text="no_service",
            due_ms=NOW_MS + 60_000,
        )
        store.execute(gone)
        assert len(claimed.alerts) == 1
        [alert] = claimed.alerts
        [log] = [log for log in _told(store) if log.alert == alert]
        dead = log.deliveries[0]
        unknown = RetryAlerts(project_id="default", now_ms=NOW_MS, alert_id="unknown")
        assert store.execute(unknown) == 0
        retry = replace(unknown, now_ms=NOW_MS + 5, alert_id=alert.alert_id)
        assert store.execute(retry) == 2, "it waits at the other place"
        other, again = (store.execute(_claim(now_ms=NOW_MS + 5)) for _ in "12")

        assert (dead.state, dead.status, dead.text) == (
            DeliveryState.DEAD,
            404,
            "no_service",
        )
        assert (dead.label, dead.attempts, dead.at_ms) == ("somewhere", 1, NOW_MS)
        assert dead.next_ms is None
        assert (other.lost, other.failures) == (1, 1)
        assert other == again
        store.execute(_note(other, now_ms=NOW_MS + 6, lost_told=1))
        last = store.execute(_claim(now_ms=NOW_MS + 7))
        assert (last.alerts, last.lost) == ((alert,), 0)
        everything = replace(unknown, alert_id=None)
        assert store.execute(everything) == 3, "all but what was delivered"

    def test_forgets_alerts_after_six_days(self, store: Store) -> None:
        """Sent or not."""
        _tell(store, 3)
        newest, *_ = _told(store, 3)
        store.execute(_note(store.execute(_claim())))
        store.execute(_claim(now_ms=NOW_MS - 1 + KEPT_MS))
        assert [log.alert for log in _told(store)] == [newest.alert]

    def test_one_secret_per_store(self, store: Store) -> None:
        """The key of fingerprints is random, long and stays."""
        assert len(store.secret()) >= 16
        assert store.secret() == store.secret()

    def test_threads_never_pass_the_limit(self, store: Store) -> None:
        """50 threads at one cent against 20 cents make exactly 20 calls."""
        assert self._race(store, _in_threads) == 20

    def test_tasks_never_pass_the_limit(self, store: Store) -> None:
        """50 tasks at one cent against 20 cents make exactly 20 calls."""

        async def work(number: int) -> bool:
            to = charging(limits=Limits(cost_nano_usd=20 * CENT))
            reply = await store.aexecute(reserve(f"h{number}", to))
            await asyncio.sleep(0)
            if _verdict(reply) is not Verdict.ALLOW:
                return False
            await store.aexecute(settle(f"h{number}", to))
            return True

        async def race() -> list[bool]:
            return await asyncio.gather(*(work(n) for n in range(WORKERS)))

        assert sum(asyncio.run(race())) == 20
        assert _account(store).posted_nano_usd == 20 * CENT

    def test_tasks_wait_for_no_thread_of_their_loop(self, store: Store) -> None:
        """The host may use all of them, also for what waits for the task."""

        async def main() -> Reserved | Conflict:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(1))

            def work() -> Reserved | Conflict:
                asked = store.aexecute(reserve("h", charging()))
                return asyncio.run_coroutine_threadsafe(asked, loop).result(timeout=5)

            return await asyncio.to_thread(work)

        assert _verdict(asyncio.run(main())) is Verdict.ALLOW

    def _race(
        self, store: Store, run: Callable[[Callable[[int], bool]], Sequence[bool]]
    ) -> int:
        to = charging(limits=Limits(cost_nano_usd=20 * CENT))

        def work(number: int) -> bool:
            reply = _answer(store, reserve(f"h{number}", to))
            if _verdict(reply) is not Verdict.ALLOW:
                return False
            _answer(store, settle(f"h{number}", to))
            return True

        calls = sum(run(work))
        assert _account(store).posted_nano_usd == calls * CENT
        return calls


PLACES = ("slack-1", "webhook-2")
TELLING = Telling(kinds=tuple(AlertKind), places=PLACES)
LEASE_MS = 30_000


def _told_to(**options: Any) -> Charging:
    return charging(telling=TELLING, **options)


def _halfway(line: Line, session: str = "s") -> Line:
    half = Threshold(
        measure=Measure.COST, value=CENT, ratio=Decimal("0.5"), label="half"
    )
    account = f"default/session/session_id={session}"
    return replace(line, account=account, thresholds=(half,))


def _told(store: Store, count: int | None = None) -> tuple[AlertLog, ...]:
    found = store.execute(ReadAlerts(project_id="default", limit=100))
    assert count is None or len(found) == count
    return found


def _tell(store: Store, count: int, *, first: int = 0) -> None:
    """Has alerts added, the n-th at the n-th millisecond from the start on."""
    for number in range(first, first + count):
        agent = StopTarget(kind=StopKind.AGENT, name=f"{number}")
        op = StopScope(
            project_id="default", target=agent, now_ms=NOW_MS, telling=TELLING
        )
        store.execute(replace(op, now_ms=NOW_MS + number - count + 1))


def _kill(store: Store, *, now_ms: int) -> None:
    """Stops a session and lets it go on."""
    to = charging()
    stop = StopSession(
        account=_SESSION, attribution=to.attribution, now_ms=now_ms, telling=TELLING
    )
    store.execute(stop)
    store.execute(Resume(account=_SESSION, now_ms=now_ms))


def _claim(
    *, place: str = PLACES[0], owner: str = "a", now_ms: int = NOW_MS
) -> ClaimAlerts:
    return ClaimAlerts(
        project_id="default",
        place=place,
        owner=owner,
        now_ms=now_ms,
        until_ms=now_ms + LEASE_MS,
        singles_max=3,
    )


def _note(claimed: Claimed, **changes: Any) -> NoteAlerts:
    op = NoteAlerts(
        project_id="default",
        place=PLACES[0],
        label="somewhere",
        owner="a",
        alert_ids=tuple([alert.alert_id for alert in claimed.alerts]),
        now_ms=NOW_MS,
        state=DeliveryState.DELIVERED,
        due_ms=NOW_MS,
        cooldown_ms=0,
        status=200,
    )
    return replace(op, **changes)


def _answer(store: Store, operation: Operation[R]) -> R:
    """Asks again if the store is late, as it may be if the machine is busy."""
    for _ in range(TRIES_MAX - 1):
        with contextlib.suppress(StoreUnavailable):
            return store.execute(operation)
    return store.execute(operation)


def _in_threads(work: Callable[[int], bool]) -> list[bool]:
    results = [False] * WORKERS
    barrier = threading.Barrier(WORKERS)

    def run(number: int) -> None:
        barrier.wait()
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
