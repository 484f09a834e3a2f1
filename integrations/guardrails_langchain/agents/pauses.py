"""Pauses: at a limit a person is asked, who raises it or lets the agent end.

LangGraph keeps the thread where it is and runs the model's node again when it is
resumed. So whoever answers may do so in another process, a week later. Only the
node of the model asks: a tool that was refused is answered first. So there is one
question, however many tools ran beside one another, and none between a tool and a
question of its own.
"""

from collections.abc import Mapping
from typing import Any, cast

from langgraph.config import get_config
from langgraph.types import interrupt

from guardrails import Guard
from guardrails.core.policy import Measure
from guardrails.errors import BudgetExceeded, ConfigurationError
from guardrails.system.logs import host_log

__all__ = ["ask", "can_pause", "warn_unless_it_can_pause"]

_CHECKPOINTER = "__pregel_checkpointer"
"""Where LangGraph (1.1 to 1.2) puts the checkpointer of the running graph."""

_RAISES = tuple(measure.value for measure in Measure)

_log = host_log()


def can_pause() -> bool:
    """Whether the running graph keeps its threads, so that they can be resumed."""
    return bool(get_config().get("configurable", {}).get(_CHECKPOINTER))


def warn_unless_it_can_pause() -> None:
    """Says that an agent that should pause will raise."""
    if not can_pause():
        _log.warning(
            "guardrails: on_limit is pause, but this agent has no checkpointer, so it "
            "raises at a limit. Pass one: create_agent(..., checkpointer=...)."
        )


def ask(guard: Guard, stop: BudgetExceeded) -> None:
    """Asks a person, and returns when the call may be tried again.

    Raises:
        GraphInterrupt: If nobody has answered yet.
        BudgetExceeded: If the answer is to stop.
    """
    summary = _summary(stop)
    problem: str | None = None
    while True:
        question = summary if problem is None else {**summary, "problem": problem}
        answer: object = interrupt(question)
        if _is_stop(answer):
            raise stop
        try:
            _follow(guard, stop, answer)
        except ConfigurationError as error:
            problem = str(error)  # An answer that is no use is kept; so ask again.
        else:
            return


def _summary(stop: BudgetExceeded) -> dict[str, Any]:
    """Returns what a person needs to know: amounts are texts, in the limit's unit."""
    return {
        "reason": stop.reason,
        "message": stop.message,
        "limit": stop.limit,
        "scope": stop.scope,
        "spent": str(stop.spent),
        "allowed": str(stop.allowed),
        "needed": None if stop.needed is None else str(stop.needed),
        "session_id": stop.session_id,
        "agent": stop.agent,
        "steps": stop.steps,
        "top_costs": [
            {"name": name, "cost_usd": str(cost), "calls": calls}
            for name, cost, calls in stop.top_costs
        ],
    }


def _is_stop(answer: object) -> bool:
    if isinstance(answer, Mapping):
        return cast("Mapping[str, object]", answer).get("stop") is True
    return answer is False


def _follow(guard: Guard, stop: BudgetExceeded, answer: object) -> None:
    """Raises the limits that an answer names; `True` and `{}` only try again.

    Raises:
        ConfigurationError: If the answer makes no sense. Nothing is raised then.
    """
    if answer is True:
        return
    if not isinstance(answer, Mapping):
        raise ConfigurationError(
            "resume: this is no answer. Pass a mapping, such as "
            '{"max_cost_usd": "2.00"} or {"stop": true}.'
        )
    given = dict(cast("Mapping[str, Any]", answer))
    given.pop("stop", None)
    who = {key: given.pop(key, None) for key in ("by", "reason")}
    unknown = [key for key in given if key not in _RAISES]
    if unknown:
        raise ConfigurationError(
            f"resume: {unknown[0]!r} is no limit. Known: {', '.join(_RAISES)}."
        )
    if not given:
        return
    if stop.part is not None:
        session_id, kind, name = stop.part
        guard.raise_limit(session_id, **{kind: name}, **given, **who)
    else:
        guard.raise_limit(_session_id(stop), **given, **who)


def _session_id(stop: BudgetExceeded) -> str:
    """Returns whose limit it is: the session's own, or that of one around it."""
    kind, _, around = stop.scope.partition(" ")
    session_id = around or stop.session_id
    if kind != "session" or session_id is None:
        raise ConfigurationError(
            f"resume: the budget of {stop.scope} is shared, and is raised in the "
            "configuration. Do that, then resume with {}."
        )
    return session_id
