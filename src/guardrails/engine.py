"""The engine: plan -> execute -> decide -> emit, for one guard.

Everything that a call needs from outside meets here: store, prices, clock and
sinks. The methods come in pairs; the only line that differs hands the
operation to the store.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from guardrails.charges import Charges
from guardrails.core.accounts import Charging
from guardrails.core.admission import (
    Reservation,
    plan_release,
    plan_reserve,
    plan_settle,
)
from guardrails.core.attribution import Attribution
from guardrails.core.calls import ModelCall, Outcome, ToolCall
from guardrails.core.operations import (
    Conflict,
    Operation,
    Reserve,
    Reserved,
    Settle,
    Settled,
    Turn,
    Verdict,
)
from guardrails.core.policy import Policy
from guardrails.core.telling import Telling
from guardrails.core.tracebacks import let_through
from guardrails.errors import (
    GuardrailsError,
    ReservationConflict,
    StoreUnavailable,
)
from guardrails.observing import Observer
from guardrails.ports import Clock, EventSink, PriceBook, Store
from guardrails.refusals import refusal_error, refusing
from guardrails.sweeping import Sweeping
from guardrails.system.ids import new_key
from guardrails.system.interrupts import is_broken_off, to_its_end, unbroken
from guardrails.system.logs import host_log
from guardrails.system.threads import is_on_event_loop

if TYPE_CHECKING:
    from guardrails.sessions.session import Session

__all__ = ["HOLD_TTL_MS", "Engine"]

HOLD_TTL_MS = 600_000
"""How long a call may run before its hold counts as unconfirmed: longer than
the request timeout of any provider's client."""

R = TypeVar("R")

_log = host_log()


class Engine:
    """Executes the operations of one guard. Thread safe."""

    def __init__(
        self,
        *,
        policy: Policy,
        store: Store,
        prices: PriceBook,
        clock: Clock,
        open_session: Callable[..., "Session"],
        sinks: Sequence[EventSink] = (),
        telling: Telling | None = None,
    ) -> None:
        self.policy: Policy = policy
        self.store = store
        self.clock = clock
        self.open_session = open_session
        """Opens a session for adapters, by the names of `Guard.session`; `is_served`
        if they came with a request of somebody else."""
        self.sinks = sinks
        self.telling = telling
        """What the ledger tells people of; `None` if nobody wants to know."""
        self.refused: Callable[[Attribution], object] = _ignore
        """Told that a shared budget has refused a call; must not block."""
        self._observer = Observer(self.emit)
        self.charges: Charges = Charges(
            policy=policy,
            prices=prices,
            contain=self.contain,
            missing=self._observer.unpriced,
        )
        self.refresh: Callable[[], None] = lambda: None
        """Takes up a configuration that has changed. Sessions ask every few seconds."""
        self.attachments: dict[str, object] = {}
        """What adapters keep per guard, by a name of their own."""
        self.failures: int = 0
        """Failures of ours that were contained."""
        self._sweeping = Sweeping(clock)
        self._key_meanwhile = new_key()

    def adopt(self, policy: Policy, prices: PriceBook | None) -> None:
        """Goes on with another policy. Calls in flight settle as they were reserved.

        Args:
            policy: What holds from now on.
            prices: What models cost from now on; `None` as before.
        """
        self.charges.adopt(policy, prices)
        self.policy = policy

    @property
    def fingerprint_key(self) -> bytes:
        """The store's, so that processes agree; our own until it has told it."""
        try:
            return self.store.secret()
        except Exception as error:
            if not isinstance(error, StoreUnavailable):  # Which is said elsewhere.
                self.contain(error, "reading the fingerprint key")
        return self._key_meanwhile

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
            output_tokens = self.charges.output_tokens(call, charging.attribution.agent)
            charge = self.charges.model_bound(call, output_tokens, charging, now_ms)
        else:
            charge = self.charges.tool_charge(call)
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

    def reserve(
        self, reservation: Reservation, *, ended: Settle | None = None
    ) -> Reservation:
        """Holds the call's upper bound, and returns what was reserved.

        Args:
            reservation: The call, as planned.
            ended: What books a call that has ended, in the same round trip. After
                an error it may have to be booked again.

        Raises:
            SessionStopped: If a limit, a loop or a person ended the session.
            CallRefused: If only this call may not be made.
        """
        give_up_at_ms = self.clock.monotonic_ms() + self._patience_ms()
        pause_ms = 1
        while True:
            with refusing():
                reply = self._asked(reservation.op, ended)
            ended = None
            if self._admits(reservation, reply, is_last=self._is_late(give_up_at_ms)):
                return self._observer.noted(reservation, reply)
            self.clock.sleep(pause_ms / 1000)
            pause_ms = min(pause_ms * 2, 100)

    def _asked(self, op: Reserve, ended: Settle | None) -> Reserved | Conflict:
        if ended is None:
            return self.store.execute(op)
        reply = self.store.execute(Turn(settle=ended, reserve=op))
        self._settled(ended, reply.settled)
        self._sweep()
        return reply.reserved

    async def areserve(self, reservation: Reservation) -> Reservation:
        """Like `reserve`, for asyncio. A task that is cancelled holds nothing."""
        give_up_at_ms = self.clock.monotonic_ms() + self.policy.wait_ms_max
        pause_ms = 1
        while True:
            asking, cancelled = await to_its_end(
                self.store.aexecute(reservation.op),
                or_at_once=lambda: self._forgo(reservation),
            )
            if cancelled is not None:
                await self._give_back(reservation, asking)
                raise cancelled
            with refusing():
                reply = asking.result()
            if self._admits(reservation, reply, is_last=self._is_late(give_up_at_ms)):
                return self._observer.noted(reservation, reply)
            await self.clock.asleep(pause_ms / 1000)
            pause_ms = min(pause_ms * 2, 100)

    async def _give_back(
        self, reservation: Reservation, asking: "asyncio.Task[Reserved | Conflict]"
    ) -> None:
        """Gives back what a task was granted although it was cancelled."""
        if not is_broken_off(asking) and asking.exception() is None:
            with contextlib.suppress(GuardrailsError):  # Refused: nothing is held.
                if self._admits(reservation, asking.result(), is_last=True):
                    await self.arelease(reservation)

    def _forgo(self, reservation: Reservation) -> None:
        """Sees to it that nothing is held of a call, although it may yet be asked for.

        Asked for and given back here first, the question of a task or a thread finds
        the hold released and changes nothing, whenever it arrives.
        """
        try:
            self.store.execute(reservation.op)
        except Exception as error:  # Also when the interpreter ends.
            self.contain(error, "giving a call back")
        self.release(reservation)

    def _patience_ms(self) -> int:
        """Returns how long a synchronous call may wait for open holds.

        On an event loop's thread not at all: the holds settle on that very loop.
        """
        return 0 if is_on_event_loop() else self.policy.wait_ms_max

    def _is_late(self, give_up_at_ms: int) -> bool:
        return self.clock.monotonic_ms() >= give_up_at_ms

    def _admits(
        self, reservation: Reservation, reply: Reserved | Conflict, *, is_last: bool
    ) -> bool:
        """Returns whether the call may be made; False to wait and ask again."""
        op = reservation.op
        if isinstance(reply, Conflict):
            raise ReservationConflict(
                f"reservation id {op.hold_id!r} was used before, for another call or "
                "for one that was given back. Use a new id for each call."
            )
        who = op.charging.attribution
        if reply.new_stop is not None:
            self.emit(lambda sink, stop=reply.new_stop: sink.stopped(stop, who))
        for crossing in reply.crossings:
            self.emit(lambda sink, crossing=crossing: sink.crossed(crossing, who))
        if reply.verdict is Verdict.ALLOW:
            return True
        if reply.verdict is Verdict.WAIT and not is_last:
            return False
        assert reply.refusal is not None
        if not reply.refusal.line.is_session:
            self.refused(who)
        raise refusal_error(
            reply.refusal,
            op.charging,
            is_final=reply.verdict is Verdict.DENY,
            store=self.store,
        )

    # --- settle and release -------------------------------------------------

    def plan_settlement(
        self,
        reservation: Reservation,
        outcome: Outcome,
        *,
        began_ms: int,
        active_ms: tuple[int, ...],
    ) -> Settle:
        """Plans to book what a call turned out to be."""
        now_ms = self.clock.now_ms()
        usage, charge = self.charges.settled_charge(reservation, outcome, now_ms)
        return plan_settle(
            reservation,
            outcome=outcome,
            took_ms=self.clock.monotonic_ms() - began_ms,
            usage=usage,
            charge=charge,
            now_ms=now_ms,
            active_ms=active_ms,
        )

    def settle(self, op: Settle) -> None:
        """Books a call. Never raises: what is already paid must not fail."""
        try:
            reply = self.store.execute(op)
        except Exception as error:
            self.contain(error, "settling a call")
        else:
            self._settled(op, reply)
        self._sweep()

    async def asettle(self, op: Settle) -> None:
        """Like `settle`, for asyncio. A cancelled task books before it ends."""
        booking, cancelled = await to_its_end(
            self.store.aexecute(op), or_at_once=lambda: self.settle(op)
        )
        if not is_broken_off(booking):
            try:
                reply = booking.result()
            except Exception as error:
                self.contain(error, "settling a call")
            else:
                self._settled(op, reply)
        if cancelled is not None:
            raise cancelled
        if (sweep := self._sweeping.due()) is not None:
            await self.atell(sweep, doing="sweeping")

    def release(self, reservation: Reservation) -> None:
        """Gives a call back that was never sent. Never raises."""
        op = plan_release(reservation, now_ms=self.clock.now_ms())
        self.tell(op, doing="releasing a call")

    async def arelease(self, reservation: Reservation) -> None:
        """Like `release`, for asyncio. A cancelled task gives back before it ends."""
        op = plan_release(reservation, now_ms=self.clock.now_ms())
        await self.atell(op, doing="releasing a call")

    @unbroken
    def tell(self, op: Operation[Any], *, doing: str) -> None:
        """Executes what may be done twice, and needs no answer. Never raises."""
        try:
            self.store.execute(op)
        except Exception as error:
            self.contain(error, doing)

    async def atell(self, op: Operation[Any], *, doing: str) -> None:
        """Like `tell`, for asyncio. A cancelled task tells it before it ends."""
        telling, cancelled = await to_its_end(
            self.store.aexecute(op), or_at_once=lambda: self.tell(op, doing=doing)
        )
        if not is_broken_off(telling) and (error := telling.exception()) is not None:
            self.contain(error, doing)
        if cancelled is not None:
            raise cancelled

    def contain(self, error: BaseException, doing: str) -> None:
        """Counts a failure of ours and says so; it never reaches the host.

        An interrupt is none, and goes on.
        """
        let_through(error)
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

    def _sweep(self) -> None:
        if (sweep := self._sweeping.due()) is not None:
            self.tell(sweep, doing="sweeping")

    def _settled(self, op: Settle, reply: Settled | Conflict) -> None:
        """Tells the sinks of what the store has booked."""
        if isinstance(reply, Conflict):
            text = f"reservation id {op.hold_id!r} was used twice"
            self.contain(ReservationConflict(text), "settling a call")
            return
        if not reply.is_applied:
            return
        who = op.charging.attribution
        self._observer.settled(op.event)
        for crossing in reply.crossings:
            self.emit(lambda sink, crossing=crossing: sink.crossed(crossing, who))
        if reply.finding is not None:
            self.emit(lambda sink, loop=reply.finding: sink.looped(loop, who))
        if reply.new_stop is not None:
            self.emit(lambda sink, stop=reply.new_stop: sink.stopped(stop, who))

    def emit(self, tell: Callable[[EventSink], None]) -> None:
        """Tells every sink; what it raises is contained."""
        for sink in self.sinks:
            try:
                tell(sink)
            except Exception as error:
                self.contain(error, f"telling {type(sink).__name__}")


def _ignore(who: Attribution) -> None:
    """Stands for nobody who wants to know."""
