"""Metering: asks the guard about the calls of one server."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from guardrails import Guard, Session
from guardrails.core.attribution import clean_name
from guardrails.core.calls import CallStatus, ModelCall, Outcome, ToolCall
from guardrails.core.operations import Settle
from guardrails.core.policy import ToolRule
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.sessions.planning import tool_call
from guardrails_mcp import wire
from guardrails_mcp.activities import Activities, Activity
from guardrails_mcp.baggage import names_in
from guardrails_mcp.stdio.messages import ToolRequest
from guardrails_mcp.stdio.meters import Answer, Ended, Metered, now_ms

__all__ = ["GuardMeter"]

UNNAMED = "?"
"""The tool of a call that names none. The server refuses it; it is a step all the
same."""


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
        self._activities = Activities(self._open_session)

    def open_tool(self, request: ToolRequest, ended: Ended | None = None) -> Metered:
        """Opens a tool call.

        Args:
            request: What the host asks for.
            ended: A call that is booked with it, and also if it is refused.

        Raises:
            GuardrailsError: If it is refused.
        """
        op = None
        if ended is not None:
            assert isinstance(ended.call, _Call)
            op = ended.call.settlement(ended.answer)
        try:
            return self._opened(request, op)
        except BaseException:
            if op is not None:
                self._guard.engine.settle(op)  # Booked twice, it counts once.
            raise

    def _opened(self, request: ToolRequest, ended: Settle | None) -> Metered:
        activity = self._activity(request.params)
        policy = activity.session.engine.policy
        named = clean_name(request.tool) or UNNAMED
        call = tool_call(
            wire.called_tool(named, server=self._server, policy=policy),
            session=activity.session,
            server=self._server,
            arguments={} if request.arguments is None else request.arguments,
            cost_usd=None,
            call_id=None,
            bytes_in=request.size_bytes,
        )
        return _Call(activity, call, ended)

    def open_sampling(self, params: Mapping[str, object], size_bytes: int) -> Metered:
        """Opens a model call that the server asks the host for.

        Raises:
            GuardrailsError: If it is refused.
        """
        call = ModelCall(
            model=_hinted_model(params) or wire.UNKNOWN_MODEL,
            # A token has at least one byte, and the request more than the prompt.
            input_tokens_max=size_bytes,
            output_tokens_max=wire.count_of(params.get("maxTokens")),
        )
        return _Call(self._activity(params), call)

    def _activity(self, params: Mapping[str, object]) -> Activity:
        return self._activities.of(names_in(params.get("_meta")))

    def _open_session(self, names: Mapping[str, str]) -> Session:
        own = self._guard.current_session()
        if not names:
            return own
        names = {"session_id": own.session_id, **names}
        return self._guard.engine.open_session(names, is_served=True)


class _Call:
    """A call that was admitted."""

    def __init__(
        self,
        activity: Activity,
        call: ToolCall | ModelCall,
        ended: Settle | None = None,
    ) -> None:
        self._activity = activity
        self._is_under_way = False
        self.go_on()
        try:
            self._call = GuardedCall(activity.session, call)
            self._call.reserve(ended=ended)
        except BaseException:
            self.pause()
            raise
        self._began_ms = now_ms()

    @property
    def believes_cost(self) -> bool:
        """Whether the cost that its result reports is believed."""
        return self._activity.session.engine.policy.believes_cost(self._call.call)

    def pause(self) -> None:
        """Says that the call waits for somebody's answer, or is over."""
        if self._is_under_way:
            self._is_under_way = False
            self._activity.end()

    def go_on(self) -> None:
        """Says that the call goes on after that."""
        if not self._is_under_way:
            self._is_under_way = True
            self._activity.begin()

    def settle(self, answer: Answer) -> None:
        """Books what the call turned out to be."""
        self._call.finish(self._outcome(answer))
        self.pause()

    def settlement(self, answer: Answer) -> Settle | None:
        """Returns what books the call, by somebody else; `None` if nothing does."""
        op = self._call.settlement(self._outcome(answer))
        self.pause()
        return op

    def release(self) -> None:
        """Gives the call back: it never reached the server."""
        self._call.release()
        self.pause()

    def _outcome(self, answer: Answer) -> Outcome:
        status = CallStatus.OK
        if answer.is_broken_off:
            status = CallStatus.BROKEN_OFF
        elif answer.error_type is not None:
            status = CallStatus.ERROR
        outcome = Outcome(
            status=status,
            error_type=answer.error_type,
            cost_nano_usd=self._reported(answer),
            bytes_out=answer.size_bytes,
            latency_ms=None if answer.at_ms is None else answer.at_ms - self._began_ms,
            result_digest=self._digest(answer),
        )
        call = self._call.call
        if isinstance(call, ModelCall):
            return replace(outcome, **_sampled(answer))
        return outcome

    def _reported(self, answer: Answer) -> int | None:
        """Returns the cost in the result, where the operator believes this server."""
        result = {"_meta": answer.meta} if answer.result is None else answer.result
        contain = self._activity.session.engine.contain
        return wire.believed_cost(result, self._rule(), contain)

    def _rule(self) -> ToolRule | None:
        """Returns what the policy says about the tool; nothing about a model."""
        call, policy = self._call.call, self._activity.session.engine.policy
        return policy.tool_rule(call.name) if isinstance(call, ToolCall) else None

    def _digest(self, answer: Answer) -> str | None:
        shown: object = answer.edges or None
        if answer.result is not None:
            shown = {k: v for k, v in answer.result.items() if k != "_meta"}
        elif shown is None and answer.error_type is not None:
            # A tool that fails again and again in the same way is in a loop.
            shown = {"error": answer.error_type}
        return None if shown is None else self._call.digest_of(shown)


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
