"""Self-test: whether a limit stops a model that LangChain calls here."""

import asyncio
import contextlib
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

from langchain_core.messages import AIMessage, BaseMessage
from langsmith.run_helpers import tracing_context

from guardrails import BudgetExceeded, Guard
from guardrails.core.policy import SESSION_BUDGET, Limits, Policy
from guardrails.stores.memory import MemoryStore
from guardrails_langchain.testing import ScriptedChatModel

__all__ = ["self_test"]

_POLICY = Policy(session=replace(SESSION_BUDGET, limits=Limits(steps=1)))
"""The second call of a session is one too many."""


def self_test() -> Mapping[str, bool]:
    """Calls a fake model past a limit, with LangChain's own callbacks between.

    Keeps its ledger in memory, and traces and logs nothing.

    Returns:
        Whether the limit stopped each way to call a model, `invoke` and `ainvoke`.
    """
    with _quiet(), tracing_context(enabled=False):
        guard = Guard(policy=_POLICY, store=MemoryStore())
        try:
            return {
                "invoke": _stops_invoke(guard),
                "ainvoke": asyncio.run(_stops_ainvoke(guard)),
            }
        finally:
            guard.close()


def _stops_invoke(guard: Guard) -> bool:
    model = _model()
    with guard.session("doctor", session_id="doctor-invoke"):
        model.invoke("first")
        with contextlib.suppress(BudgetExceeded):
            model.invoke("second")
            return False
    return model.calls == 1


async def _stops_ainvoke(guard: Guard) -> bool:
    model = _model()
    async with guard.session("doctor", session_id="doctor-ainvoke"):
        await model.ainvoke("first")
        with contextlib.suppress(BudgetExceeded):
            await model.ainvoke("second")
            return False
    return model.calls == 1


def _model() -> ScriptedChatModel:
    return ScriptedChatModel(script=_answer)


def _answer(_number: int, _messages: Sequence[BaseMessage]) -> AIMessage:
    return AIMessage(content="done")


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keeps the stops that are provoked here out of the log."""
    logger = logging.getLogger("guardrails")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
