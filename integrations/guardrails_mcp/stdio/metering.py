"""Metering: asks the guard about the calls of one server."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from guardrails import Guard, GuardrailsError, Session
from guardrails.core.attribution import clean_name
from guardrails.core.calls import CallStatus, ModelCall, Outcome, ToolCall
from guardrails.guarded_call import GuardedCall
from guardrails.planning import tool_call
from guardrails_mcp.baggage import names_in
from guardrails_mcp.stdio.messages import ToolRequest
from guardrails_mcp.stdio.relay import Answer, Metered

__all__ = ["GuardMeter"]

SESSIONS_MAX = 1_024
"""Sessions that a proxy remembers; they live in the store, this is a cache."""

UNNAMED = "?"
"""The tool of a call that names none. The server refuses it; it is a step all the
same."""

UNKNOWN_MODEL = "unknown"
"""The model of a sampling request without a hint: the host chooses it."""


class GuardMeter:
    """Admits the calls of one server by a guard. Thread safe.

    Neither the process nor the connection is a run: what a request says of itself in
    its baggage chooses the session, then the environment, then there is one session
    for the process.

    Args:
        guard: The guard that is asked.
        server: What the server is called in prices, limits and reports.
    """

    def __init__(self, guard: Guard, server: str) -> None:
        self._guard = guard
        self._server = server
        self._sessions: OrderedDict[frozenset[tuple[str, str]], _Activity]
        self._sessions = OrderedDict()
        self._own: _Activity | None = None
        self._lock = threading.Lock()

    def open_tool(self, request: ToolRequest) -> Metered:
        """Opens a tool call.

        Raises:
            GuardrailsError: If it is refused.
        """
        activity = self._activity(request.params)
        call = tool_call(
            clean_name(request.tool) or UNNAMED,
            session=activity.session,
            server=self._server,
            arguments={} if request.arguments is None else request.arguments,
            cost_usd=None,
            call_id=None,
        )
        return activity.open(replace(call, bytes_in=request.size_bytes))

    def open_sampling(self, params: Mapping[str, object], size_bytes: int) -> Metered:
        """Opens a model call that the server asks the host for.

        Raises:
            GuardrailsError: If it is refused.
        """
        tokens = params.get("maxTokens")
        call = ModelCall(
            model=_hinted_model(params) or UNKNOWN_MODEL,
            # A token has at least one byte, and the request more than the prompt.
            input_tokens_max=size_bytes,
            output_tokens_max=tokens if isinstance(tokens, int) else None,
        )
        return self._activity(params).open(call)

    def _activity(self, params: Mapping[str, object]) -> "_Activity":
        names = names_in(params.get("_meta"))
        with self._lock:
            if not names:
                self._own = self._own or _Activity(self._guard.current_session())
                return self._own
            key = frozenset(names.items())
            activity = self._sessions.get(key)
            if activity is None:
                own = self._guard.current_session()
                names = {"session_id": own.session_id} | names
                activity = _Activity(self._guard.engine.open_session(names))
                self._sessions[key] = activity
            self._sessions.move_to_end(key)
            if len(self._sessions) > SESSIONS_MAX:
                self._sessions.popitem(last=False)
            return activity


class _Activity:
    """A session, whose wall time passes while one of its calls is under way.

    A server's process lives for days, most of them idle: a person who thinks is no
    run that hangs.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._open = 0
        self._lock = threading.Lock()

    def open(self, call: ToolCall | ModelCall) -> "_Call":
        """Reserves a call.

        Raises:
            GuardrailsError: If it is refused.
        """
        with self._lock:
            self._open += 1
        try:
            return _Call(self, self.session.begin(call))
        except GuardrailsError:
            self.closed()
            raise

    def closed(self) -> None:
        """Says that a call is over."""
        with self._lock:
            self._open -= 1
            if not self._open:
                self.session.rest()


class _Call:
    """A call that was admitted."""

    def __init__(self, activity: _Activity, call: GuardedCall) -> None:
        self._activity = activity
        self._call = call

    def settle(self, answer: Answer) -> None:
        """Books what the call turned out to be."""
        self._call.finish(self._outcome(answer))
        self._activity.closed()

    def release(self) -> None:
        """Gives the call back: it never reached the server."""
        self._call.release()
        self._activity.closed()

    def _outcome(self, answer: Answer) -> Outcome:
        status = CallStatus.OK
        if answer.is_broken_off:
            status = CallStatus.BROKEN_OFF
        elif answer.error_type is not None:
            status = CallStatus.ERROR
        outcome = Outcome(
            status=status,
            error_type=answer.error_type,
            bytes_out=answer.size_bytes,
            result_digest=self._digest(answer),
        )
        call = self._call.call
        if isinstance(call, ModelCall):
            return replace(outcome, **_sampled(answer))
        return outcome

    def _digest(self, answer: Answer) -> str | None:
        call = self._call.call
        if not isinstance(call, ToolCall) or call.arguments_digest is None:
            return None  # It takes no part in loops.
        shown: object = answer.edges or None
        if answer.result is not None:
            shown = {k: v for k, v in answer.result.items() if k != "_meta"}
        elif answer.error_type is not None and not answer.is_broken_off:
            # A tool that fails again and again in the same way is in a loop.
            shown = {"error": answer.error_type}
        if shown is None:
            return None
        return self._activity.session.fingerprint(
            shown, label=call.name, is_result=True
        )


def _sampled(answer: Answer) -> dict[str, object]:
    """Returns what is known of a model call that the host made for the server."""
    if answer.result is None:
        # The host, or the person before it, did not make the call.
        return {"is_unsent": not answer.is_broken_off}
    return {
        "model": clean_name(answer.result.get("model")),
        "output_tokens_max": answer.size_bytes,
    }


def _hinted_model(params: Mapping[str, object]) -> str | None:
    preferences = params.get("modelPreferences")
    hints = preferences.get("hints") if isinstance(preferences, dict) else None
    for hint in cast("list[object]", hints) if isinstance(hints, list) else ():
        name = hint.get("name") if isinstance(hint, dict) else None
        if (cleaned := clean_name(name)) is not None:
            return cleaned
    return None
