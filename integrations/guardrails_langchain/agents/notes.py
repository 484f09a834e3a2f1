"""Notes: tells a model what is left of its budget, if it should know.

A note goes along with one request and is in no history; the tool `get_budget` is asked
by the model itself. Both only read: what is left may be less a moment later.
"""

from typing import Any

from langchain.agents.middleware.types import ModelRequest
from langchain_core.tools import BaseTool, StructuredTool

from guardrails import Guard, Session
from guardrails.core.accounts import Account
from guardrails.core.decisions import format_amount
from guardrails.core.lines import session_line
from guardrails.core.operations import ReadAccount
from guardrails.errors import ConfigurationError, StoreUnavailable
from guardrails.reports.budgets import BudgetRow, budget_rows
from guardrails_langchain.reading.pieces import instruction

__all__ = ["budget_tool", "checked_share", "noted"]

TOOL_NAME = "get_budget"

UNLIMITED = "Nothing limits this session."


def checked_share(value: object) -> float | None:
    """Returns the share of a limit from which on a model is told.

    Raises:
        ConfigurationError: If it is none.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        value = float("nan")
    if not 0 <= value <= 1:
        raise ConfigurationError(
            "note_from: this is no share of a limit. Pass a number from 0 to 1, as in "
            "note_from=0.8, or leave it out to tell the model nothing."
        )
    return float(value)


def noted(
    request: ModelRequest[Any], session: Session, share: float
) -> ModelRequest[Any]:
    """Returns the request with a note, if that much of any limit is used.

    Args:
        request: What is asked for.
        session: Whose limits they are.
        share: From which share of a limit on, 0 to 1.
    """
    near = [
        row for row in _rows(session) if row.limit - row.remaining >= share * row.limit
    ]
    if not near:
        return request
    text = f"Budget: {_text(near)}. Finish before it is used up."
    return request.override(messages=[*request.messages, instruction(text)])


def budget_tool(guard: Guard) -> BaseTool:
    """Returns a tool by which a model asks what is left. It counts as a step."""

    def get_budget() -> str:
        """Says how much of the budget of this work is used, and what is left."""
        return _text(_rows(guard.current_session())) or UNLIMITED

    return StructuredTool.from_function(get_budget, name=TOOL_NAME)


def _rows(session: Session) -> list[BudgetRow]:
    """Returns the session's limits; none if the store cannot be read."""
    line = session_line(session.budget, session.attribution)
    try:
        found = session.engine.store.execute(ReadAccount(account=session.account_key))
    except StoreUnavailable:
        return []
    accounts: dict[str, Account] = {} if found is None else {line.account: found}
    return budget_rows([("session", line)], accounts)


def _text(rows: list[BudgetRow]) -> str:
    return ", ".join(
        f"{format_amount(row.measure, row.remaining)} of "
        f"{format_amount(row.measure, row.limit)} ({row.measure.value}) left"
        for row in rows
    )
