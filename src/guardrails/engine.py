"""The engine: plan -> execute -> decide -> emit, for one guard.

Everything that a call needs from outside meets here: store, prices, clock and
sinks. The methods come in pairs; the only line that differs hands the
operation to the store.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from guardrails.core.accounts import Charging, Stop, StopReason
from guardrails.core.admission import (
    Reservation,
    plan_release,
    plan_reserve,
    plan_settle,
)
from guardrails.core.calls import ModelCall, Outcome, ToolCall
from guardrails.core.decisions import amount, decide
from guardrails.core.estimates import output_tokens_max
from guardrails.core.money import usd
from guardrails.core.operations import (
    Conflict,
    Refusal,
    Reserved,
    Settle,
    Settled,
    Sweep,
    Verdict,
)
from guardrails.core.policy import OnUnpriced, Policy
from guardrails.core.rollups import spend_of
from guardrails.core.usage import UNPRICED, Charge, PriceStatus, TokenUsage
from guardrails.errors import (
    BudgetExceeded,
    CallRefused,
    LoopDetected,
    ReservationConflict,
    SessionStopped,
    StoreUnavailable,
    UnpricedModelError,
)
from guardrails.ids import new_key
from guardrails.ports import Clock, EventSink, PriceBook, Store

if TYPE_CHECKING:
    from guardrails.session import Session

__all__ = ["Engine", "ToolPrice"]

HOLD_TTL_MS = 600_000
"""How long a call may run before its hold counts as unconfirmed: longer than
the request timeout of any provider's client."""

SWEEP_EVERY = 256
"""Calls between two sweeps: rare enough to cost nothing, often enough that
what is over does not pile up."""

OUTPUTS_MAX = 4_096
"""Pairs of agent and model whose largest output is remembered."""

TOP_COSTS = 3
"""Causes that a stop names."""

TOP_COSTS_EVENTS = 1_000
"""Calls that are looked at for them."""

_log = logging.getLogger("guardrails")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPrice:
    """What `@guard.tool` declares about a function."""

    server: str | None
    cost_nano_usd: int | None


class Engine:
    """Executes the operations of one guard. Thread safe."""

    def __init__(
        self,
        *,
        policy: Policy,
        store: Store,
        prices: PriceBook,
        clock: Clock,
        open_session: Callable[[Mapping[str, object]], "Session"],
        sinks: Sequence[EventSink] = (),
    ) -> None:
        self.policy = policy
        self.store = store
        self.prices = prices
        self.clock = clock
        self.open_session = open_session
        """Opens a session for adapters, by the names of `Guard.session`."""
        self.sinks = sinks
        self.tools: dict[str, ToolPrice] = {}
        """Declared tools by name."""
        self.attachments: dict[str, object] = {}
        """What adapters keep per guard, by a name of their own."""
        self.failures = 0
        """Failures of ours that were contained."""
        self._outputs: OrderedDict[tuple[str | None, str], int] = OrderedDict()
        self._lock = threading.Lock()
        self._calls = 0

    @cached_property
    def fingerprint_key(self) -> bytes:
        """The key of all fingerprints: the store's, so that processes agree."""
        try:
            return self.store.secret()
        except Exception as error:
            self.contain(error, "reading the fingerprint key")
            return new_key()

    # --- reserve ------------------------------------------------------------

    def plan(
        self,
        call: ModelCall | ToolCall,
        *,
        hold_id: str,
        charging: Charging,
        active_ms: tuple[int, ...],
    ) -> Reservation:
        """Plans a call.

        Raises:
            UnpricedModelError: If its price is not known and the policy refuses
                such calls.
        """
        now_ms = self.clock.now_ms()
        output_tokens = 0
        if isinstance(call, ModelCall):
            output_tokens = self._output_tokens(call, charging.attribution.agent)
            charge = self._model_bound(call, output_tokens, charging, now_ms)
        else:
            charge = self._tool_charge(call)
        return plan_reserve(
            call,
            hold_id=hold_id,
            charging=charging,
            charge=charge,
            output_tokens=output_tokens,
            now_ms=now_ms,
            ttl_ms=HOLD_TTL_MS,
            active_ms=active_ms,
        )

    def reserve(self, reservation: Reservation) -> None:
        """Holds the call's upper bound.

        Raises:
            SessionStopped: If a limit, a loop or a person ended the session.
            CallRefused: If only this call may not be made.
        """
        self._sweep_sometimes()
        give_up_at_ms = self.clock.monotonic_ms() + self.policy.wait_ms_max
        pause_ms = 1
        while True:
            with _refusing(reservation):
                reply = self.store.execute(reservation.op)
            if self._admits(reservation, reply, is_last=self._is_late(give_up_at_ms)):
                return
            self.clock.sleep(pause_ms / 1000)
            pause_ms = min(pause_ms * 2, 100)

    async def areserve(self, reservation: Reservation) -> None:
        """Like `reserve`, for asyncio."""
        self._sweep_sometimes()
        give_up_at_ms = self.clock.monotonic_ms() + self.policy.wait_ms_max
        pause_ms = 1
        while True:
            with _refusing(reservation):
                reply = await self.store.aexecute(reservation.op)
            if self._admits(reservation, reply, is_last=self._is_late(give_up_at_ms)):
                return
            await self.clock.asleep(pause_ms / 1000)
            pause_ms = min(pause_ms * 2, 100)

    def _is_late(self, give_up_at_ms: int) -> bool:
        return self.clock.monotonic_ms() >= give_up_at_ms

    def _admits(
        self, reservation: Reservation, reply: Reserved | Conflict, *, is_last: bool
    ) -> bool:
        """Returns whether the call may be made; False to wait and ask again."""
        op = reservation.op
        if isinstance(reply, Conflict):
            raise ReservationConflict(
                f"reservation id {op.hold_id!r} was used before for another call. "
                "Use a new id for each call."
            )
        who = op.charging.attribution
        if reply.new_stop is not None:
            self._emit(lambda sink, stop=reply.new_stop: sink.stopped(stop, who))
        for crossing in reply.crossings:
            self._emit(lambda sink, crossing=crossing: sink.crossed(crossing, who))
        if reply.verdict is Verdict.ALLOW:
            return True
        if reply.verdict is Verdict.WAIT and not is_last:
            return False
        assert reply.refusal is not None
        raise self._refusal(
            reply.refusal, op.charging, is_final=reply.verdict is Verdict.DENY
        )

    # --- settle and release -------------------------------------------------

    def plan_settlement(
        self,
        reservation: Reservation,
        outcome: Outcome,
        *,
        active_ms: tuple[int, ...],
    ) -> Settle:
        """Plans to book what a call turned out to be."""
        now_ms = self.clock.now_ms()
        usage, charge = self._settled_charge(reservation, outcome, now_ms)
        return plan_settle(
            reservation,
            outcome=outcome,
            usage=usage,
            charge=charge,
            now_ms=now_ms,
            active_ms=active_ms,
        )

    def settle(self, op: Settle) -> None:
        """Books a call. Never raises: what is already paid must not fail."""
        try:
            self._settled(op, self.store.execute(op))
        except Exception as error:
            self.contain(error, "settling a call")

    async def asettle(self, op: Settle) -> None:
        """Like `settle`, for asyncio."""
        try:
            self._settled(op, await self.store.aexecute(op))
        except Exception as error:
            self.contain(error, "settling a call")

    def release(self, reservation: Reservation) -> None:
        """Gives a call back that was never sent. Never raises."""
        try:
            now_ms = self.clock.now_ms()
            self.store.execute(plan_release(reservation, now_ms=now_ms))
        except Exception as error:
            self.contain(error, "releasing a call")

    async def arelease(self, reservation: Reservation) -> None:
        """Like `release`, for asyncio."""
        try:
            now_ms = self.clock.now_ms()
            await self.store.aexecute(plan_release(reservation, now_ms=now_ms))
        except Exception as error:
            self.contain(error, "releasing a call")

    def contain(self, error: BaseException, doing: str) -> None:
        """Counts a failure of ours and says so; it never reaches the host."""
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:  # The 1st, 2nd, 4th, 8th, …
            # Only the type: the text of an error may hold content.
            text = str(error) if isinstance(error, StoreUnavailable) else ""
            _log.error(
                "guardrails: %s failed (%s%s); %d such failures so far.",
                doing,
                type(error).__name__,
                f": {text}" if text else "",
                self.failures,
            )

    def _settled(self, op: Settle, reply: Settled | Conflict) -> None:
        if isinstance(reply, Conflict):
            raise ReservationConflict(f"reservation id {op.hold_id!r} was used twice")
        if not reply.is_applied:
            return
        who = op.charging.attribution
        self._emit(lambda sink: sink.settled(op.event))
        for crossing in reply.crossings:
            self._emit(lambda sink, crossing=crossing: sink.crossed(crossing, who))
        if reply.finding is not None:
            self._emit(lambda sink, loop=reply.finding: sink.looped(loop, who))
        if reply.new_stop is not None:
            self._emit(lambda sink, stop=reply.new_stop: sink.stopped(stop, who))

    def _emit(self, tell: Callable[[EventSink], None]) -> None:
        for sink in self.sinks:
            try:
                tell(sink)
            except Exception as error:
                self.contain(error, f"telling {type(sink).__name__}")

    def _sweep_sometimes(self) -> None:
        with self._lock:
            self._calls += 1
            is_due = self._calls % SWEEP_EVERY == 1
        if is_due:
            self.sweep()

    def sweep(self) -> None:
        """Turns expired holds into unconfirmed ones. Never raises."""
        try:
            self.store.execute(Sweep(now_ms=self.clock.now_ms()))
        except Exception as error:
            self.contain(error, "sweeping")

    # --- prices -------------------------------------------------------------

    def _output_tokens(self, call: ModelCall, agent: str | None) -> int:
        return output_tokens_max(
            requested=call.output_tokens_max,
            largest_seen=self._outputs.get((agent, call.model), 0),
            is_strict=self.policy.is_estimate_strict,
        )

    def _model_bound(
        self, call: ModelCall, output_tokens: int, charging: Charging, now_ms: int
    ) -> Charge:
        try:
            charge = self.prices.bound(
                provider=call.provider,
                model=call.model,
                input_tokens=call.input_tokens_max,
                output_tokens=output_tokens,
                now_ms=now_ms,
            )
        except Exception as error:
            # Without a price the policy decides; a failure is no way past it.
            self.contain(error, "pricing a call")
            charge = UNPRICED
        if charge.cost_nano_usd is not None:
            return charge
        if self.policy.on_unpriced is OnUnpriced.WORST_CASE:
            return self.prices.worst_case(
                provider=call.provider,
                input_tokens=call.input_tokens_max,
                output_tokens=output_tokens,
            )
        refuses = self.policy.on_unpriced is OnUnpriced.REFUSE
        if refuses and charging.limits_cost and charging.is_enforced:
            raise UnpricedModelError(
                f"the price of model {call.model!r} (provider {call.provider!r}) is "
                "not known and a cost limit applies, so the call was not made. Add "
                f"models: {{{call.model!r}: {{input_per_1m_usd: ..., "
                "output_per_1m_usd: ...}} to guardrails.yaml, or set on_unpriced to "
                "worst_case or allow."
            )
        return charge

    def _tool_charge(self, call: ToolCall) -> Charge:
        cost = call.cost_nano_usd
        if cost is None:
            rule = self.policy.tool_rule(call.name)
            declared = self.tools.get(call.tool)
            if rule is not None:
                cost = rule.cost_nano_usd
            elif declared is not None:
                cost = declared.cost_nano_usd
        if cost is None:
            return UNPRICED
        return Charge(cost_nano_usd=cost, status=PriceStatus.PRICED, source="config")

    def _settled_charge(
        self, reservation: Reservation, outcome: Outcome, now_ms: int
    ) -> tuple[TokenUsage | None, Charge]:
        """Returns the usage and the cost to book."""
        call = reservation.call
        usage = outcome.usage
        if isinstance(call, ModelCall):
            if outcome.is_unsent:
                usage = TokenUsage()
            elif usage is None:
                usage = self._bounded_usage(reservation, outcome)
            else:
                self._learn_output(call, reservation, usage)
        if outcome.cost_nano_usd is not None:
            return usage, Charge(
                cost_nano_usd=outcome.cost_nano_usd,
                status=PriceStatus.REPORTED,
                source="provider",
            )
        if outcome.is_unsent:
            return usage, Charge(
                cost_nano_usd=0, status=PriceStatus.PRICED, source="not billed"
            )
        if usage is None or isinstance(call, ToolCall):
            return None, reservation.charge
        return usage, self._model_charge(call, outcome, usage, now_ms)

    def _model_charge(
        self, call: ModelCall, outcome: Outcome, usage: TokenUsage, now_ms: int
    ) -> Charge:
        charge = UNPRICED
        # The model that answered, often a dated snapshot, beats the alias.
        for model in (outcome.model, call.model):
            if model is not None and charge.cost_nano_usd is None:
                charge = self._price(call, model, usage, now_ms)
        if (
            charge.cost_nano_usd is None
            and self.policy.on_unpriced is OnUnpriced.WORST_CASE
        ):
            return self.prices.worst_case(
                provider=call.provider,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
            )
        if outcome.usage is None and charge.cost_nano_usd is not None:
            return replace(charge, status=PriceStatus.ESTIMATED)
        return charge

    def _price(
        self, call: ModelCall, model: str, usage: TokenUsage, now_ms: int
    ) -> Charge:
        try:
            return self.prices.price(
                provider=call.provider, model=model, usage=usage, now_ms=now_ms
            )
        except Exception as error:
            self.contain(error, "pricing a call")
            return UNPRICED

    def _bounded_usage(self, reservation: Reservation, outcome: Outcome) -> TokenUsage:
        """Bounds the usage of a call that reported none, by its reservation."""
        reserved_output = reservation.op.tokens - reservation.input_tokens
        output = outcome.output_tokens_max
        return TokenUsage(
            input_tokens=reservation.input_tokens,
            output_tokens=reserved_output if output is None else output,
        )

    def _learn_output(
        self, call: ModelCall, reservation: Reservation, usage: TokenUsage
    ) -> None:
        key = (reservation.op.charging.attribution.agent, call.model)
        if usage.output_tokens > self._outputs.get(key, 0):
            with self._lock:
                self._outputs[key] = usage.output_tokens
                if len(self._outputs) > OUTPUTS_MAX:
                    self._outputs.popitem(last=False)

    # --- refusals -----------------------------------------------------------

    def _refusal(
        self, refusal: Refusal, charging: Charging, *, is_final: bool
    ) -> SessionStopped | CallRefused:
        """Returns the exception that a refusal is raised as."""
        who = charging.attribution
        decision = decide(refusal, who, is_final=is_final)
        if not is_final or (decision.stop is None and refusal.finding is not None):
            return CallRefused(decision.message)
        common = {
            "session_id": who.session_id,
            "agent": who.agent,
            "attribution": who,
            "steps": refusal.steps,
        }
        stop = decision.stop or Stop(
            reason=StopReason.BUDGET_EXCEEDED,
            at_ms=0,
            measure=refusal.measure,
            scope=refusal.line.scope,
            used=refusal.used,
            allowed=refusal.allowed,
            needed=refusal.needed,
        )
        if stop.measure is not None:
            needed = None if stop.needed is None else amount(stop.measure, stop.needed)
            return BudgetExceeded(
                decision.message,
                reason=stop.reason.value,
                limit=stop.measure.value,
                scope=stop.scope or refusal.line.scope,
                spent=amount(stop.measure, stop.used),
                allowed=amount(stop.measure, stop.allowed),
                needed=needed,
                top_costs=self._top_costs(charging),
                **common,
            )
        if stop.finding is not None:
            return LoopDetected(
                decision.message,
                reason=stop.reason.value,
                tool=stop.finding.tool,
                count=stop.finding.count,
                cost=usd(stop.finding.cost_nano_usd),
                **common,
            )
        return SessionStopped(decision.message, reason=stop.reason.value, **common)

    def _top_costs(self, charging: Charging) -> tuple[tuple[str, Decimal, int], ...]:
        """Returns what the session spent most on, most expensive first."""
        who = charging.attribution
        sums: dict[str, tuple[int, int]] = {}
        try:
            events = self.store.history.events(
                project_id=who.project_id,
                session_id=who.session_id or "",
                limit=TOP_COSTS_EVENTS,
            )
        except Exception as error:
            self.contain(error, "reading the causes of a stop")
            return ()
        for event in events:
            tool = f"{event.server}/{event.tool}" if event.server else event.tool
            name = event.model or tool or "?"
            cost, calls = sums.get(name, (0, 0))
            sums[name] = (cost + spend_of(event).total_nano_usd, calls + 1)
        ranked = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
        return tuple(
            (name, usd(cost), calls) for name, (cost, calls) in ranked[:TOP_COSTS]
        )


class _refusing:
    """Turns an unavailable store into a refusal of this one call: the policy
    is `closed`, or nothing more can be remembered."""

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, StoreUnavailable):
            raise CallRefused(
                f"call refused: {error} (on_store_error decides what happens then)"
            ) from error
