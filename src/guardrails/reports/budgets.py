"""Budgets: how much of each is used, held and left. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from guardrails.core.accounts import Account, Line
from guardrails.core.limits import effective_limits
from guardrails.core.policy import Measure

__all__ = ["BudgetRow", "budget_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """One limit of one budget. Amounts are in the unit of the ledger."""

    budget: str
    scope: str
    measure: Measure
    limit: int
    """With what a person raised it to."""
    used: int
    """Settled; of wall time what was active up to the last call."""
    held: int
    """What calls in flight may cost at most."""
    unconfirmed: int
    """What calls may have cost whose process died."""
    ends_at_ms: int | None
    """When its window ends; `None` for that of a session, and for a total."""
    is_binding: bool
    """False for a budget that only alerts."""

    @property
    def remaining(self) -> int:
        """What new calls may add; never below 0."""
        return max(0, self.limit - self.used - self.held - self.unconfirmed)


def budget_rows(
    named: Sequence[tuple[str, Line]], accounts: Mapping[str, Account]
) -> list[BudgetRow]:
    """Returns a row per limit, in the order of the budgets.

    Args:
        named: The budgets that apply, by their names.
        accounts: Their accounts, by key, as far as they have begun.
    """
    return [
        row
        for name, line in named
        for row in _rows(name, line, accounts.get(line.account))
    ]


def _rows(name: str, line: Line, known: Account | None) -> Iterator[BudgetRow]:
    account = known or Account(key=line.account)
    limits = effective_limits(line.limits, account.raised)
    for measure in Measure:
        limit = limits.of(measure)
        if limit is None:
            continue
        held, unconfirmed = _open(measure, account)
        yield BudgetRow(
            budget=name,
            scope=line.scope,
            measure=measure,
            limit=limit,
            used=account.posted(measure),
            held=held,
            unconfirmed=unconfirmed,
            ends_at_ms=line.expires_at_ms,
            is_binding=line.is_binding,
        )


def _open(measure: Measure, account: Account) -> tuple[int, int]:
    """Returns what is held and unconfirmed. Calls count from their start, so never."""
    if measure is Measure.COST:
        return account.held_nano_usd, account.unconfirmed_nano_usd
    if measure is Measure.TOKENS:
        return account.held_tokens, account.unconfirmed_tokens
    return 0, 0
