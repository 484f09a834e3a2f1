"""Simulation: what another policy would have done with the calls of yesterday. Pure.

The calls are put to the ledger again, in the order in which they began and ended then,
so what would have been refused is decided by the code that decides it live. A call that
would have been refused is not made again and costs nothing; what the agent would have
done instead, nobody knows. Not simulated: wall time and loops, which leave too little
behind.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from guardrails.core.accounts import Charging
from guardrails.core.calls import CallKind
from guardrails.core.events import Event
from guardrails.core.ledger import Ledger
from guardrails.core.lines import call_lines
from guardrails.core.loops import LoopAction, LoopRule
from guardrails.core.operations import (
    Refusal,
    Reserve,
    Reserved,
    Settle,
    Sweep,
    Verdict,
)
from guardrails.core.policy import Measure, OnUnpriced, Policy

__all__ = ["Refused", "Simulation", "simulated"]

CALL_MS_MAX = 600_000
"""The longest call that is put in its place: calls that ended come in, and one that
took longer began before what has been decided already. It counts from its end then."""

SWEEP_EVERY = 4_096
"""Calls between two sweeps of the ledger, which forgets what has been settled."""


@dataclass(slots=True, kw_only=True)
class Refused:
    """What a limit would have kept one scope from."""

    scope: str
    """`session`, or the scope of a shared budget with its names."""
    measure: Measure | None
    session_id: str | None
    """Of a session's own limit; `None` of a shared one."""
    agent: str | None
    customer_id: str | None
    at_ms: int
    """When the first call was refused."""
    calls: int = 0
    cost_nano_usd: int = 0
    """What the refused calls had cost."""
    session_calls: int = 0
    """Of a session's own limit: all calls that it had made."""

    @property
    def is_nearly_done(self) -> bool:
        """Whether a session had at most a quarter of its calls left to make.

        It may have been about to end well: then the limit is a false alarm.
        """
        return self.calls * 4 <= self.session_calls


@dataclass(slots=True, kw_only=True)
class Simulation:
    """What a policy would have done."""

    calls: int = 0
    cost_nano_usd: int = 0
    """Of all calls, as they were made."""
    refused_calls: int = 0
    refused_nano_usd: int = 0
    soft_alerts: int = 0
    unpriced: Counter[str] = field(default_factory=Counter[str])
    """Calls by model that a limit of cost meets and that had no price: they cost
    nothing here, and are refused until they have one."""
    refused: list[Refused] = field(default_factory=list[Refused])
    """By scope, the most expensive first."""

    @property
    def stopped_sessions(self) -> int:
        """Sessions that one of their own limits would have ended."""
        return len({row.session_id for row in self.refused if row.session_id})

    @property
    def false_alarm_candidates(self) -> int:
        """Sessions that a limit would have ended when they were nearly done."""
        return len({row.session_id for row in self.refused if row.is_nearly_done})


def simulated(events: Iterable[Event], policy: Policy) -> Simulation:
    """Puts calls to a policy again.

    Args:
        events: The calls, by the instant at which they ended, oldest first.
        policy: What would have been in force.
    """
    run = _Run(policy)
    for instant in _instants(events):
        run.take(instant)
    run.finish()
    run.result.refused.sort(key=lambda row: (-row.cost_nano_usd, -row.calls, row.at_ms))
    return run.result


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Instant:
    """The beginning or the end of a call."""

    at_ms: int
    is_begin: bool
    """At the same instant ends come first: they make room."""
    number: int
    event: Event = field(compare=False)


def _instants(events: Iterable[Event]) -> Iterator[_Instant]:
    """Returns beginnings and ends in their order, holding back the last minutes."""
    waiting: list[_Instant] = []
    for number, event in zip(count(), events, strict=False):
        end_ms = event.time_ms
        began_ms = end_ms - min(max(event.latency_ms or 0, 0), CALL_MS_MAX)
        # A call that took no time ends after it began, whatever their order is.
        end = (end_ms + 1 if began_ms == end_ms else end_ms, False)
        for at_ms, is_begin in ((began_ms, True), end):
            instant = _Instant(
                at_ms=at_ms, is_begin=is_begin, number=number, event=event
            )
            heapq.heappush(waiting, instant)
        while waiting and waiting[0].at_ms < end_ms - CALL_MS_MAX:
            yield heapq.heappop(waiting)
    while waiting:
        yield heapq.heappop(waiting)


class _Run:
    def __init__(self, policy: Policy) -> None:
        self.result = Simulation()
        self._policy = policy
        self._ledger = Ledger()
        self._open: dict[int, Charging] = {}
        self._paths: dict[str | None, tuple[str, ...]] = {}
        self._calls: Counter[str | None] = Counter()
        self._rows: dict[tuple[str, Measure | None, str | None], Refused] = {}

    def take(self, instant: _Instant) -> None:
        """Begins or ends a call."""
        if instant.is_begin:
            self._begin(instant)
        elif (charging := self._open.pop(instant.number, None)) is not None:
            self._end(instant, charging)

    def finish(self) -> None:
        """Says of each session that was stopped how many calls it had made."""
        for row in self.result.refused:
            if row.session_id is not None:
                row.session_calls = self._calls[row.session_id]

    def _begin(self, instant: _Instant) -> None:
        event, result = instant.event, self.result
        self._calls[event.attribution.session_id] += 1
        cost = event.charge.cost_nano_usd or 0
        result.calls += 1
        result.cost_nano_usd += cost
        if result.calls % SWEEP_EVERY == 0:
            self._ledger.apply(Sweep(now_ms=instant.at_ms))
        charging = self._charging(event, instant.at_ms)
        if event.charge.cost_nano_usd is None and self._needs_price(event, charging):
            result.unpriced[event.model or "unknown"] += 1
        reply = self._ledger.apply(
            Reserve(
                hold_id=str(instant.number),
                charging=charging,
                kind=event.kind,
                cost_nano_usd=event.reserved_nano_usd,
                tokens=event.usage.total_tokens if event.usage else 0,
                now_ms=instant.at_ms,
                expires_at_ms=instant.at_ms + 2 * CALL_MS_MAX,
                active_ms=(0,),
            )
        )
        assert isinstance(reply, Reserved)
        result.soft_alerts += len(reply.crossings)
        if reply.verdict is Verdict.ALLOW:
            self._open[instant.number] = charging
            return
        assert reply.refusal is not None
        result.refused_calls += 1
        result.refused_nano_usd += cost
        self._refuse(reply.refusal, instant)

    def _needs_price(self, event: Event, charging: Charging) -> bool:
        is_refused = self._policy.on_unpriced is OnUnpriced.REFUSE
        return is_refused and event.kind is CallKind.MODEL and charging.limits_cost

    def _end(self, instant: _Instant, charging: Charging) -> None:
        event = instant.event
        reply = self._ledger.apply(
            Settle(
                hold_id=str(instant.number),
                charging=charging,
                kind=event.kind,
                cost_nano_usd=event.charge.cost_nano_usd or 0,
                tokens=event.usage.total_tokens if event.usage else 0,
                now_ms=instant.at_ms,
                active_ms=(0,),
                event=event,
            )
        )
        self.result.soft_alerts += len(getattr(reply, "crossings", ()))

    def _charging(self, event: Event, now_ms: int) -> Charging:
        who, policy = event.attribution, self._policy
        # Agents that come later run inside the session's own, which called first.
        path = self._paths.setdefault(who.session_id, who.agent_path)
        agent = path[-1] if path else None
        owner = replace(who, agent=agent, agent_path=path)
        sessions = [(policy.session_budget(agent), owner)]
        lines = call_lines(policy, sessions, who, tool=event.tool_name, now_ms=now_ms)
        return Charging(
            attribution=who,
            lines=lines,
            loop=LoopRule(action=LoopAction.WARN),
            is_enforced=True,
        )

    def _refuse(self, refusal: Refusal, instant: _Instant) -> None:
        stop, who = refusal.stop, instant.event.attribution
        # A stop is met again by every later call: what had set it is to blame.
        measure = stop.measure if stop is not None else refusal.measure
        scope = (stop and stop.scope) or refusal.line.scope
        session_id = who.session_id if refusal.line.is_session else None
        row = self._rows.get((refusal.line.account, measure, session_id))
        if row is None:
            row = Refused(
                scope=scope,
                measure=measure,
                session_id=session_id,
                agent=who.agent if session_id else None,
                customer_id=who.customer_id if session_id else None,
                at_ms=instant.at_ms,
            )
            self._rows[(refusal.line.account, measure, session_id)] = row
            self.result.refused.append(row)
        row.calls += 1
        row.cost_nano_usd += instant.event.charge.cost_nano_usd or 0
