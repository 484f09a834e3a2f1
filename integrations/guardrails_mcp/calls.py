"""Calls: what one guard does about the tool calls of the objects that it wraps.

Theory of operation
-------------------
A `tools/call` is reserved before its request is sent, and settled when its answer is
there. A framework may have opened the call before it reached us, as LangChain's
handler does; then that one is taken over, so that it counts once, under the names of
its server. An answer that asks for input is not the end: the hold is kept, and the
request that goes on with that round continues it.

    reserve ── refused ──► our stop is raised, nothing is sent
       │
       ▼
    send ── answer ──► settle          ── asks for input ──► kept for the next round
       ├── error ────► settle: it was sent, so it may have been done
       └── never written, or not read ──► release

Whatever fails here, other than by a stop, is contained: the host's call goes on.
"""

import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from guardrails import Attribution, Guard, Session
from guardrails.core.attribution import TAGS_MAX
from guardrails.core.calls import CallStatus, Outcome, ToolCall, tool_name
from guardrails.core.plain import size_bytes
from guardrails.core.policy import Mode
from guardrails.engine import HOLD_TTL_MS, Engine
from guardrails.errors import CallRefused, SessionStopped
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.sessions.opening import Around
from guardrails.sessions.planning import checked_name
from guardrails.sessions.scope import call_of
from guardrails.system.interrupts import to_its_end
from guardrails.system.threads import apart, is_on_event_loop
from guardrails_mcp import booking, wire
from guardrails_mcp.outcomes import outcome_of
from guardrails_mcp.requests import Held, Request
from guardrails_mcp.resumption import Resumable
from guardrails_mcp.rounds import ROUNDS_MAX, Rounds
from guardrails_mcp.serving import sending

__all__ = ["DEADLINE_MS", "Wrapping", "asking"]

DEADLINE_MS = HOLD_TTL_MS
"""How long a call may take if neither its caller nor a rule says so: as long as it is
held. Servers that hang have held agents up for a day."""

_FILLED = ("customer_id", "user_id", "feature", "prompt_version")
"""Names that apply where the session around a call has none."""

R = TypeVar("R")

asking: ContextVar[GuardedCall | None] = ContextVar("guardrails_mcp_asking")
"""The call of this context whose answer asked for input."""


@dataclass(slots=True, eq=False)
class Wrapping:
    """One guard around an object, and whatever that connects to. Thread safe.

    Copies of the object share it: a clone is no way around a budget.
    """

    guard: Guard
    names: Mapping[str, str]
    """As for `Guard.session`."""
    tags: Mapping[str, str]
    server: str | None
    """What the operator calls the server."""
    rounds: Rounds[Held] = field(default_factory=Rounds[Held])
    running: set[Held] = field(default_factory=set[Held])
    """Calls whose requests are on their way."""
    _waiting: dict[Held, None] = field(default_factory=dict[Held, None])
    """Calls that wait for their next round, oldest first."""
    _tasks: dict[str, Held] = field(default_factory=dict[str, Held])
    """Of those, the ones whose tasks' results say what they cost, by the tasks' ids."""
    _own: Session | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def of(cls, guard: Guard, options: Mapping[str, Any]) -> "Wrapping":
        """Returns what a guard wants, by the options of `Guard.wrap`.

        Raises:
            ConfigurationError: If a name is wrong.
        """
        given = {key: value for key, value in options.items() if value is not None}
        server, tags = given.pop("server", None), given.pop("tags", {})
        others = {key: name for key, name in given.items() if key != "agent"}
        guard.session(given.get("agent"), tags=tags, **others)  # Refuses bad names.
        if server is not None:
            server = checked_name(server, "server")
        return cls(guard=guard, names=given, tags=tags, server=server)

    @property
    def engine(self) -> Engine:
        """The guard's engine."""
        return self.guard.engine

    def here(self) -> Around:
        """Returns what is around the running code, else the object's own session."""
        around = self.guard.around()
        if around is not None:
            return around
        with self._lock:
            if self._own is None:
                tags = {"tags": dict(self.tags)} if self.tags else {}
                self._own = self.engine.open_session({**self.names, **tags})
            return Around.of(self._own)

    async def close(self, connections: Collection[object]) -> None:
        """Books what waits for rounds on connections that are over, and says so.

        The session of the object is over with them; a later call opens it again.
        """
        left = [
            held
            for held in list(self._waiting)
            # Some end in other ways, such as by a client's own `close`.
            if held.connection in connections or wire.is_closed(held.connection)
        ]
        is_idle = not self.running
        if left or (is_idle and self._own is not None):
            if is_on_event_loop():
                await self._aclose(left)
            else:
                self._close(left)

    async def _aclose(self, left: Iterable[Held]) -> None:
        _, cancelled = await to_its_end(
            apart(lambda: self._close(left)), or_at_once=lambda: self._close(left)
        )
        if cancelled is not None:
            raise cancelled

    def _close(self, left: Iterable[Held]) -> None:
        for held in left:
            self._give_up(held)
        if self._own is not None:
            self._own.pause()

    def _give_up(self, held: Held) -> None:
        """Books a call whose next round does not come."""
        self._waiting.pop(held, None)
        self._tasks = {key: one for key, one in self._tasks.items() if one is not held}
        held.call.finish(Outcome(status=CallStatus.BROKEN_OFF))

    def deadline_ms(self, tool: str, server: str | None) -> int | None:
        """Returns how long a call may take whose caller has not said so."""
        if self.engine.policy.mode is not Mode.ENFORCE:
            return None
        name = tool_name(self._called(tool, server), self.server or server)
        rule = self.engine.policy.tool_rule(name)
        return (rule and rule.timeout_ms) or DEADLINE_MS

    async def around(
        self,
        request: Request,
        send: Callable[[], Awaitable[R]],
        *,
        offers: bool = False,
    ) -> R:
        """Makes a call, guarded.

        Args:
            request: What is asked for.
            send: Sends it, and returns the answer.
            offers: Let what `send` runs claim the call: it knows it better.

        Raises:
            SessionStopped: If the session is over, before anything is sent.
            CallRefused: If only this call may not be made.
        """
        held = await self._admitted(request)
        if held is None:
            return await send()
        self.running.add(held)
        request.hearing.append(lambda token: self._hear(held, token))
        if offers:
            self._offer(held)
        clock = self.engine.clock
        started_ms = clock.monotonic_ms()
        try:
            with sending(held.call, request.tool.arguments):
                result = await send()
        except BaseException as error:
            held.busy_ms += clock.monotonic_ms() - started_ms
            await self._failed(held, request, error)
            raise
        else:
            held.busy_ms += clock.monotonic_ms() - started_ms
            await self._answered(held, request, result)
            return result
        finally:
            if offers and not held.is_claimed:
                held.call.leave_scope()
            self.running.discard(held)
            if self._own is not None and not self.running:
                self._own.rest()  # Nobody knows what the program does meanwhile.

    # --- before -------------------------------------------------------------

    async def _admitted(self, request: Request) -> Held | None:
        """Returns the call once it may be made; `None` if it cannot be guarded."""
        if self.engine.policy.mode is Mode.OFF:
            return None
        try:
            while held := self.rounds.take(self._round(request), request.tool.rounds):
                if held.call.is_open:  # Others were given up.
                    self._waiting.pop(held, None)
                    return held
            return None if self._reads_on(request) else await self._reserved(request)
        except (SessionStopped, CallRefused):
            raise
        except Exception as error:
            self.engine.contain(error, "guarding a tool call of MCP")
            return None

    def _reads_on(self, request: Request) -> bool:
        """Whether a request reads on in an answer, so that nothing is called again."""
        if request.resumes is None:
            return False
        asked = self._tool_call(self.here().session, request)
        reading = Resumable.of(self.engine).find(request.resumes, asked)
        if reading is None:
            return False
        request.hearing.append(
            lambda token: Resumable.of(self.engine).keep(token, asked, reading)
        )
        # What it cost may be in the rest only: then it counts as another call.
        return reading.is_over or not self.engine.policy.believes_cost(asked)

    def _hear(self, held: Held, token: str) -> None:
        if isinstance(held.call.call, ToolCall):
            Resumable.of(self.engine).keep(token, held.call.call, held.reading)

    async def _reserved(self, request: Request) -> Held:
        outer = call_of(self.engine)
        if outer is not None and self._is_same(outer, request):
            return Held(await self._claimed(outer, request), is_claimed=True)
        session, who = self.here()
        guarded = GuardedCall(
            session,
            self._tool_call(session, request),
            attribution=self._attribution(who),
        )
        await booking.reserve(guarded)
        return Held(guarded)

    def _is_same(self, outer: GuardedCall, request: Request) -> bool:
        """Whether a framework has opened this very call, by a name of its own.

        Adapters put the server's name, as they know it, before the tool's. So a name
        that only ends alike is the same call if its arguments are the same, too.
        """
        offered = outer.offered
        if offered is None:
            return False
        tool, server = request.tool.tool, self.server or request.server
        called = self._called(tool, request.server)
        if offered.tool in (tool, f"{server}_{tool}", called, f"{server}_{called}"):
            return True
        if offered.arguments_digest is None or not offered.tool.endswith(f"_{called}"):
            return False
        digest = outer.session.fingerprint(
            request.tool.arguments, label=offered.name, is_result=False
        )
        return digest == offered.arguments_digest

    async def _claimed(self, outer: GuardedCall, request: Request) -> GuardedCall:
        """Takes a call over, under the names that its server has for it."""
        offered = outer.offered
        assert offered is not None
        outer.claim(offered.tool)
        call = self._tool_call(outer.session, request, call_id=offered.call_id)
        who = self._attribution(outer.attribution)
        if call.name == offered.name and who == outer.attribution:
            return outer
        # Another name may have another price. Given back first: both together may
        # not fit into what is left.
        await booking.release(outer)
        outer.become(call, who)
        await booking.reserve(outer)
        return outer

    def _tool_call(
        self, session: Session, request: Request, *, call_id: str | None = None
    ) -> ToolCall:
        asked = request.tool
        call = ToolCall(
            tool=self._called(asked.tool, request.server),
            server=self.server or request.server,
            call_id=asked.call_id or call_id,
            bytes_in=size_bytes(asked.arguments),
        )
        if session.is_exempt(call.name):
            return call
        digest = session.fingerprint(asked.arguments, label=call.name, is_result=False)
        return replace(call, arguments_digest=digest)

    def _attribution(self, who: Attribution) -> Attribution:
        """Returns whom a call is charged to: who is known, completed by the names."""
        missing = {
            key: self.names[key]
            for key in _FILLED
            if key in self.names and who.value(key) is None
        }
        agent = self.names.get("agent")
        if agent is not None and who.agent is None:
            who = who.under(agent)
        tags = dict(who.tags)
        for key, value in self.tags.items():
            if len(tags) < TAGS_MAX:
                tags.setdefault(key, value)
        return replace(who, **missing, tags=tuple(sorted(tags.items())))

    def _offer(self, held: Held) -> None:
        """Offers the call to what is about to run."""
        if held.is_claimed:
            held.call.offer()  # Whoever opened it is in its scope.
        else:
            held.call.enter_scope(is_offered=True)

    # --- after --------------------------------------------------------------

    async def _answered(self, held: Held, request: Request, result: object) -> None:
        try:
            kept = wire.rounds_result(result)
            if self.rounds.keep(self._round(request), kept, held):
                self._wait(held, request)
                asking.set(held.call)
                return
            task_id = wire.task_of(result)
            believes_cost = self.engine.policy.believes_cost(held.call.call)
            if task_id is not None and believes_cost:
                self._tasks[task_id] = held
                self._wait(held, request)
                return
            held.reading.is_over = True
            outcome = outcome_of(held.call, result, latency_ms=held.busy_ms)
        except Exception as error:
            self.engine.contain(error, "reading a result of MCP")
            outcome = Outcome()
        await booking.finish(held.call, outcome)

    def _wait(self, held: Held, request: Request) -> None:
        """Keeps a call that is not over: its next request may come, or may not."""
        held.connection = request.connection
        self._waiting[held] = None
        if len(self._waiting) > ROUNDS_MAX:
            self._give_up(next(iter(self._waiting)))

    async def fetched(self, task_id: object, result: object) -> None:
        """Takes what a server has said of a task: its result ends the call."""
        held = self._tasks.get(task_id) if isinstance(task_id, str) else None
        end = None if held is None else wire.task_end(result)
        if held is None or end is None:
            return
        del self._tasks[cast("str", task_id)]
        self._waiting.pop(held, None)
        await booking.finish(held.call, outcome_of(held.call, end))

    async def _failed(self, held: Held, request: Request, error: BaseException) -> None:
        if not request.was_sent or wire.is_unread(error):
            await booking.release(held.call)
            return
        status = wire.status_of_error(error)
        await booking.finish(
            held.call,
            Outcome(
                status=status,
                error_type=type(error).__name__,
                latency_ms=held.busy_ms,
                # What was cut off says nothing about the tool.
                result_digest=held.call.failure_digest(error)
                if status is CallStatus.ERROR
                else None,
            ),
        )

    def _round(self, request: Request) -> str:
        """Names what a round belongs to."""
        tool = self._called(request.tool.tool, request.server)
        return f"{self.server or request.server}/{tool}"

    def _called(self, name: str, server: str | None) -> str:
        """Returns the tool that is called by a name: see `wire.called_tool`."""
        server, policy = self.server or server, self.engine.policy
        return wire.called_tool(name, server=server, policy=policy)
