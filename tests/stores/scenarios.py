"""Scenarios: random lists of ledger operations, and what must hold after each.

A scenario is two byte strings: one says which limits apply, the other is cut into
codes, one per operation. So Hypothesis draws two values and not a thousand. Zero
bytes mean the simplest thing: no limit, and an operation that changes nothing.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from hypothesis import strategies as st

from guardrails.core.accounts import Account, Charging, Hold, HoldState, Line, Threshold
from guardrails.core.alerting.deliveries import (
    ClaimAlerts,
    Claimed,
    DeliveryState,
    NoteAlerts,
    ReadAlerts,
    RetryAlerts,
)
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.ledger import Ledger
from guardrails.core.loops import (
    LoopAction,
    LoopRule,
    ToolTrace,
    continues_loop,
    find_loop,
    refusals_of,
)
from guardrails.core.operations import (
    Close,
    Conflict,
    Crossing,
    Operation,
    RaiseLimits,
    ReadAccount,
    ReadAudit,
    ReadStops,
    Release,
    Released,
    Reserve,
    Reserved,
    Resume,
    ResumeScope,
    Settle,
    Settled,
    StopScope,
    StopSession,
    Sweep,
    Verdict,
)
from guardrails.core.policy import Limits, Measure
from guardrails.core.stops import LISTED_MS, StopKind, StopTarget
from guardrails.core.telling import AlertKind, Telling
from guardrails.core.usage import Charge, PriceStatus, TokenUsage

NOW_MS = 1_764_000_000_000
WINDOW_END_MS = NOW_MS + 10 * 366 * 86_400_000
"""In a future that is real: Redis drops accounts whose window is long over."""
DAY_AND_MORE_MS = 26 * 3_600_000
SESSIONS = (
    "default/session/session_id=0",
    "default/session/session_id=1",
    "default/session/session_id=2",
)
SHARED = ("default/total/customer_id=acme", "default/day/project")
SETUP_BYTES = 64
CODE_BYTES = 10
SCRIPT_BYTES = 40 * CODE_BYTES
TARGETS = (
    StopTarget(kind=StopKind.EVERYTHING),
    StopTarget(kind=StopKind.CUSTOMER, name="acme"),
    StopTarget(kind=StopKind.AGENT, name="a"),
    StopTarget(kind=StopKind.AGENT, name="nobody"),
    *(StopTarget(kind=StopKind.SESSION, name=str(number)) for number in range(3)),
)
READS: tuple[Operation[object], ...] = (
    ReadStops(project_id="default", now_ms=NOW_MS),
    ReadAudit(project_id="default", limit=1_000),
    ReadAlerts(project_id="default", limit=1_000),
)
"""What people did, what of it was in force at the start, and what people were told."""
PLACES = ("slack-1", "webhook-2")
TELLINGS = (
    None,
    Telling(kinds=tuple(AlertKind), places=PLACES),
    Telling(kinds=(AlertKind.SOFT, AlertKind.LOOP), places=PLACES[:1]),
    Telling(kinds=(AlertKind.STOP, AlertKind.LIMIT), places=PLACES[1:]),
)
RATIOS = (Decimal("0.5"), Decimal("0.8"))

setups = st.binary(min_size=SETUP_BYTES, max_size=SETUP_BYTES)
# Of one length: Hypothesis would prefer short ones, in which little happens.
scripts = st.binary(min_size=SCRIPT_BYTES, max_size=SCRIPT_BYTES)

# One letter per operation; how often it stands here is how often it is drawn.
KINDS = "ARRRRRRRRRRRRRRRRSSSSSSSSSSSSSSSSLLWWWWCKUUPPPTTTVVQGGGGNNNNY"


def codes_of(script: bytes) -> list[bytes]:
    """Cuts a script into the codes of its operations."""
    return [script[i : i + CODE_BYTES] for i in range(0, len(script), CODE_BYTES)]


@dataclass
class Scenario:
    """Turns codes into operations that fit what happened before.

    Args:
        setup: Says which limits, thresholds and rules apply.
        is_honest: Estimates are upper bounds, every call is enforced, and only
            what was admitted is settled. Then no limit may be passed.
    """

    setup: bytes
    is_honest: bool
    now_ms: int = NOW_MS
    settled: set[str] = field(default_factory=set)
    """Ids that were booked. Past the retention they are not used again."""
    chargings: dict[tuple[str, ...], dict[bool, Charging]] = field(default_factory=dict)
    """By their accounts, and by whether they are enforced."""
    claims: list[tuple[ClaimAlerts, Claimed]] = field(default_factory=list)
    """What was given out to be sent."""

    def __post_init__(self) -> None:
        draw = iter(self.setup)
        self.telling = TELLINGS[next(draw) % len(TELLINGS)]
        self.lines = {
            key: self._line(key, draw, is_session=key in SESSIONS)
            for key in (*SESSIONS, *SHARED)
        }
        self.shared_max = next(draw) % 3
        self.is_mixed = not self.is_honest and next(draw) % 3 == 1
        actions = (None, *LoopAction)
        action = actions[next(draw) % len(actions)]
        self.loop = action and LoopRule(
            repeats=2 + next(draw) % 2,
            cycle_repeats=2 + next(draw) % 2,
            error_repeats=2 + next(draw) % 3,
            polling_repeats=3 + next(draw) % 2,
            within=6 + next(draw) % 3,
            refusals=1 + next(draw) % 2,
            action=action,
        )
        self.habit = ("none", "cycle", "errors")[next(draw) % 3]
        self.period = 2 + next(draw) % 3

    @staticmethod
    def _line(key: str, draw: Iterator[int], *, is_session: bool) -> Line:
        def limit(largest: int) -> int | None:
            byte = next(draw)
            return byte // 5 * largest // 50 if byte % 5 == 1 else None

        limits = Limits(
            cost_nano_usd=limit(90),
            tokens=limit(90),
            steps=limit(20),
            model_calls=limit(15),
            tool_calls=limit(15),
            wall_time_ms=limit(15_000) if is_session else None,
        )
        points = [Threshold(measure=Measure.COST, value=9, label="soft")]
        for measure in Measure:
            of = limits.of(measure)
            if of is not None:
                points += [
                    Threshold(
                        measure=measure,
                        value=math.ceil(of * ratio),
                        ratio=ratio,
                        label=f"{measure.value}:{ratio}",
                    )
                    for ratio in RATIOS
                ]
        return Line(
            account=key,
            scope=key,
            limits=limits,
            thresholds=tuple(points) if next(draw) % 2 else (),
            is_session=is_session,
            attribution=Attribution.of(session_id=key[-1]) if is_session else None,
            is_binding=is_session or next(draw) % 4 != 1,
            expires_at_ms=None if is_session else WINDOW_END_MS,
        )

    def charging(self, session: int, shared: int, *, is_enforced: bool) -> Charging:
        """Session 2 runs inside session 0."""
        keys = SESSIONS[session : session + 1] + SESSIONS[:1] * (session == 2)
        keys += SHARED[: min(shared, self.shared_max)]
        known = self.chargings.setdefault(keys, {})
        if is_enforced not in known:
            known[is_enforced] = Charging(
                attribution=Attribution.of(
                    agent="a", customer_id="acme", session_id=str(session)
                ),
                lines=tuple(self.lines[key] for key in keys),
                loop=self.loop,
                is_enforced=is_enforced,
                telling=self.telling,
            )
        return known[is_enforced]

    def operation(self, code: bytes, ledger: Ledger) -> Operation[object]:
        """Returns the operation that a code stands for in this state."""
        kind, who, which, cost, tokens, step, active, flags, _, extra = code
        self.now_ms += _step_ms(step)
        session, account = SESSIONS[who % 3], (*SESSIONS, *SHARED)[who % 5]
        match KINDS[kind % len(KINDS)]:
            case "R":
                return self._reserve(code, ledger)
            case "S":
                return self._settle(code, ledger)
            case "L":
                hold = _pick(ledger, which, is_live=extra % 4 > 0)
                return Release(
                    hold_id=hold or "unknown", account=session, now_ms=self.now_ms
                )
            case "W":
                later_ms = (0, 1_000, 5_000, DAY_AND_MORE_MS)[extra % 4]
                return Sweep(now_ms=self.now_ms + later_ms)
            case "C":
                return Close(account=session, now_ms=self.now_ms, active_ms=active * 10)
            case "K":
                return StopSession(
                    account=session,
                    attribution=Attribution.of(session_id=str(who % 3)),
                    now_ms=self.now_ms,
                    by="ops",
                    note=None if flags % 2 else "why",
                    telling=self.telling,
                )
            case "G" | "N" | "Y" as letter:
                return self._send(letter, code, ledger)
            case "T" | "V" | "Q" as letter:
                return self._order(letter, code)
            case "U":
                return Resume(account=account, now_ms=self.now_ms)
            case "P":
                limits = Limits(
                    cost_nano_usd=cost if flags & 1 else None,
                    tokens=tokens if flags & 2 else None,
                    steps=which % 30 if flags & 4 else None,
                    model_calls=which % 20 if flags & 8 else None,
                    tool_calls=which % 20 if flags & 16 else None,
                    wall_time_ms=active * 100 if flags & 32 else None,
                )
                return RaiseLimits(
                    account=account,
                    limits=limits,
                    now_ms=self.now_ms,
                    telling=self.telling,
                )
            case _:
                return ReadAccount(account=account)

    def _order(self, letter: str, code: bytes) -> Operation[object]:
        """Returns what a person orders, or asks, about all that there is."""
        _, _, which, _, _, _, _, flags, _, extra = code
        target = TARGETS[which % len(TARGETS)]
        if letter == "Q":
            return ReadStops(project_id="default", now_ms=self.now_ms)
        if letter == "V":
            return ResumeScope(
                project_id="default", target=target, now_ms=self.now_ms, note="paid"
            )
        until_ms: int | None = self.now_ms + 1 + extra * 4
        if extra % 8 == 0 and target.kind is not StopKind.SESSION:
            until_ms = None
        return StopScope(
            project_id="default",
            target=target,
            now_ms=self.now_ms,
            until_ms=until_ms,
            by="ops" if flags % 2 else None,
            note="é ü" if flags % 3 else None,
            telling=self.telling,
        )

    def _send(self, letter: str, code: bytes, ledger: Ledger) -> Operation[object]:
        """Returns what somebody does who sends alerts."""
        _, who, which, cost, _, _, _, flags, _, extra = code
        if letter == "Y":
            ids = list(ledger.outbox.alerts)
            chosen = ids[which % len(ids)] if ids and flags % 2 else None
            return RetryAlerts(
                project_id="default", now_ms=self.now_ms, alert_id=chosen
            )
        if letter == "G" or not self.claims:
            return ClaimAlerts(
                project_id="default",
                place=PLACES[who % 2],
                owner="ab"[flags % 2],
                now_ms=self.now_ms,
                until_ms=self.now_ms + cost * 4,
                singles_max=1 + which % 3,
                is_last=extra % 4 == 0,
            )
        claim, claimed = self.claims[-1 - which % min(2, len(self.claims))]
        state = (
            DeliveryState.DELIVERED,
            DeliveryState.DELIVERED,
            DeliveryState.SENDING,
            DeliveryState.DEAD,
        )[extra % 4]
        return NoteAlerts(
            project_id="default",
            place=claim.place,
            label="somewhere/***",
            owner=claim.owner,
            alert_ids=tuple(alert.alert_id for alert in claimed.alerts),
            now_ms=self.now_ms,
            state=state,
            due_ms=self.now_ms + flags,
            rest_ms=self.now_ms + extra * 2,
            cooldown_ms=cost * 8,
            status=200 if extra % 8 else None,
            text="no_service" if extra % 3 else "",
            lost_told=extra % 2 and claimed.lost,
        )

    def _reserve(self, code: bytes, ledger: Ledger) -> Operation[object]:
        _, who, which, cost, tokens, _, active, flags, digests, extra = code
        hold_id = f"h{which % 12}" if which < 64 else f"{which}-{digests}"
        if hold_id in self.settled and hold_id not in ledger.holds:
            # Forgotten after its retention: ids are not used again after that.
            return ReadAccount(account=SESSIONS[who % 3])
        charging = self._charging_for(who, flags)
        kind = CallKind.TOOL if flags & 1 else CallKind.MODEL
        return Reserve(
            hold_id=hold_id,
            charging=charging,
            kind=kind,
            cost_nano_usd=cost % 16,
            tokens=tokens % 16,
            now_ms=self.now_ms,
            expires_at_ms=self.now_ms + 1 + extra % 8 * 500,
            active_ms=_active_ms(charging, active),
            trace=self._trace(kind, code, charging, ledger, is_open=True),
        )

    def _settle(self, code: bytes, ledger: Ledger) -> Operation[object]:
        _, who, which, cost, tokens, _, active, flags, _, extra = code
        cost, tokens = cost % 16, tokens % 16
        hold_id = _pick(ledger, which, is_live=self.is_honest or extra % 8 > 0)
        if not self.is_honest and extra >= 232:
            hold_id = f"unknown{which % 4}"
        hold = ledger.holds.get(hold_id or "")
        if hold_id is None or (hold is None and hold_id in self.settled):
            return ReadAccount(account=SESSIONS[who % 3])
        charging = self._charging_for(who, flags)
        kind = CallKind.TOOL if flags & 1 else CallKind.MODEL
        if hold is not None and (self.is_honest or extra % 5):
            known = self.chargings[hold.accounts]
            charging = known.get(charging.is_enforced) or next(iter(known.values()))
            kind = hold.kind
        if hold is not None and self.is_honest:
            cost, tokens = min(cost, hold.cost_nano_usd), min(tokens, hold.tokens)
        trace = self._trace(kind, code, charging, ledger, is_open=False)
        is_model = kind is CallKind.MODEL
        event = Event(
            event_id=hold_id,
            time_ms=self.now_ms,
            attribution=charging.attribution,
            kind=kind,
            model="m" if is_model else None,
            tool=None if is_model else "t",
            status=CallStatus.OK,
            usage=TokenUsage(input_tokens=tokens) if is_model else None,
            charge=Charge(cost_nano_usd=cost, status=PriceStatus.PRICED),
            reserved_nano_usd=cost,
        )
        return Settle(
            hold_id=hold_id,
            charging=charging,
            kind=kind,
            cost_nano_usd=cost,
            tokens=tokens,
            now_ms=self.now_ms,
            active_ms=_active_ms(charging, active),
            event=event,
            trace=trace,
        )

    def _trace(
        self,
        kind: CallKind,
        code: bytes,
        charging: Charging,
        ledger: Ledger,
        *,
        is_open: bool,
    ) -> ToolTrace | None:
        """Returns a random call, or mostly what goes on with the agent's habit."""
        _, _, _, _, _, _, _, flags, digests, _ = code
        if kind is CallKind.MODEL or flags & 66 == 66:
            return None
        tool, arguments = "t", f"a{digests % 4 // 3}"
        result = f"r{digests // 4 % 8 // 6}"
        account = ledger.accounts.get(charging.accounts[0])
        known = account.session.traces if account and account.session else ()
        made = len(known) - refusals_of(known)
        if self.habit == "cycle" and digests % 16:
            tool, arguments = "tu"[made % self.period % 2], f"a{made % self.period}"
            result = "r0"
        elif self.habit == "errors":
            arguments = f"a{digests % 8}"
            result = f"!r{digests % 16 // 15}"
        return ToolTrace(
            tool=tool,
            arguments_digest=arguments,
            result_digest=None if is_open or digests == 77 else result,
            call_id=f"c{digests // 8 % 4}" if digests >= 224 else None,
            cost_nano_usd=None if is_open else digests % 5,
        )

    def _charging_for(self, who: int, flags: int) -> Charging:
        session = (0, 0, 0, 1, 2, 2)[who % 6]
        is_enforced = not (self.is_mixed and flags & 8)
        return self.charging(session, who // 6 % 3, is_enforced=is_enforced)


def _pick(ledger: Ledger, which: int, *, is_live: bool) -> str | None:
    """Picks a hold; a live one is open or unconfirmed."""
    holds = [
        hold.hold_id
        for hold in ledger.holds.values()
        if not is_live or hold.state in (HoldState.OPEN, HoldState.UNCONFIRMED)
    ]
    return holds[which % len(holds)] if holds else None


def _active_ms(charging: Charging, active: int) -> tuple[int, ...]:
    return tuple(active * (i + 1) * 4 for i in range(len(charging.lines)))


def _step_ms(step: int) -> int:
    if step < 8:
        return (0, 0, 0, -1, -30, -400, -70_000, DAY_AND_MORE_MS)[step]
    return step * 2


def _untold(accounts: dict[str, Account]) -> dict[str, Account]:
    """Returns accounts as if nobody had been told that they refuse."""
    found: dict[str, Account] = {}
    for key, account in accounts.items():
        labels = tuple(x for x in account.alerted if not x.startswith("reached "))
        one = replace(account, alerted=labels, expires_at_ms=None)
        if one != Account(key=key):
            found[key] = one
    return found


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What a person has stopped."""

    ends_ms: float
    refuses_until_ms: float
    """0 if an account refuses instead."""


class Checker:
    """Applies operations to a ledger and checks, after each, what must hold.

    Keeps its own books, in the simplest way: sums over all that happened.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.ledger = Ledger()
        self.posted: Counter[tuple[str, str]] = Counter()
        self.counted: Counter[tuple[str, str]] = Counter()
        self.told: set[tuple[str, str]] = set()
        self.stopped: dict[str, Stopped] = {}
        """What people have stopped, by key."""

    def apply(self, op: Operation[object]) -> object:
        """Applies an operation; returns the reply."""
        before = {key: row.copy() for key, row in self.ledger.accounts.items()}
        hold = self.ledger.holds.get(getattr(op, "hold_id", ""))
        state = None if hold is None else hold.state
        reply = self.ledger.apply(op)
        after = self.ledger.accounts
        self._note_stops(op)
        match op, reply:
            case Reserve(), Reserved():
                self._reserved(op, reply, before, hold)
            case Settle(), Settled():
                self._settled(op, reply, before, hold, state)
            case Release(), Released():
                is_live = state in (HoldState.OPEN, HoldState.UNCONFIRMED)
                assert reply.is_applied is is_live
                if hold is not None and is_live:
                    self._count(hold.kind, hold.accounts, -1)
            case ClaimAlerts(), Claimed() if reply.alerts:
                self.scenario.claims.append((op, reply))
            case RaiseLimits(), _:
                self.told = {known for known in self.told if known[0] != op.account}
            case Resume() | StopSession() | Close(), _:
                assert {k: _totals(a) for k, a in before.items()} == {
                    k: _totals(a) for k, a in after.items() if k in before
                }
            case Reserve(), Conflict():
                assert hold is not None
                # One that was given back answers for no call any more.
                assert hold.state is HoldState.RELEASED or not is_same(hold, op)
                assert before == after
            case Settle(), Conflict():
                assert hold is not None
                assert hold.accounts != op.charging.accounts
                assert before == after
            case ReadAccount(), _:
                assert before == after
            case _:
                pass
        self._check_totals(before, op)
        return reply

    # --- after each kind ----------------------------------------------------

    def _reserved(
        self,
        op: Reserve,
        reply: Reserved,
        before: dict[str, Account],
        hold: Hold | None,
    ) -> None:
        after = self.ledger.accounts
        if hold is not None:
            assert is_same(hold, op)
            assert reply == Reserved(verdict=Verdict.ALLOW)
            assert before == after, "A repeated reservation changes nothing"
            return
        stops = [self.stopped.get(key) for key in op.charging.stop_keys]
        is_stopped = any(one and op.now_ms < one.refuses_until_ms for one in stops)
        refusal = reply.refusal
        assert is_stopped is (refusal is not None and refusal.order is not None)
        assert reply.verdict is expected_verdict(op, before, is_stopped=is_stopped)
        if reply.verdict is Verdict.ALLOW:
            self._count(op.kind, op.charging.accounts, 1)
            assert (reply.refusal is None) or not op.charging.is_enforced
            assert reply.new_stop is None
            self._check_crossings(op, reply.crossings, before)
            return
        assert reply.refusal is not None
        assert not reply.crossings
        blocking = reply.refusal.line.account
        if reply.verdict is Verdict.WAIT:
            assert any(
                hold.state is HoldState.OPEN and blocking in hold.accounts
                for hold in self.ledger.holds.values()
            )
        if reply.new_stop is None and reply.refusal.finding is not None:
            self._check_refused_loop(op, before)
            return
        if reply.new_stop is None:
            assert _untold(before) == _untold(after), "A refusal changes nothing"
            return
        assert reply.verdict is Verdict.DENY
        changed = {key for key in after if before.get(key) != after[key]}
        assert changed == {blocking}, "A refusal changes nothing but the stop"
        earlier = before.get(blocking, Account(key=blocking))
        assert earlier.stop is None, "A stop is told once"
        assert _totals(after[blocking]) == _totals(earlier)

    def _check_refused_loop(self, op: Reserve, before: dict[str, Account]) -> None:
        """Nothing is changed but the count of such refusals."""
        first, rule = op.charging.accounts[0], op.charging.loop
        counts: list[int] = []
        for rows in (before, self.ledger.accounts):
            session = rows[first].session
            assert session is not None
            counts.append(refusals_of(session.traces))
        assert rule is not None
        assert counts[0] <= counts[1] <= min(counts[0] + 1, rule.refusals)
        after = {key: row.copy() for key, row in self.ledger.accounts.items()}
        for rows in (before, after):
            session = rows[first].session
            assert session is not None
            session.traces = ()
        assert before == after

    def _settled(
        self,
        op: Settle,
        reply: Settled,
        before: dict[str, Account],
        hold: Hold | None,
        state: HoldState | None,
    ) -> None:
        assert reply.is_applied is (state is not HoldState.SETTLED)
        if not reply.is_applied:
            assert before == self.ledger.accounts, "A repeated settle changes nothing"
            assert reply == Settled(is_applied=False)
            return
        assert hold is None or hold.accounts == op.charging.accounts
        self.scenario.settled.add(op.hold_id)
        assert reply.is_late is (state is not HoldState.OPEN)
        for key in op.charging.accounts:
            self.posted[key, "cost"] += op.cost_nano_usd
            self.posted[key, "tokens"] += op.tokens
        if state in (None, HoldState.RELEASED):
            self._count(op.kind, op.charging.accounts, 1)
        self._check_crossings(op, reply.crossings, before)
        for line in op.charging.lines:
            account = self.ledger.accounts[line.account]
            if (
                line.is_session
                and op.charging.is_enforced
                and is_overrun(account, line)
            ):
                assert account.stop is not None, "What passed its limit is over"
        if reply.new_stop is not None:
            stopped = [
                key
                for key in op.charging.accounts
                if self.ledger.accounts[key].stop == reply.new_stop
                and before.get(key, Account(key=key)).stop is None
            ]
            assert stopped, "The stop that is told is kept"

    def _note_stops(self, op: Operation[object]) -> None:
        """Follows what people stop.

        A session that is stopped for good has that in its account. It only keeps
        shorter stops of it from counting, as long as it is listed.
        """
        match op:
            case StopScope() | ResumeScope():
                key, end = op.target.key("default"), math.inf
                if isinstance(op, StopScope) and op.until_ms is not None:
                    end = op.until_ms
                refuses_until = end
            case StopSession() | Resume():
                key, end, refuses_until = op.account, op.now_ms + LISTED_MS, 0
            case _:
                return
        for other, known in list(self.stopped.items()):
            if known.ends_ms <= op.now_ms:
                del self.stopped[other]
        if isinstance(op, Resume | ResumeScope):
            self.stopped.pop(key, None)
        elif key not in self.stopped or (
            self.stopped[key].refuses_until_ms and end > self.stopped[key].ends_ms
        ):
            self.stopped[key] = Stopped(ends_ms=end, refuses_until_ms=refuses_until)

    def _count(self, kind: CallKind, keys: Sequence[str], by: int) -> None:
        for key in keys:
            self.counted[key, "steps"] += by
            self.counted[key, kind.value] += by

    def _check_crossings(
        self,
        op: Reserve | Settle,
        crossings: tuple[Crossing, ...],
        before: dict[str, Account],
    ) -> None:
        expected: list[tuple[str, str]] = []
        for line in op.charging.lines:
            account = self.ledger.accounts[line.account]
            earlier = before.get(line.account, Account(key=line.account))
            limits = effective_limits(line, account)
            for point in line.thresholds:
                value, limit = point.value, limits.of(point.measure)
                if account.raised and point.ratio is not None and limit is not None:
                    value = math.ceil(limit * point.ratio)
                name = (line.account, point.label)
                now = account.posted(point.measure)
                is_new = earlier.posted(point.measure) < value
                if value <= now and (is_new or not account.raised):
                    expected += [name] if name not in self.told else []
        told = [(c.line.account, c.threshold.label) for c in crossings]
        assert told == expected, "Each threshold is told once, by whoever crosses it"
        self.told.update(told)

    # --- after all ----------------------------------------------------------

    def _check_totals(self, before: dict[str, Account], op: Operation[object]) -> None:
        sums: Counter[tuple[str, HoldState, str]] = Counter()
        for hold in self.ledger.holds.values():
            for key in hold.accounts:
                sums[key, hold.state, "cost"] += hold.cost_nano_usd
                sums[key, hold.state, "tokens"] += hold.tokens
        for key, account in self.ledger.accounts.items():
            assert _totals(account) == {
                "posted": (self.posted[key, "cost"], self.posted[key, "tokens"]),
                "held": tuple(
                    sums[key, HoldState.OPEN, what] for what in ("cost", "tokens")
                ),
                "unconfirmed": tuple(
                    sums[key, HoldState.UNCONFIRMED, what]
                    for what in ("cost", "tokens")
                ),
                "counts": tuple(
                    self.counted[key, what] for what in ("steps", "model", "tool")
                ),
            }
            earlier = before.get(key, Account(key=key))
            assert account.posted_nano_usd >= earlier.posted_nano_usd
            assert account.steps >= earlier.steps or isinstance(op, Release)
            if self.scenario.is_honest:
                self._check_limits(account)

    def _check_limits(self, account: Account) -> None:
        """With estimates that are upper bounds, no limit is ever passed."""
        line = self.scenario.lines[account.key]
        limits = effective_limits(line, account)
        if not line.is_binding:
            return
        for measure in Measure:
            limit = limits.of(measure)
            if limit is not None and measure is not Measure.WALL_TIME:
                assert account.used(measure) <= limit, (measure, limit)


def is_forgotten(op: Operation[object], checker: "Checker", finished: set[str]) -> bool:
    """Whether an id is used again after its retention, which nobody does."""
    hold_id = getattr(op, "hold_id", "")
    hold = checker.ledger.holds.get(hold_id)
    if hold is None:
        return hold_id in finished
    is_over = hold.state in (HoldState.SETTLED, HoldState.RELEASED)
    return is_over and hold.expires_at_ms <= checker.scenario.now_ms


# --- The rules again, in the simplest words ---------------------------------


def is_same(hold: Hold, op: Reserve) -> bool:
    """Says whether a reservation is one that was made before."""
    return (hold.kind, hold.cost_nano_usd, hold.tokens, hold.accounts) == (
        op.kind,
        op.cost_nano_usd,
        op.tokens,
        op.charging.accounts,
    )


def expected_verdict(
    op: Reserve, accounts: dict[str, Account], *, is_stopped: bool
) -> Verdict:
    """Says what a ledger must answer to a new reservation."""
    if not op.charging.is_enforced:
        return Verdict.ALLOW
    if is_stopped:
        return Verdict.DENY
    known = [accounts.get(line.account) for line in op.charging.lines]
    bound = [
        (line, account or Account(key=line.account), op.active_ms[index])
        for index, (line, account) in enumerate(
            zip(op.charging.lines, known, strict=True)
        )
        if line.is_binding
    ]
    if any(account.stop for _, account, _ in bound):
        return Verdict.DENY
    if not all(_fits(op, *one, with_holds=False) for one in bound):
        return Verdict.DENY
    rule, first = op.charging.loop, known[0]
    if rule and op.trace and rule.action is LoopAction.BLOCK and first is not None:
        found = first.session and find_loop(first.session.traces, rule)
        if (
            found
            and first.session
            and continues_loop(op.trace, found, first.session.traces)
        ):
            return Verdict.DENY
    fits = all(_fits(op, *one, with_holds=True) for one in bound)
    return Verdict.ALLOW if fits else Verdict.WAIT


def _fits(
    op: Reserve, line: Line, account: Account, active_ms: int, *, with_holds: bool
) -> bool:
    is_model = op.kind is CallKind.MODEL
    elapsed_ms = active_ms
    if account.session is not None:
        elapsed_ms = account.session.elapsed_ms(op.now_ms, active_ms)
    held = (account.held_nano_usd, account.held_tokens) if with_holds else (0, 0)
    cost = account.posted_nano_usd + account.unconfirmed_nano_usd + held[0]
    tokens = account.posted_tokens + account.unconfirmed_tokens + held[1]
    limits = effective_limits(line, account)
    after = {
        Measure.COST: cost + op.cost_nano_usd,
        Measure.TOKENS: tokens + op.tokens,
        Measure.STEPS: account.steps + 1,
        Measure.MODEL_CALLS: account.model_calls + is_model if is_model else 0,
        Measure.TOOL_CALLS: 0 if is_model else account.tool_calls + 1,
        # The limit is the first instant that is too late.
        Measure.WALL_TIME: elapsed_ms + 1,
    }
    return all(
        limit is None or after[measure] <= limit
        for measure in Measure
        for limit in (limits.of(measure),)
    )


def effective_limits(line: Line, account: Account) -> Limits:
    """Returns the policy's limits, or what a person raised them to."""
    if account.raised is None:
        return line.limits

    def higher(measure: Measure) -> int | None:
        limit = line.limits.of(measure)
        raised = account.raised and account.raised.of(measure)
        return limit if limit is None or raised is None else max(limit, raised)

    return Limits(
        cost_nano_usd=higher(Measure.COST),
        tokens=higher(Measure.TOKENS),
        steps=higher(Measure.STEPS),
        model_calls=higher(Measure.MODEL_CALLS),
        tool_calls=higher(Measure.TOOL_CALLS),
        wall_time_ms=higher(Measure.WALL_TIME),
    )


def is_overrun(account: Account, line: Line) -> bool:
    """Says whether settled calls, and those that may be, passed a limit."""
    limits = effective_limits(line, account)
    cost = account.posted_nano_usd + account.unconfirmed_nano_usd
    tokens = account.posted_tokens + account.unconfirmed_tokens
    return (limits.cost_nano_usd is not None and cost > limits.cost_nano_usd) or (
        limits.tokens is not None and tokens > limits.tokens
    )


def _totals(account: Account) -> dict[str, tuple[int, ...]]:
    return {
        "posted": (account.posted_nano_usd, account.posted_tokens),
        "held": (account.held_nano_usd, account.held_tokens),
        "unconfirmed": (account.unconfirmed_nano_usd, account.unconfirmed_tokens),
        "counts": (account.steps, account.model_calls, account.tool_calls),
    }
