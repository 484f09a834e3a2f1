"""FastMCP server middleware: an author guards the tools of their own server.

Each client has one session of its own, so limits of a session are limits per client;
limits per client and day are `budgets:` with `per: [customer_id]`. Who the client is
says the first of these that is known: a verified token, then the header or `_meta` key
that the author has named, then the baggage of the request if the author trusts it, then
the connection, where there is one.
"""

import contextlib
import contextvars
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext

from guardrails import Guard, GuardedCall, GuardrailsError, Session
from guardrails.core.attribution import clean_name
from guardrails.core.calls import ToolCall
from guardrails.core.plain import size_bytes
from guardrails.errors import CallRefused, SessionStopped
from guardrails.guards import checked_guard
from guardrails.sessions.planning import checked_name, tool_call
from guardrails.sessions.scope import current_call
from guardrails.sessions.sharing import ashare
from guardrails_mcp.activities import Activities, Activity
from guardrails_mcp.baggage import names_in
from guardrails_mcp.context import (
    connection_of,
    header_of,
    listed_name,
    meta_of,
    params_of,
    server_of,
)
from guardrails_mcp.outcomes import outcome_of
from guardrails_mcp.refusals import refusal_result, refusal_text
from guardrails_mcp.rounds import Rounds
from guardrails_mcp.serving import inside, sent_by

if TYPE_CHECKING:
    from fastmcp.tools import ToolResult

__all__ = ["GuardMiddleware"]

EVERYBODY = "everybody"
"""The client of a request that says nothing of itself."""

_GENERIC = "Error calling tool "
"""How FastMCP 2 to 4 begins what it says of a tool that has raised anything."""


@dataclass(slots=True, kw_only=True)
class _Running:
    """A call and how far down mounted servers it has come."""

    call: GuardedCall
    tool: str
    """As the last of the servers was asked for it."""
    arguments: object
    message: object
    """The very request that the last of them is answering."""
    hosts: tuple[object, ...]
    """The servers, outermost first."""
    is_taken: bool = False
    """A server below has taken it over: whatever else the tool calls is another."""


_running: "contextvars.ContextVar[_Running | None]" = contextvars.ContextVar(
    "guardrails_mcp_running", default=None
)
"""The call that this context is inside of."""


class GuardMiddleware(Middleware):
    """Guards every tool call of a FastMCP server, for each client by itself.

    A refused call is answered with a tool result that says why. Mounted servers may
    have a middleware of their own: the call of a mounted tool counts once, as does one
    that a server has two middlewares for. What a tool spends, on models or other tools,
    is charged to its client as well, and not to a session that is open around the
    server. A tool that runs as a task in the background counts once, but what it spends
    is its client's only if it opens a session for it: no request is around it.

    A client in the same process that the same guard wraps pays for its calls itself,
    where it calls the server by the same name: each is booked once, within what both
    its session and the server's allow. (In memory, the SDK 1.x hides who calls.) Of a
    client in another process nobody could tell whether it says the truth: if both sides
    are guarded and have one ledger, each call counts on both. Guard one of them then.

    A client is its verified token, else the header or the key of `_meta` below, else
    its connection. Without connections, as with `stateless_http`, all others are one
    client and share one budget.

    Args:
        guard: The guard that is asked.
        server: What the server is called in prices, limits and reports; its own name
            by default.
        identity_header: A header that a gateway of yours sets to the client's id.
        identity_meta: A key of `_meta` that holds it.
        trusts_baggage: Whether the clients are yours, so that what requests say of
            themselves in `_meta.baggage` is believed: customer, agent, session and so
            on. Of strangers it would be a way to another budget.

    Raises:
        ConfigurationError: If a name is empty or too long, or the guard is none.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        server: str | None = None,
        identity_header: str | None = None,
        identity_meta: str | None = None,
        trusts_baggage: bool = False,
    ) -> None:
        self._guard = checked_guard(guard, called="GuardMiddleware")
        self._server = None if server is None else checked_name(server, "server")
        self._header = _optional_name(identity_header, "identity_header")
        self._trusts_baggage = trusts_baggage
        self._meta_key = _optional_name(identity_meta, "identity_meta")
        self._activities = Activities(self._open_session)
        self._rounds: Rounds[_Call] = Rounds()

    def _open_session(self, names: Mapping[str, str]) -> Session:
        return self._guard.engine.open_session(names, is_served=True)

    async def on_call_tool(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        """Reserves, calls the tool, and settles."""
        if self._is_open(context):
            return await call_next(context)
        tool, params = context.message.name, params_of(context)
        mounted = self._mounted(context)
        if mounted is not None:
            try:
                return await _run_in(mounted, context, call_next)
            finally:
                _claims(mounted.call)  # What was offered below is for nobody else.
        try:
            activity = self._activities.of(self._names(context))
            call = self._rounds.take(_round(activity, tool), params)
            if call is None:
                call = await self._opened(context, activity)
            else:
                call.activity.begin()
        except GuardrailsError as error:
            return _refused(error)
        try:
            return await self._run(call, context, call_next)
        finally:
            call.activity.end()

    async def _run(
        self,
        opened: "_Call",
        context: MiddlewareContext[Any],
        call_next: CallNext[Any, Any],
    ) -> Any:
        call, session = opened.guarded, opened.activity.session
        with inside(session), _offered(call):
            try:
                result = await _run_in(_running_at(context, call), context, call_next)
            except BaseException as error:
                stop = _stop_in(error)
                if not opened.is_clients:
                    await call.afinish(call.outcome_of(stop or error))
                if stop is None:
                    raise
                return _refused(stop, ran_in=session.session_id)
        if opened.is_clients:
            return result
        asked = getattr(result, "input_required", None)
        name = _round(opened.activity, context.message.name)
        if asked is None or not self._rounds.keep(name, _wire(asked), opened):
            await call.afinish(outcome_of(call, result))
        return result

    def _is_open(self, context: MiddlewareContext[Any]) -> bool:
        """Whether another middleware of this server and guard has opened the call."""
        outer = _running.get()
        if outer is None or outer.message is not context.message:
            return False
        return outer.call.session.engine is self._guard.engine

    def _mounted(self, context: MiddlewareContext[Any]) -> _Running | None:
        """Returns the call, if it is the same that a server around has opened."""
        outer, host = _running.get(), server_of(context)
        if outer is None or outer.is_taken or any(host is one for one in outer.hosts):
            return None  # A tool that calls tools of its own server makes new calls.
        tool, call = context.message.name, outer.call
        # A mounted tool's name may have a namespace before it.
        is_same = outer.tool == tool or outer.tool.endswith((f"_{tool}", f"/{tool}"))
        inner = _running_at(context, call, outer)
        # Further down it could also be a call that the mounted tool makes.
        is_same = is_same and (
            len(outer.hosts) == 1 or inner.arguments == outer.arguments
        )
        if call.session.engine is not self._guard.engine or not is_same:
            return None
        if not _claims(call):
            return None
        outer.is_taken = True
        call.offer()  # To what is mounted below.
        return inner

    async def _opened(
        self, context: MiddlewareContext[Any], activity: Activity
    ) -> "_Call":
        """Reserves a call, or takes part in what its client has reserved.

        Raises:
            GuardrailsError: If it is refused.
        """
        arguments = context.message.arguments or {}
        planned = tool_call(
            clean_name(await listed_name(context)) or "?",
            session=activity.session,
            server=self._server_name(context),
            arguments=arguments,
            cost_usd=None,
            call_id=None,
            bytes_in=size_bytes(arguments),
        )
        sent = sent_by(activity.session, planned, arguments)
        call = GuardedCall(activity.session, planned) if sent is None else sent.call
        activity.begin()
        try:
            if sent is None:
                await call.areserve()
            else:
                sent.is_taken = True
                await ashare(call, activity.session)
        except BaseException:
            activity.end()
            raise
        return _Call(activity, call, is_clients=sent is not None)

    def _names(self, context: MiddlewareContext[Any]) -> dict[str, str]:
        """Returns whom a request is charged to."""
        meta = meta_of(context)
        said = names_in(meta) if self._trusts_baggage else {}
        client = self._client(context, meta, said)
        session_id = clean_name(f"{self._server_name(context)}:{client}")
        return {"session_id": session_id or client, **said, "customer_id": client}

    def _client(
        self,
        context: MiddlewareContext[Any],
        meta: Mapping[str, object],
        said: Mapping[str, str],
    ) -> str:
        token = get_access_token()
        names: list[object] = [token.client_id if token is not None else None]
        if self._header is not None:
            names.append(header_of(self._header.lower()))
        if self._meta_key is not None:
            names.append(meta.get(self._meta_key))
        names += [said.get("customer_id"), connection_of(context)]
        cleaned = (clean_name(name) for name in names)
        return next((name for name in cleaned if name is not None), EVERYBODY)

    def _server_name(self, context: MiddlewareContext[Any]) -> str:
        name = getattr(server_of(context), "name", None)
        return self._server or clean_name(name) or "server"


@dataclass(slots=True)
class _Call:
    activity: Activity
    guarded: GuardedCall
    is_clients: bool = False
    """Whether a client in this process has reserved it, which also books it."""
    turns: int = 0
    """How often the tool has asked for input."""


@contextlib.contextmanager
def _offered(call: GuardedCall) -> Generator[None]:
    """Offers a call to the tool that runs; it may be around the server already."""
    around = current_call.get()
    while around is not None and around is not call:
        around = around.outer
    if around is call:
        call.offer()
    else:
        call.enter_scope(is_offered=True)
    try:
        yield
    finally:
        if around is call:
            _claims(call)  # What nobody has claimed is for nobody else.
        else:
            call.leave_scope()


def _claims(call: GuardedCall) -> bool:
    return isinstance(call.call, ToolCall) and call.claim(call.call.tool)


def _running_at(
    context: MiddlewareContext[Any], call: GuardedCall, outer: _Running | None = None
) -> _Running:
    """Returns the call as it is at this server, below those that it came through."""
    above = () if outer is None else outer.hosts
    message = context.message
    return _Running(
        call=call,
        tool=message.name,
        arguments=message.arguments or {},
        message=message,
        hosts=(*above, server_of(context)),
    )


async def _run_in(
    running: _Running, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
) -> Any:
    token = _running.set(running)
    try:
        return await call_next(context)
    finally:
        _running.reset(token)


def _round(activity: Activity, tool: str) -> str:
    """Names what a round belongs to: no client goes on with the call of another."""
    return f"{activity.session.session_id}/{tool}"


def _optional_name(value: str | None, key: str) -> str | None:
    return None if value is None else checked_name(value, key)


def _stop_in(error: BaseException) -> SessionStopped | CallRefused | None:
    """Returns the stop of ours that a tool has raised and not handled.

    FastMCP makes an error of its own of it, whose text an author may have masked. What
    the author has made of it is left to them.
    """
    cause = error.__cause__ if isinstance(error, ToolError) else error
    if isinstance(cause, SessionStopped | CallRefused) and (
        cause is error or str(error).startswith(_GENERIC)
    ):
        return cause
    return None


def _refused(error: GuardrailsError, *, ran_in: str | None = None) -> "ToolResult":
    result = cast("dict[str, Any]", refusal_result(error, ran_in=ran_in))
    text = refusal_text(error, ran_in=ran_in)
    try:
        # Imported late: FastMCP 2 has it elsewhere.
        from fastmcp.tools import ToolResult

        return ToolResult(content=text, is_error=True, meta=result["_meta"])
    except (ImportError, TypeError):  # There, errors are only known as exceptions.
        raise ToolError(text) from error


def _wire(asked: Any) -> Mapping[str, object]:
    return {
        "resultType": "input_required",
        "requestState": asked.request_state,
        "inputRequests": asked.input_requests,
    }
