"""Sessions: one agent interaction with one budget."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from fnmatch import fnmatchcase
from types import FrameType, TracebackType
from typing import Self

from guardrails.core.accounts import Account, Charging
from guardrails.core.attribution import Attribution
from guardrails.core.calls import ModelCall, ToolCall
from guardrails.core.events import Event
from guardrails.core.fingerprints import fingerprint
from guardrails.core.limits import effective_limits
from guardrails.core.lines import account_key, call_lines
from guardrails.core.money import usd
from guardrails.core.operations import Close, ReadAccount
from guardrails.core.policy import Budget, Mode, Policy
from guardrails.core.windows import Window
from guardrails.engine import Engine
from guardrails.errors import ConfigurationError, SessionStopped
from guardrails.sessions.anchors import Anchors
from guardrails.sessions.chargings import Chargings
from guardrails.sessions.contexts import left_elsewhere
from guardrails.sessions.efforts import Efforts
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.sessions.places import Place, enter, leave
from guardrails.sessions.scope import current_session, session_around, take_out
from guardrails.system.ids import new_id
from guardrails.system.interrupts import all_or_nothing, unbroken
from guardrails.system.one_process import OfOneProcess
from guardrails.system.threads import is_on_event_loop, new_lock

__all__ = ["Session"]

EVENTS_MAX = 1_000
"""Events that `Session.events` returns at most."""


class Session(OfOneProcess, instead="Open it there by its session_id."):
    """One agent interaction with one budget.

    A context manager, sync and async. All that is guarded inside is charged to it, also
    in nested calls, tasks and `asyncio.to_thread`; carry it into bare threads with
    `guardrails.carried`. Safe to use from many threads. Figures are the store's, with
    what other processes spend; while it is away they raise `StoreUnavailable`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        attribution: Attribution,
        parent: "Session | None" = None,
        owner: Attribution | None = None,
    ) -> None:
        self._engine = engine
        self._owner = owner or attribution
        """Whose session it is, if this process works for an agent inside it."""
        self._attribution = attribution
        self._parent = parent
        self._policy: Policy = engine.policy
        self._budget: Budget = self._policy.session_budget(self._owner.agent)
        self._lock = new_lock()
        self.anchors: Anchors = Anchors(engine)
        """What prompts were billed, per nested agent and model."""
        self.efforts: Efforts = Efforts()
        self._chargings = Chargings()
        self._active_from_ms: int | None = None
        self.is_entered: bool = False
        """Whether code holds it open by `with`, so that leaving it can raise."""
        self.outer: Session | None = None
        """The session around this one while it is open, of this guard or another."""
        self.generators: set[int] = set()
        """The ids of generators that have a session open just inside this one."""
        self._was_left = False
        self.place: Place | None = None
        """Where it was entered last."""
        self.unsurfaced: SessionStopped | None = None
        """A stop that was raised inside a framework and has not been seen to
        reach the code around it. Leaving the session raises it again."""
        self.exits: list[Callable[[Session], None]] = []
        """What adapters want done when it is left. What they raise is contained."""

    @property
    def session_id(self) -> str:
        """The id: as given, else the thread's of the first run inside, else new."""
        return self._attribution.session_id or self.bind(new_id("s"))

    @property
    def attribution(self) -> Attribution:
        """Whom the session is charged to."""
        return self._attribution

    @property
    def spent(self) -> Decimal:
        """USD that settled calls cost, as far as it is known."""
        account = self._account()
        return usd(account.posted_nano_usd) if account else Decimal(0)

    @property
    def remaining(self) -> Decimal | None:
        """USD left of its own limit, if any; budgets around it may leave less."""
        self.charging()  # Takes up the policy, if it has changed.
        account = self._account()
        limits = effective_limits(self._budget.limits, account and account.raised)
        limit, used = limits.cost_nano_usd, account.used_nano_usd if account else 0
        return None if limit is None else usd(max(0, limit - used))

    @property
    def steps(self) -> int:
        """Model calls and tool calls that were admitted."""
        account = self._account()
        return account.steps if account else 0

    @property
    def wall_time_s(self) -> float:
        """Seconds during which the session was active, waiting for people aside."""
        account, now_ms = self._account(), self._engine.clock.now_ms()
        if account is None or account.session is None:
            return self._own_active_ms() / 1000
        return account.session.elapsed_ms(now_ms, self._own_active_ms()) / 1000

    @property
    def status(self) -> str:
        """`active`, `completed`, `budget_exceeded`, `loop_detected` or `killed`."""
        account = self._account()
        if account is not None and account.stop is not None:
            return account.stop.reason.value
        known = account and account.session
        is_over = known.ended_at_ms is not None if known else self._was_left
        return "completed" if is_over and self._active_from_ms is None else "active"

    def events(self) -> Sequence[Event]:
        """Returns the last settled calls, oldest first, at most 1,000."""
        if self._engine.policy.mode is Mode.OFF:
            return ()
        return self._engine.store.history.events(
            project_id=self._attribution.project_id,
            session_id=self.session_id,
            limit=EVENTS_MAX,
        )

    def __enter__(self) -> Self:
        return self._enter(sys._getframe(1))

    def _enter(self, frame: FrameType) -> Self:
        if self.is_entered:
            raise ConfigurationError(
                "session: this object is entered already. Open another session with "
                "the same session_id for concurrent work."
            )
        self._step_out()  # It may have been left where this context did not see it.
        all_or_nothing(lambda: self._step_in(frame), self._step_out)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(kind)
        self.pause()
        self._surface(error)

    async def __aenter__(self) -> Self:
        return self._enter(sys._getframe(1))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(kind)
        if kind is GeneratorExit or not is_on_event_loop():  # Nothing can be awaited.
            self.pause()
        else:
            await self.apause()
        self._surface(error)

    def activate(self) -> None:
        """Starts the session's wall time, if it does not run."""
        with self._lock:
            if self._active_from_ms is None:
                self._active_from_ms = self._engine.clock.monotonic_ms()

    def pause(self) -> None:
        """Stops the wall time and says so in the store: nothing runs now."""
        if (op := self._paused()) is not None:
            self._engine.tell(op, doing="closing a session")

    async def apause(self) -> None:
        """Like `pause`, for asyncio."""
        if (op := self._paused()) is not None:
            await self._engine.atell(op, doing="closing a session")

    def _paused(self) -> Close | None:
        own = self._attribution.session_id
        same = [s for s in self._enclosing() if s._attribution.session_id == own]
        with self._lock:
            active_ms = max(session._own_active_ms() for session in same)
            self._active_from_ms = None
        if self._engine.policy.mode is Mode.OFF or own is None:
            return None
        now_ms = self._engine.clock.now_ms()
        return Close(account=self.account_key, now_ms=now_ms, active_ms=active_ms)

    def rest(self) -> None:
        """Stops the wall time between two calls, without telling the store."""
        with self._lock:
            self._active_from_ms = None

    def _leave(self, kind: type[BaseException] | None) -> None:
        if self.is_entered and not self._step_out() and kind is not GeneratorExit:
            left_elsewhere(self._engine, self._attribution.session_id)
        self._was_left = True
        for hook in self.exits:
            try:
                hook(self)
            except Exception as error:
                self._engine.contain(error, "leaving a session")

    def _step_in(self, frame: FrameType) -> None:
        self.activate()
        self.outer = session_around(self)
        self.place = enter(self, frame)
        self.is_entered = True
        current_session.set(self)

    @unbroken
    def _step_out(self) -> bool:
        """Takes it out of the context, also from between sessions that stay open."""
        was_there = take_out(self, current_session)
        self.is_entered = False
        return leave(self) or was_there

    def _surface(self, error: BaseException | None) -> None:
        """Raises a stop that a framework swallowed, unless it is on its way."""
        stop, self.unsurfaced = self.unsurfaced, None
        if stop is not None and not isinstance(error, SessionStopped):
            raise stop from error

    # --- what adapters and the guard use ------------------------------------

    @property
    def engine(self) -> Engine:
        """The guard's engine."""
        return self._engine

    @property
    def budget(self) -> Budget:
        """The budget of its own."""
        return self._budget

    @property
    def around(self) -> "list[Session]":
        """The sessions around it that are charged as well, innermost first."""
        return self.chain()[1:]

    def is_inside(self, other: "Session") -> bool:
        """Whether it is this session or one around it, so that both are charged."""
        return any(session is other for session in self.chain())

    @property
    def account_key(self) -> str:
        """The key of the session's account."""
        _ = self.session_id  # Binds the id.
        who = self._attribution
        return account_key(who, per=("session_id",), every=Window.SESSION, now_ms=0)

    def bind(self, session_id: str) -> str:
        """Takes a thread's id, if the session has no id yet; returns what it has."""
        with self._lock:
            known = self._attribution.session_id
            if known is None:
                self._attribution = replace(self._attribution, session_id=session_id)
        return known or session_id

    def begin(
        self,
        call: ModelCall | ToolCall,
        *,
        attribution: Attribution | None = None,
        charging: Charging | None = None,
        hold_id: str | None = None,
    ) -> GuardedCall:
        """Reserves a call and returns it.

        Args:
            call: What is about to happen.
            attribution: Whom it is charged to, if not as the session is.
            charging: The accounts, if not those that it is charged to by rule.
            hold_id: The id that makes the reservation idempotent.

        Raises:
            SessionStopped: If a limit, a loop or a person ended the session.
            CallRefused: If only this call may not be made.
        """
        guarded = GuardedCall(
            self, call, attribution=attribution, charging=charging, hold_id=hold_id
        )
        guarded.reserve()
        return guarded

    def is_exempt(self, tool: str) -> bool:
        """Whether a tool (`server/tool`) may repeat as often as it likes."""
        return any(fnmatchcase(tool, glob) for glob in self._engine.policy.loop.exempt)

    def fingerprint(self, value: object, *, label: str, is_result: bool) -> str:
        """Returns the digest of a tool's arguments or result."""
        ignored = () if is_result else self._engine.policy.loop.ignore_arguments
        key = self._engine.fingerprint_key
        return fingerprint(value, key=key, label=label, ignore=ignored)

    def charging(
        self, attribution: Attribution | None = None, *, tool: str | None = None
    ) -> Charging:
        """Returns the accounts that a call is charged to now.

        Args:
            attribution: Whom it is charged to, if not as the session is.
            tool: The tool that it calls, as `server/tool`.
        """
        session_id = self.session_id
        who = attribution or self._attribution
        if who.session_id != session_id:
            who = replace(who, session_id=session_id)
        now_ms = self._engine.clock.now_ms()
        with self._lock:
            known = self._chargings.find(who, tool, self._policy, now_ms)
            if known is not None and self._policy is self._engine.policy:
                return known
            self._refresh()
            charging = self._charged(who, tool, now_ms)
            self._chargings.keep(charging, tool, self._policy, now_ms)
            return charging

    def active_ms(self) -> tuple[int, ...]:
        """Returns how long each session of the chain has been active here.

        A session is active while one inside it is, whoever has opened it.
        """
        if self._parent is None:
            return (self._own_active_ms(),)
        longest, active = 0, dict[str, int]()
        for session in self._enclosing():
            longest = max(longest, session._own_active_ms())
            active[session.session_id] = longest
        return tuple(active.values())

    def _refresh(self) -> None:
        """Takes up the policy, if it has changed."""
        self._engine.refresh()
        for session in self.chain():
            if session._policy is not self._engine.policy:
                policy = session._policy = self._engine.policy
                session._budget = policy.session_budget(session._owner.agent)
                session._chargings.clear()

    def _charged(self, who: Attribution, tool: str | None, now_ms: int) -> Charging:
        policy = self._policy
        sessions = [
            (session._budget, replace(session._owner, session_id=session.session_id))
            for session in self.chain()
        ]
        return Charging(
            attribution=who,
            lines=call_lines(policy, sessions, who, tool=tool, now_ms=now_ms),
            loop=policy.loop,
            is_enforced=policy.mode is Mode.ENFORCE,
            telling=self._engine.telling,
        )

    def chain(self) -> "list[Session]":
        """Returns this session and those around it, innermost first, each once."""
        known: dict[str, Session] = {}
        for session in self._enclosing():
            known.setdefault(session.session_id, session)
        return list(known.values())

    def _enclosing(self) -> "list[Session]":
        """Returns this object and those around it; two may be of one session."""
        found: list[Session] = [self]  # Some chains are longer than a recursion may be.
        while (parent := found[-1]._parent) is not None:
            found.append(parent)
        return found

    def _own_active_ms(self) -> int:
        """Returns how long this object has been active without a break."""
        since_ms = self._active_from_ms
        return 0 if since_ms is None else self._engine.clock.monotonic_ms() - since_ms

    def _account(self) -> Account | None:
        if self._engine.policy.mode is Mode.OFF:
            return None
        return self._engine.store.execute(ReadAccount(account=self.account_key))
