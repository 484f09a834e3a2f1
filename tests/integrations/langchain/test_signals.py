"""Signals in the middle of a hook: what was paid is booked, and the host hears it."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage

import guardrails_langchain
from guardrails import Session
from guardrails.sessions.scope import current_call
from tests.integrations.langchain.rig import Rig
from tests.signals import Interrupt, TimeLimit, raising

FILES = {str(file) for file in Path(guardrails_langchain.__file__).parent.rglob("*.py")}


def a_model(rig: Rig, session: Session) -> None:
    model = rig.model(lambda number, messages: AIMessage("hello"))
    with session:
        model.invoke("hi")


def a_tool(rig: Rig, session: Session) -> None:
    with session:
        rig.tool().invoke({"q": "a"})


def a_tool_that_fails(rig: Rig, session: Session) -> None:
    def fail(q: str) -> str:
        raise ValueError(q)

    with session, pytest.raises(ValueError, match="a"):
        rig.tool(work=fail).invoke({"q": "a"})


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeLimit])
@pytest.mark.parametrize("work", [a_model, a_tool, a_tool_that_fails])
def test_an_interrupt_in_a_hook_loses_no_paid_call(
    work: Callable[[Rig, Session], None], kind: type[BaseException]
) -> None:
    """Wherever it comes; a time limit of Celery is not taken for a failure of ours."""
    rig = Rig()
    for number in itertools.count(1, 3):
        session, before = rig.guard.session(), rig.record.runs
        interrupt = Interrupt(number, raising(kind), files=FILES)
        try:
            with interrupt:
                work(rig, session)
        except kind:
            was_raised = True
        else:
            was_raised = False
        assert was_raised == interrupt.has_come
        account = rig.guard.account(session.session_id)
        assert account is None or account.held_nano_usd == 0
        assert len(session.events()) >= rig.record.runs - before
        assert current_call.get() is None
        if not interrupt.has_come:
            break
    assert number > 20
