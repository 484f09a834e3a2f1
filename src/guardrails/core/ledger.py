"""The ledger: the one place that knows what may be spent and what has been.

Theory of operation
-------------------
An **account** holds the totals of one scope in one window. Before a call,
`Reserve` holds the call's upper bound against every account it touches, or
against none; afterwards `Settle` books the truth. A **hold** lives through

    open ──settle──▶ settled
     │ └──release──▶ released       the call was never sent; all is given back
     └───sweep────▶ unconfirmed ──settle (late)──▶ settled

Its owner may die. Its money may be spent then, so it is never given back:
past its expiry a hold is *unconfirmed* and goes on counting until a late
settle corrects it. Expiry moves an amount from `held` to `unconfirmed` and
changes no sum, so nothing on the hot path waits for a sweep.

What counts against a limit is posted + held + unconfirmed. The verdict is

    ALLOW  the call fits
    WAIT   it fits once open holds settle: refused now, and nothing is decided
    DENY   it does not fit even without open holds

A `DENY` by a session's own limit stops the session in the same operation. A
stop is sticky: it is checked first, in every session above the call too, until
`Resume` or `RaiseLimits` lifts it. What a person stops is checked before all, see
`stops.py`. A shared account stops nobody; it refuses
until its window turns or its limit is raised.

Invariants, whatever the order of operations:

* With upper-bound estimates, posted + held + unconfirmed <= limit.
* held is the sum of the open holds, unconfirmed that of the unconfirmed ones.
* A refused `Reserve` changes nothing but the stop it sets, where it would have gone
  on with a loop, the count of such refusals, and where a shared account refuses and
  people want to know, that they were told.
* The same id with the same content has the same effect once; with other
  content it is a `Conflict` and has none.
* Posted totals never decrease, so each threshold is crossed once; whoever
  executes that settle is the only one in the fleet to be told. One that a new
  configuration has put below what is posted is told by the next call.
* What people are to be told is added to the outbox by the operation that it is
  about, and by no other; see `alerting/outbox.py`.

This file does not know where rows are kept, what time it is, what a model
costs, or what is raised when a call is refused. `apply` is the specification:
the memory store runs it under a lock, the SQLite store in a transaction, and
every other store is compared with it, operation by operation.
"""

from collections.abc import Callable, MutableMapping
from typing import ClassVar, TypeVar, cast

from guardrails.core.accounts import (
    FORGOTTEN,
    Account,
    Hold,
    HoldState,
    SessionState,
    Stop,
    StopReason,
)
from guardrails.core.alerting.deliveries import (
    AlertLog,
    ClaimAlerts,
    Claimed,
    NoteAlerts,
    ReadAlerts,
    RetryAlerts,
    TellAlerts,
)
from guardrails.core.alerting.informing import (
    reached_label,
    tell_crossings,
    tell_killing,
    tell_limit,
    tell_loop,
    tell_order,
    tell_raise,
    tell_stop,
)
from guardrails.core.alerting.outbox import Outbox
from guardrails.core.limits import (
    crossings_of,
    merged_limits,
    overrun,
    readings_of,
    refusal_of,
    stopped,
)
from guardrails.core.loops import (
    LoopAction,
    LoopFinding,
    find_loop,
    refusals_of,
    remember,
    remember_refusal,
)
from guardrails.core.operations import (
    Close,
    Conflict,
    Operation,
    RaiseLimits,
    ReadAccount,
    ReadAudit,
    ReadStops,
    Refusal,
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
    Swept,
    Turn,
    Turned,
    Verdict,
)
from guardrails.core.policy import Limits
from guardrails.core.stops import (
    AuditAction,
    AuditEntry,
    StopOrder,
    Stops,
    StopTarget,
    project_in,
)

__all__ = ["NEVER_MS", "SETTLED_RETENTION_MS", "SWEEP_MAX", "Ledger"]

SWEEP_MAX = 100
"""Holds that one sweep touches, so that it never blocks a call for long."""

SETTLED_RETENTION_MS = 25 * 3_600_000
"""How long a finished hold is remembered, so that a repeated settle is known.
Longer than a day: a journal may be replayed the morning after."""

NEVER_MS = 2**53 - 1
"""An unconfirmed hold waits for its late settle; it is never forgotten."""

R = TypeVar("R")

_ALLOWED = Reserved(verdict=Verdict.ALLOW)
_SETTLED = Settled()
_SETTLED_BEFORE = Settled(is_applied=False)


class Ledger:
    """Accounts and holds, and the operations on them. Not thread safe.

    Args:
        accounts: Account rows by key.
        holds: Hold rows by id.
        stops: What people have stopped.
        outbox: What people are to be told.
    """

    def __init__(
        self,
        accounts: MutableMapping[str, Account] | None = None,
        holds: MutableMapping[str, Hold] | None = None,
        stops: Stops | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.accounts: MutableMapping[str, Account] = (
            {} if accounts is None else accounts
        )
        self.holds: MutableMapping[str, Hold] = {} if holds is None else holds
        self.stops: Stops = Stops() if stops is None else stops
        self.outbox: Outbox = Outbox() if outbox is None else outbox
        # What the last operation changed or added, and removed.
        self.changed_accounts: list[Account] = []
        self.changed_holds: list[Hold] = []
        self.removed_holds: list[Hold] = []

    def apply(self, operation: Operation[R]) -> R:
        """Applies one operation, wholly or not at all, and returns its reply."""
        self.changed_accounts = []
        self.changed_holds = []
        self.removed_holds = []
        self.stops.begin()
        self.outbox.begin()
        return cast("R", self._methods[type(operation)](self, operation))

    # --- reserve ------------------------------------------------------------

    def _reserve(self, op: Reserve) -> Reserved | Conflict:
        hold = self.holds.get(op.hold_id)
        if hold is not None:
            return _ALLOWED if _is_same(hold, op) else Conflict(hold_id=op.hold_id)
        accounts = self._accounts(op)
        order: StopOrder | None = None
        if self.stops.orders:
            order = self.stops.hitting(op.charging.stop_keys, op.now_ms)
        if order is None:
            refusal, is_final = refusal_of(op, accounts)
        else:
            line, steps = op.charging.lines[0], accounts[0].steps
            refusal, is_final = Refusal(line=line, steps=steps, order=order), True
        if refusal is not None and op.charging.is_enforced:
            return self._refused(op, accounts, refusal, is_final=is_final)
        before = readings_of(op, accounts)
        self._save(op, accounts)
        for account in accounts:
            account.held_nano_usd += op.cost_nano_usd
            account.held_tokens += op.tokens
            account.count(op.kind, 1)
        crossings = crossings_of(op, accounts, before)
        self._finish(op, None, HoldState.OPEN, op.expires_at_ms)
        if refusal is None and not crossings:
            return _ALLOWED
        tell_crossings(self.outbox, op, crossings, self.accounts)
        return Reserved(verdict=Verdict.ALLOW, refusal=refusal, crossings=crossings)

    def _refused(
        self,
        op: Reserve,
        accounts: list[Account],
        refusal: Refusal,
        *,
        is_final: bool,
    ) -> Reserved:
        if not is_final:
            return Reserved(verdict=Verdict.WAIT, refusal=refusal)
        if refusal.finding is not None:
            return self._blocked(op, accounts[0], refusal)
        if refusal.measure is None:
            return Reserved(verdict=Verdict.DENY, refusal=refusal)
        account = accounts[op.charging.accounts.index(refusal.line.account)]
        if not refusal.line.is_session:
            self._tell_limit(op, account, refusal)
            return Reserved(verdict=Verdict.DENY, refusal=refusal)
        account.stop = Stop(
            reason=StopReason.BUDGET_EXCEEDED,
            at_ms=op.now_ms,
            measure=refusal.measure,
            scope=refusal.line.scope,
            used=refusal.used,
            allowed=refusal.allowed,
            needed=refusal.needed,
        )
        return self._stopped(op, account, account.stop, refusal)

    def _stopped(
        self, op: Reserve, account: Account, stop: Stop, refusal: Refusal
    ) -> Reserved:
        """Keeps the stop that a refused call has set."""
        line = refusal.line
        self._save(op, [account])
        tell_stop(self.outbox, op, line, account)
        return Reserved(
            verdict=Verdict.DENY,
            refusal=stopped(line, stop, steps=refusal.steps),
            new_stop=stop,
        )

    def _blocked(self, op: Reserve, account: Account, refusal: Refusal) -> Reserved:
        """Counts the refusal of a call that would go on with a loop.

        An agent that was refused as often as the rule says is stopped.
        """
        rule, session = op.charging.loop, account.session
        assert rule is not None
        assert session is not None
        assert op.trace is not None
        earlier = session.traces
        session.traces = remember_refusal(earlier, op.trace, hold_id=op.hold_id)
        self.changed_accounts = [account]  # Not `_save`: only the count changes.
        if refusals_of(session.traces) <= rule.refusals:
            return Reserved(verdict=Verdict.DENY, refusal=refusal)
        account.stop = Stop(
            reason=StopReason.LOOP_DETECTED,
            at_ms=op.now_ms,
            scope=refusal.line.scope,
            finding=refusal.finding,
        )
        return self._stopped(op, account, account.stop, refusal)

    # --- settle and release -------------------------------------------------

    def _settle(self, op: Settle) -> Settled | Conflict:
        hold = self.holds.get(op.hold_id)
        if hold is not None and hold.state is HoldState.SETTLED:
            return _SETTLED_BEFORE
        if hold is not None and not _is_charged_to(hold, op.charging.accounts):
            return Conflict(hold_id=op.hold_id)
        is_late = hold is None or hold.state is not HoldState.OPEN
        new_stop: Stop | None = None
        accounts = self._accounts(op)
        before = readings_of(op, accounts)
        self._save(op, accounts)
        for line, account in zip(op.charging.lines, accounts, strict=True):
            is_held = hold is not None and line.account in hold.accounts
            if hold is not None and is_held:
                account.drop(hold)
            if hold is None or not is_held or hold.state is HoldState.RELEASED:
                account.count(op.kind, 1)
            account.posted_nano_usd += op.cost_nano_usd
            account.posted_tokens += op.tokens
            if line.is_session and op.charging.is_enforced and account.stop is None:
                account.stop = overrun(line, account, op)
                new_stop = new_stop or account.stop
                if account.stop is not None:
                    tell_stop(self.outbox, op, line, account)
        crossings = crossings_of(op, accounts, before)
        forget_at_ms = op.now_ms + SETTLED_RETENTION_MS
        self._finish(op, hold, HoldState.SETTLED, forget_at_ms)
        finding, loop_stop = (None, None) if op.trace is None else self._learn(op)
        new_stop = new_stop or loop_stop
        if not (is_late or crossings or new_stop or finding):
            return _SETTLED
        tell_crossings(self.outbox, op, crossings, self.accounts)
        return Settled(
            is_late=is_late,
            crossings=crossings,
            new_stop=new_stop,
            finding=finding,
        )

    def _learn(self, op: Settle) -> tuple[LoopFinding | None, Stop | None]:
        """Remembers a completed tool call and looks for a loop that it ends."""
        rule = op.charging.loop
        account = self.accounts[op.charging.accounts[0]]
        session = account.session
        if session is None or op.trace is None or rule is None:
            return None, None
        earlier = session.traces
        session.traces = remember(earlier, op.trace)
        finding = find_loop(session.traces, rule)
        if finding is None:
            return None, None
        stop: Stop | None = None
        stops = rule.action is LoopAction.STOP and op.charging.is_enforced
        if stops and account.stop is None:
            stop = account.stop = Stop(
                reason=StopReason.LOOP_DETECTED,
                at_ms=op.now_ms,
                scope=op.charging.lines[0].scope,
                finding=finding,
            )
            tell_stop(self.outbox, op, op.charging.lines[0], account)
        is_told = finding.continues(find_loop(earlier, rule))
        if not is_told:
            tell_loop(self.outbox, op, account, finding, is_stopped=stops)
        return (None if is_told and stop is None else finding), stop

    def _release(self, op: Release) -> Released:
        hold = self.holds.get(op.hold_id)
        if hold is None or hold.state not in (HoldState.OPEN, HoldState.UNCONFIRMED):
            return Released(is_applied=False)
        for key in hold.accounts:
            if key == FORGOTTEN:
                continue
            account = self.accounts[key]
            account.drop(hold)
            account.count(hold.kind, -1)
            self.changed_accounts.append(account)
        hold.state = HoldState.RELEASED
        hold.expires_at_ms = op.now_ms + SETTLED_RETENTION_MS
        self.changed_holds.append(hold)
        return Released(is_applied=True)

    def _turn(self, op: Turn) -> Turned:
        settled = self._settle(op.settle)
        settled_rows = self.changed_accounts
        reserved = self._reserve(op.reserve)
        # The second half may have put its rows in the place of those of the first.
        changed = {row.key: row for row in (*settled_rows, *self.changed_accounts)}
        self.changed_accounts = list(changed.values())
        return Turned(settled=settled, reserved=reserved)

    def _sweep(self, op: Sweep) -> Swept:
        due = sorted(
            (hold for hold in self.holds.values() if hold.expires_at_ms <= op.now_ms),
            key=lambda hold: (hold.expires_at_ms, hold.hold_id),
        )[:SWEEP_MAX]
        for hold in due:
            if hold.state is HoldState.OPEN:
                self._forfeit(hold)
            else:
                del self.holds[hold.hold_id]
                self.removed_holds.append(hold)
        return Swept(
            unconfirmed=len(self.changed_holds), forgotten=len(self.removed_holds)
        )

    def _forfeit(self, hold: Hold) -> None:
        for key in hold.accounts:
            account = self.accounts[key]
            account.drop(hold)
            account.unconfirmed_nano_usd += hold.cost_nano_usd
            account.unconfirmed_tokens += hold.tokens
            self.changed_accounts.append(account)
        hold.state = HoldState.UNCONFIRMED
        hold.expires_at_ms = NEVER_MS
        self.changed_holds.append(hold)

    # --- sessions -----------------------------------------------------------

    def _close(self, op: Close) -> Account | None:
        account = self.accounts.get(op.account)
        if account is None or account.session is None:
            return None
        account.session.touch(op.now_ms, op.active_ms)
        account.session.ended_at_ms = op.now_ms
        self.changed_accounts.append(account)
        return account.copy()

    def _stop(self, op: StopSession) -> Account:
        account = self.accounts.setdefault(op.account, Account(key=op.account))
        if account.session is None:
            account.session = SessionState(
                attribution=op.attribution,
                started_at_ms=op.now_ms,
                last_active_at_ms=op.now_ms,
            )
        self.changed_accounts.append(account)
        target = StopTarget.of_key(op.account)
        assert target is not None, "Only a session is stopped for good"
        self.stops.add(
            op.account,
            StopOrder(target=target, at_ms=op.now_ms, by=op.by, note=op.note),
        )
        # What a person stopped goes on by a person's order, not by a raised limit.
        if account.stop is None or account.stop.reason is not StopReason.KILLED:
            account.stop = Stop(
                reason=StopReason.KILLED, at_ms=op.now_ms, by=op.by, note=op.note
            )
            self._note(op, AuditAction.STOP, op.account)
            tell_killing(self.outbox, op, account)
        return account.copy()

    def _resume(self, op: Resume) -> Account | None:
        account = self.accounts.get(op.account)
        order = self.stops.lift(op.account, op.now_ms)
        if order is not None or (account is not None and account.stop is not None):
            self._note(op, AuditAction.RESUME, op.account)
        if account is None:
            return None
        account.stop = None
        if account.session is not None:
            account.session.traces = ()
        self.changed_accounts.append(account)
        return account.copy()

    def _raise(self, op: RaiseLimits) -> Account:
        account = self.accounts.setdefault(op.account, Account(key=op.account))
        raised, stop = account.raised, account.stop
        account.raised = merged_limits(account.raised or Limits(), op.limits)
        account.alerted = ()
        if account.stop and account.stop.reason is StopReason.BUDGET_EXCEEDED:
            account.stop = None
        self.changed_accounts.append(account)
        if account.raised != raised:
            tell_raise(self.outbox, op, account)
        if account.raised != raised or account.stop != stop:
            self.stops.note(
                AuditEntry(
                    at_ms=op.now_ms,
                    action=AuditAction.RAISE,
                    key=op.account,
                    by=op.by,
                    note=op.note,
                    policy=op.policy,
                    raised_before=raised,
                    raised_after=account.raised,
                )
            )
        return account.copy()

    # --- stops by people ----------------------------------------------------

    def _stop_scope(self, op: StopScope) -> StopOrder | None:
        order = StopOrder(
            target=op.target,
            at_ms=op.now_ms,
            until_ms=op.until_ms,
            by=op.by,
            note=op.note,
        )
        key = op.target.key(op.project_id)
        in_force = self.stops.add(key, order)
        if in_force is order:
            self._note(op, AuditAction.STOP, key, until_ms=op.until_ms)
            tell_order(self.outbox, op, order)
        return in_force

    def _resume_scope(self, op: ResumeScope) -> StopOrder | None:
        key = op.target.key(op.project_id)
        lifted = self.stops.lift(key, op.now_ms)
        if lifted is not None:
            self._note(op, AuditAction.RESUME, key)
        return lifted

    def _note(
        self,
        op: StopSession | Resume | StopScope | ResumeScope,
        action: AuditAction,
        key: str,
        *,
        until_ms: int | None = None,
    ) -> None:
        self.stops.note(
            AuditEntry(
                at_ms=op.now_ms,
                action=action,
                key=key,
                by=op.by,
                note=op.note,
                until_ms=until_ms,
            )
        )

    def _read_stops(self, op: ReadStops) -> tuple[StopOrder, ...]:
        return self.stops.in_force(project_in(op.project_id), op.now_ms)

    def _read_audit(self, op: ReadAudit) -> tuple[AuditEntry, ...]:
        return self.stops.audit(project_in(op.project_id), op.limit)

    def _read(self, op: ReadAccount) -> Account | None:
        account = self.accounts.get(op.account)
        return None if account is None else account.copy()

    # --- telling people -----------------------------------------------------

    def _tell_limit(self, op: Reserve, account: Account, refusal: Refusal) -> None:
        """Tells once that a shared account refuses; its row remembers that."""
        assert refusal.measure is not None
        label = reached_label(refusal.measure)
        # A session has one account beside its own that is no budget: see `closing`.
        is_budget = refusal.line.scope != op.charging.lines[0].scope
        is_news = is_budget and label not in account.alerted
        if is_news and tell_limit(self.outbox, op, refusal):
            account.alerted = (*account.alerted, label)
            self._save(op, [account])

    def _claim(self, op: ClaimAlerts) -> Claimed:
        return self.outbox.claim(op)

    def _note_alerts(self, op: NoteAlerts) -> int:
        return self.outbox.note(op)

    def _retry(self, op: RetryAlerts) -> int:
        return self.outbox.retry(op)

    def _tell_alerts(self, op: TellAlerts) -> tuple[str, ...]:
        for alert in op.alerts:
            self.outbox.add(alert, op.places)
        return tuple([kept.alert.alert_id for kept in self.outbox.added])

    def _read_alerts(self, op: ReadAlerts) -> tuple[AlertLog, ...]:
        return self.outbox.read(op)

    # --- rows ---------------------------------------------------------------

    def _accounts(self, op: Reserve | Settle) -> list[Account]:
        """Returns the rows of the lines, in their order; new ones are not kept yet."""
        known = self.accounts.get
        accounts: list[Account] = []
        for index, line in enumerate(op.charging.lines):
            account = known(line.account)
            if account is None:
                account = Account(key=line.account, expires_at_ms=line.expires_at_ms)
            elif account.expires_at_ms is None and line.expires_at_ms is not None:
                account = account.copy()  # Its limit was raised before its first call.
                account.expires_at_ms = line.expires_at_ms
            if line.is_session and account.session is None:
                account = account.copy()
                started_at_ms = op.now_ms - op.active_ms[index]
                account.session = SessionState(
                    attribution=line.attribution or op.charging.attribution,
                    started_at_ms=started_at_ms,
                    last_active_at_ms=started_at_ms,
                )
            accounts.append(account)
        return accounts

    def _save(self, op: Reserve | Settle, accounts: list[Account]) -> None:
        """Keeps rows, and notes until when their sessions were active."""
        for account in accounts:
            if account.session is not None:
                index = op.charging.accounts.index(account.key)
                account.session.touch(op.now_ms, op.active_ms[index])
            self.accounts[account.key] = account
        self.changed_accounts = accounts

    def _finish(
        self,
        op: Reserve | Settle,
        hold: Hold | None,
        state: HoldState,
        expires_at_ms: int,
    ) -> None:
        """Moves a hold on, or keeps a new one."""
        if hold is None:
            hold = self.holds[op.hold_id] = Hold(
                hold_id=op.hold_id,
                state=state,
                kind=op.kind,
                accounts=op.charging.accounts,
                cost_nano_usd=op.cost_nano_usd,
                tokens=op.tokens,
                expires_at_ms=expires_at_ms,
            )
        else:
            hold.state = state
            hold.expires_at_ms = expires_at_ms
        self.changed_holds.append(hold)

    _methods: ClassVar[dict[type, Callable[..., object]]] = {
        Reserve: _reserve,
        Settle: _settle,
        Release: _release,
        Turn: _turn,
        Sweep: _sweep,
        Close: _close,
        StopSession: _stop,
        Resume: _resume,
        RaiseLimits: _raise,
        ReadAccount: _read,
        StopScope: _stop_scope,
        ResumeScope: _resume_scope,
        ReadStops: _read_stops,
        ReadAudit: _read_audit,
        ClaimAlerts: _claim,
        NoteAlerts: _note_alerts,
        RetryAlerts: _retry,
        ReadAlerts: _read_alerts,
        TellAlerts: _tell_alerts,
    }


def _is_same(hold: Hold, op: Reserve) -> bool:
    """Whether a hold answers for a call: one that was given back never does."""
    return (
        hold.state is not HoldState.RELEASED
        and hold.cost_nano_usd == op.cost_nano_usd
        and hold.tokens == op.tokens
        and hold.kind is op.kind
        and hold.accounts == op.charging.accounts
    )


def _is_charged_to(hold: Hold, accounts: tuple[str, ...]) -> bool:
    """Whether a hold is of these accounts, but for those that were forgotten."""
    if hold.accounts == accounts:
        return True
    return len(hold.accounts) == len(accounts) and all(
        held in (key, FORGOTTEN)
        for held, key in zip(hold.accounts, accounts, strict=True)
    )
