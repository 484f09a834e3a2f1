"""Guarded calls: one reservation around one model call or tool call.

    new ──reserve──▶ open ──settle, or leaving──▶ done
     ▲                └──release──▶ released ──settle──▶ done
     └────────────── become ──────────┘

What `settle` says counts; without it, leaving books what the way out shows. Inside
`async with` both `settle` and `release` only note what leaving then waits for.
"""

from dataclasses import replace
from decimal import Decimal
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Self

from guardrails.core.accounts import Charging
from guardrails.core.admission import Reservation
from guardrails.core.attribution import Attribution, clean_name
from guardrails.core.calls import CallKind, ModelCall, Outcome, ToolCall
from guardrails.core.layers import Layer
from guardrails.core.money import nano_usd
from guardrails.core.operations import Settle
from guardrails.core.policy import Mode
from guardrails.core.usage import TokenUsage
from guardrails.errors import ConfigurationError
from guardrails.sessions import scope
from guardrails.sessions.closing import akeep_reserve, keep_reserve
from guardrails.sessions.layering import learnt_layers
from guardrails.sessions.outcomes import checked_usage, failed, text_of
from guardrails.sessions.sharing import active_ms_of, charging_of
from guardrails.system.ids import new_id
from guardrails.system.interrupts import all_or_nothing, unbroken
from guardrails.system.one_process import OfOneProcess

if TYPE_CHECKING:
    from guardrails.sessions.session import Session

__all__ = ["GuardedCall"]

_State = Enum("_State", ("NEW", "OPEN", "RELEASED", "DONE"))
"""Where a call is in the picture above."""

_UNKNOWN = object()
"""Stands for a result that was not given: `None` is a result too."""


class GuardedCall(OfOneProcess, instead="Make the call there."):
    """One model call or tool call: reserved on entering, settled on leaving.

    A context manager, sync and async; not for reuse. Inside, `settle` books what was
    consumed. Without it all that was reserved is booked: of a model call flagged
    `estimated`, and after an error without the output. That is booked all the same if
    nobody waited for the answer any more, or the connection broke. A tool's call costs
    its price however it ends.

    Raises:
        SessionStopped: On entering, if the session is over or this call would
            pass one of its limits. Nothing has been sent then.
        CallRefused: On entering, if only this call may not be made.
        ReservationConflict: On entering, if its id was another's, or was given back.
    """

    def __init__(
        self,
        session: "Session",
        call: ModelCall | ToolCall,
        *,
        attribution: Attribution | None = None,
        charging: Charging | None = None,
        hold_id: str | None = None,
    ) -> None:
        self._session = session
        self._charging = charging
        self._engine = session.engine
        self._call = call
        self._hold_id = hold_id
        self._attribution = attribution
        self._reservation: Reservation | None = None
        self._outcome: Outcome | None = None
        self._fallback: Outcome | None = None
        """For a call that was made, as far as its settling could not be read."""
        self._state = _State.NEW
        self._is_async = False
        self.goes_on = False
        """Its work goes on after the block, which books nothing: `finish` follows."""
        self.outer: GuardedCall | None = None
        """The tool call around this one in its context, of this guard or another."""
        self.beside: Session | None = None
        """Another session that pays for it."""
        self._is_offered = False
        self._started_ms = 0
        self._attempt = 1
        self._mark: Layer | None = None
        """What the code around it says that its input is for."""

    @property
    def call(self) -> ModelCall | ToolCall:
        """What was reserved."""
        return self._call

    @property
    def session(self) -> "Session":
        """The session that is charged."""
        return self._session

    @property
    def attribution(self) -> Attribution:
        """Whom the call is charged to."""
        if self._reservation is not None:
            return self._reservation.op.charging.attribution
        return self._attribution or self._session.attribution

    @property
    def offered(self) -> ToolCall | None:
        """The tool call that a framework has opened and nobody has claimed yet."""
        is_offered = self._is_offered and self.is_open
        return self._call if is_offered and isinstance(self._call, ToolCall) else None

    @property
    def is_open(self) -> bool:
        """Whether the call is reserved and neither settled nor released."""
        return self._state is _State.OPEN

    @unbroken
    def settle(
        self,
        usage: TokenUsage | None = None,
        *,
        cost_usd: Decimal | str | int | None = None,
        model: str | None = None,
        result: object = _UNKNOWN,
    ) -> None:
        """Books what the call consumed. Only the first settling counts.

        Inside `async with` the booking is done on leaving. A call that was
        released is booked all the same: somebody says that it was made.

        Args:
            usage: The tokens that the provider reported.
            cost_usd: The cost, if the provider or gateway reported it.
            model: The model that answered, if not the one asked for.
            result: A tool's result, for recognising loops; only its digest is
                kept.

        Raises:
            ConfigurationError: If the call was never entered, or what is given is no
                usage or no cost. What was reserved is booked on leaving then.
        """
        if self._engine.policy.mode is Mode.OFF:
            return
        if self._state is _State.NEW:
            raise ConfigurationError(
                "settle: the call was not reserved, so it is not guarded. Write "
                "`with guard.call(...) as call:` and settle inside."
            )
        try:
            outcome = Outcome(
                usage=checked_usage(usage),
                model=clean_name(model),
                cost_nano_usd=None
                if cost_usd is None
                else nano_usd(cost_usd, name="settle.cost_usd"),
                result_digest=self.digest_of(result),
            )
        except ValueError as error:
            self._fallback = Outcome()
            raise ConfigurationError(str(error)) from None
        if self._state is _State.RELEASED:
            self._state = _State.OPEN
        self._outcome = self._outcome or outcome
        if not self._is_async:
            self.finish(self._outcome)

    def release(self) -> None:
        """Gives the reservation back, because the call was never sent.

        Does nothing once it is settled. Inside `async with` it is done on leaving.
        """
        reservation = self._withdrawn()
        if reservation is not None and not self._is_async:
            self._engine.release(reservation)

    def __enter__(self) -> Self:
        self._refuse_reuse()
        all_or_nothing(self._enter, self._step_back)
        return self

    @unbroken
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave_scope()
        if not self.goes_on or error is not None:
            self.finish(self._outcome or self._fallback or self.outcome_of(error))

    async def __aenter__(self) -> Self:
        self._refuse_reuse()
        self._is_async = True
        await self.areserve()
        self.enter_scope()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave_scope()
        self._is_async = False  # Nothing waits for leaving any more.
        outcome = self._outcome or self._fallback or self.outcome_of(error)
        given_back = self._reservation if self._state is _State.RELEASED else None
        if kind is GeneratorExit:  # Thrown away, maybe after its loop: it cannot wait.
            if given_back is not None:
                self._engine.release(given_back)
            self.finish(outcome)
        elif given_back is not None:
            await self._engine.arelease(given_back)
        else:
            await self.afinish(outcome)

    # --- for adapters -------------------------------------------------------

    def reserve(self, *, ended: Settle | None = None) -> None:
        """Holds the call's upper bound.

        Args:
            ended: Books an ended call in the same round trip; after an error do again.
        """
        if (reservation := self._plan()) is not None:
            budget = self._session.budget
            if self._charging is None:
                keep_reserve(self._engine, reservation, budget, ended=ended)
            all_or_nothing(
                lambda: self._admitted(self._engine.reserve(reservation, ended=ended)),
                lambda: self._engine.release(reservation),
            )
        elif ended is not None:
            self._engine.settle(ended)

    async def areserve(self) -> None:
        """Like `reserve`, for asyncio."""
        if (reservation := self._plan()) is not None:
            scope.needs_asyncio()
            if self._charging is None:
                await akeep_reserve(self._engine, reservation, self._session.budget)
            self._admitted(await self._engine.areserve(reservation))

    def settlement(self, outcome: Outcome) -> Settle | None:
        """Returns what books the call; `None` if there is nothing (more) to book."""
        if not self.is_open:
            return None
        assert self._reservation is not None
        self._state = _State.DONE
        try:
            op = self._engine.plan_settlement(
                self._reservation,
                outcome,
                began_ms=self._started_ms,
                active_ms=active_ms_of(self),
            )
            session, efforts = self._session, self._session.efforts
            efforts.ended(self._call, self.attribution.agent_path, outcome.status)
            is_repeat = op.trace is not None and efforts.repeats(op.trace)
            mark = self._mark
            layers = learnt_layers(session, self._call, outcome, op.event, mark=mark)
            if is_repeat or layers or self._attempt > 1:
                more = {"attempt": self._attempt, "is_repeat": is_repeat}
                op = replace(op, event=replace(op.event, layers=layers, **more))
        except Exception as error:
            self._engine.contain(error, "settling a call")
            return None
        else:
            return op

    @unbroken
    def finish(self, outcome: Outcome) -> None:
        """Books what the call turned out to be, once. Never raises."""
        before = self._state
        try:
            if (op := self.settlement(outcome)) is not None:
                self._engine.settle(op)
        except BaseException:  # Interrupted. Booking twice counts once.
            self._state = before
            raise

    async def afinish(self, outcome: Outcome) -> None:
        """Like `finish`, for asyncio."""
        if (op := self.settlement(outcome)) is not None:
            await self._engine.asettle(op)

    async def arelease(self) -> None:
        """Like `release`, for asyncio, and at once."""
        if (reservation := self._withdrawn()) is not None:
            await self._engine.arelease(reservation)

    def become(self, call: ToolCall, attribution: Attribution) -> None:
        """Takes another call's place after a release; it has yet to be reserved."""
        assert not self.is_open
        self._call, self._attribution = call, attribution
        self._reservation = self._hold_id = None
        self._state = _State.NEW

    def offer(self) -> None:
        """Lets the call be claimed once more, by what it runs next."""
        self._is_offered = True

    def claim(self, tool: str) -> bool:
        """Takes the call over for the function of that name that it runs.

        Only what a framework has opened can be taken over, and only once: the
        function may call itself, and each of those calls counts.
        """
        offered = self.offered
        if offered is None or offered.tool != tool:
            return False
        self._is_offered = False
        return True

    def enter_scope(self, *, is_offered: bool = False) -> None:
        """Marks this context as being inside the call, if it is a tool's.

        Args:
            is_offered: A framework runs the tool; its function may `claim` the
                call instead of opening one of its own.
        """
        self._is_offered = is_offered
        if self._call.kind is CallKind.TOOL:
            self.outer = scope.current_call.get()
            scope.current_call.set(self)

    @unbroken
    def leave_scope(self) -> None:
        """Ends `enter_scope`, also while a call of another guard inside stays."""
        scope.take_out(self, scope.current_call)

    def _enter(self) -> None:
        self.reserve()
        self.enter_scope()

    def _step_back(self) -> None:
        self.leave_scope()
        self.release()

    def _withdrawn(self) -> Reservation | None:
        """Gives the call back, and returns what the store has to be told of."""
        if not self.is_open or self._outcome is not None:
            return None
        self._state = _State.RELEASED
        return self._reservation

    def _plan(self) -> Reservation | None:
        """Plans the call; `None` when the guard is off."""
        if self._engine.policy.mode is Mode.OFF or self._state is not _State.NEW:
            return None
        self._session.activate()
        charging = self._charging or charging_of(self)
        if isinstance(self._call, ModelCall):
            path = charging.attribution.agent_path
            self._call = self._session.anchors.bounded(self._call, path)
            self._mark = scope.current_layer.get()
        return self._engine.plan(
            self._call,
            hold_id=self._hold_id or new_id(),
            charging=charging,
            active_ms=active_ms_of(self),
        )

    def _admitted(self, reservation: Reservation) -> None:
        self._reservation, self._state = reservation, _State.OPEN
        efforts, path = self._session.efforts, self.attribution.agent_path
        self._attempt = efforts.attempt(self._call, path)
        self._started_ms = self._engine.clock.monotonic_ms()

    def outcome_of(self, error: BaseException | None) -> Outcome:
        """Returns the outcome of a call that ended so, and that nobody settled."""
        return Outcome() if error is None else failed(error, self.failure_digest)

    def failure_digest(self, error: BaseException) -> str | None:
        """Returns the digest of how a tool has failed."""
        return self.digest_of({"error": [type(error).__name__, text_of(error)]})

    def digest_of(self, result: object) -> str | None:
        """Returns the digest of a tool's result."""
        call = self._call
        if result is _UNKNOWN or not isinstance(call, ToolCall):
            return None
        if call.arguments_digest is None:
            return None  # It takes no part in loops.
        return self._session.fingerprint(result, label=call.name, is_result=True)

    def _refuse_reuse(self) -> None:
        if self._state is not _State.NEW:
            raise ConfigurationError(
                "call: it was used before. Call guard.call(...) again for each call."
            )
