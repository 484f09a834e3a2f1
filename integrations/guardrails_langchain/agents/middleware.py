"""The middleware: guards an agent made by `create_agent` where it is made.

It meters nothing itself, because a middleware sees only its own agent. It opens
the scope of a session around each model call and tool call, so that the
callback handler sees the call and all that is nested in it: the same path as
everywhere else, counted once however many ways lead to it.
"""

import contextlib
import threading
import types
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Annotated, Any, NotRequired, Self

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ModelRequest,
    ModelResponse,
    PrivateStateAttr,
)
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.config import get_config
from langgraph.managed.base import ManagedValue
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import Runtime
from langgraph.types import Command

from guardrails import Guard, Session
from guardrails.core.attribution import clean_name
from guardrails.core.policy import OnLimit
from guardrails.guards import checked_guard
from guardrails.sessions.scope import current_session, session_of
from guardrails.system.ids import new_id
from guardrails_langchain.agents import notes
from guardrails_langchain.agents.deadlines import checked_timeout, in_time
from guardrails_langchain.agents.notes import checked_share, noted
from guardrails_langchain.agents.pauses import warn_unless_it_can_pause
from guardrails_langchain.agents.turns import Turns, arun, run
from guardrails_langchain.callbacks.around import running_id
from guardrails_langchain.callbacks.carriers import SESSION, named
from guardrails_langchain.callbacks.handler import (
    CallsHandler,
    GuardCallbackHandler,
    tree_of,
)

__all__ = ["GuardMiddleware"]

SESSIONS_MAX = 1_000
"""Sessions that a middleware keeps in hand. What they spent is in the store."""


def _naming(schema: type[Any], key: str, name: str) -> type[Any]:
    """Returns the schema of a state that has a run's session, and names its carrier.

    Args:
        schema: What else is in the state.
        key: Where the carrier is named.
        name: What it is called.
    """

    class Name(ManagedValue[str]):
        @staticmethod
        def get(scratchpad: object) -> str:  # noqa: ARG004 - LangGraph passes it
            return name

    fields = {
        SESSION: NotRequired[Annotated[str, UntrackedValue, PrivateStateAttr]],
        key: NotRequired[Annotated[str, PrivateStateAttr, Name]],
    }
    return types.new_class(
        "GuardState", (schema,), exec_body=lambda it: it.update(__annotations__=fields)
    )


class GuardMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Guards one agent, what is nested in its calls, and what its middlewares call.

    For `create_agent(..., middleware=[GuardMiddleware(guard, agent="support")])`.
    Inside `guard.session(...)` of the same agent it joins that session. Inside
    another agent's session it opens one of its own, charged to both. Otherwise
    the session is the thread's, or new for each run.

    At a limit it ends as `on_limit` says. `raise` leaves the thread as it is: after
    `guard.raise_limit(...)`, `agent.invoke(None, config)` runs what was blocked, and
    only that. `finish` makes one last call of the model, without tools and out of
    `closing_reserve_usd`, and returns its answer, whose
    `response_metadata["guardrails"]` says `cut_short`, `limit`, `scope`, `spent`,
    `allowed` and `session_id`. If not even that call fits, or was made before at this
    limit, it raises. `pause` asks a person by `interrupt`, with a summary, and goes on
    by `Command(resume={"max_cost_usd": "2.00", "by": "ann"})` (any limits of
    `guard.raise_limit`), tries again by `Command(resume=True)`, and ends by
    `Command(resume={"stop": True})`; without a checkpointer it raises. In both, a
    tool call that was refused has an error as its result, so that the thread stays
    valid. Stops by people and loops raise in any case, and so does what another
    middleware calls in a hook of its own, as to write a summary.

    Put it first in the list: what is outside of it can still retry or replace a
    call, though never pay for one after a stop.

    Args:
        guard: The guard.
        agent: Who acts; chooses the budget.
        clamp: Lowers the bound on a model's output to what is left, where all that
            it could write does not fit, so that the last call still runs.
        note_from: Tells the model what is left once it used that share of a limit of
            its session, 0 to 1, in a note that is in no history.
        budget_tool: Gives the model a tool `get_budget`, to ask what is left.
        call_timeout_s: How long a call may take in asyncio; then it raises
            `TimeoutError`. A session's wall time ends a call there as well.
        names: `customer_id, user_id, feature, prompt_version, session_id,
            tags`, as for `Guard.session`.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        agent: str | None = None,
        clamp: bool = True,
        note_from: float | None = None,
        budget_tool: bool = False,
        call_timeout_s: float | None = None,
        **names: Any,
    ) -> None:
        super().__init__()
        checked_guard(guard, called="GuardMiddleware")
        guard.session(agent, **names)  # Refuses bad names here.
        self._note_from = checked_share(note_from)
        self._timeout_s = checked_timeout(call_timeout_s)
        self.tools: Sequence[BaseTool] = (
            [notes.budget_tool(guard)] if budget_tool else []
        )
        self.state_schema: type[AgentState[Any]] = _naming(
            self.state_schema, *named(self, guard.engine)
        )
        self._guard = guard
        self._agent = agent
        self._clamps = clamp
        self._names = names
        self._on_limit = guard.engine.policy.session_budget(agent).on_limit
        self._lock = threading.RLock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._users: dict[str, int] = {}

    def __deepcopy__(self, memo: object) -> Self:
        """Returns itself: a copy of a list of middlewares is guarded by the same."""
        return self

    def before_agent(
        self, state: AgentState[Any], runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Names the session of a run that has no thread."""
        if self._on_limit is OnLimit.PAUSE:
            warn_unless_it_can_pause()
        return {SESSION: new_id("s")}

    async def abefore_agent(
        self, state: AgentState[Any], runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Does so in asyncio.

        LangChain would call the other one for it, but not if somebody has patched the
        class of all middlewares, as OpenLLMetry (0.62.4) does.
        """
        return self.before_agent(state, runtime)

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Makes the call inside the session's scope."""
        with self._scope(request.state) as session:
            request = self._noted(request, session)
            return run(self._turns(session).model(request), handler)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Makes the call inside the session's scope."""
        with self._scope(request.state) as session:
            request = self._noted(request, session)
            limited = in_time(session, handler, timeout_s=self._timeout_s)
            turns = self._turns(session)
            return await arun(turns.model(request), limited, look=turns.look)

    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]],
    ) -> ToolMessage | Command[Any]:
        """Makes the call inside the session's scope."""
        with self._scope(request.state) as session:
            return run(self._turns(session).tool(request), handler)

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Makes the call inside the session's scope."""
        with self._scope(request.state) as session:
            limited = in_time(session, handler, timeout_s=self._timeout_s)
            return await arun(self._turns(session).tool(request), limited)

    def handler(self, state: Mapping[str, Any]) -> GuardCallbackHandler:
        """Returns the handler of what other middlewares call in hooks of theirs."""
        names = {**self._names, "agent": self._agent}
        names["session_id"] = self._session_id(state)
        given = {key: name for key, name in names.items() if name is not None}
        return CallsHandler.of_engine(self._guard.engine, given)

    def _noted(self, request: ModelRequest[Any], session: Session) -> ModelRequest[Any]:
        share = self._note_from
        return request if share is None else noted(request, session, share)

    def _turns(self, session: Session) -> Turns:
        return Turns(self._guard, session, clamps=self._clamps, run_id=running_id())

    @contextlib.contextmanager
    def _scope(self, state: Any) -> Generator[Session]:
        """Opens the session's scope, unless the call is in it already."""
        around = self._session_around()
        if around is not None:
            yield around
            return
        session = self._session(state)
        with self._lock:
            self._users[session.session_id] = self._users.get(session.session_id, 0) + 1
        session.activate()
        token = current_session.set(session)
        try:
            yield session
        finally:
            current_session.reset(token)
            with self._lock:
                self._users[session.session_id] -= 1
                is_idle = not self._users[session.session_id]
                if is_idle:
                    del self._users[session.session_id]
            if is_idle:
                session.rest()

    def _session_around(self) -> Session | None:
        """Returns the session of this agent, or the run's own, that is around."""
        outer = session_of(self._guard.engine)
        if outer is None:
            found = tree_of(self._guard.engine).find(running_id())
            if found is None:
                return None
            outer = found.session
        is_ours = self._agent is None or outer.attribution.agent in (None, self._agent)
        return outer if is_ours else None

    def _session(self, state: Any) -> Session:
        """Returns the session of this run: given, the thread's, or the run's."""
        session_id = self._session_id(state) or new_id("s")
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                names = {k: v for k, v in self._names.items() if k != "session_id"}
                session = self._guard.session(
                    self._agent, session_id=session_id, **names
                )
                self._sessions[session_id] = session
                if len(self._sessions) > SESSIONS_MAX:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(session_id)
            return session

    def _session_id(self, state: Any) -> str | None:
        thread = _thread() if session_of(self._guard.engine) is None else None
        return self._names.get("session_id") or thread or (state or {}).get(SESSION)


def _thread() -> str | None:
    """Returns the thread's id.

    Metadata come second: they lack a thread that is 0, and in an earlier LangGraph they
    may be those of a run before that has failed.
    """
    config = get_config()
    for found in (config.get("configurable", {}), config.get("metadata", {})):
        thread = found.get("thread_id")
        if thread is not None:
            return clean_name(str(thread))
    return None
