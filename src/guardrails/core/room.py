"""Room: what is left in every budget of a call, and how much output fits into it.

Pure, and of one instant: others may take the room before it is reserved. So it
chooses how large a call is made, and never whether one may be: the ledger does that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from guardrails.core.accounts import Account, Charging
from guardrails.core.limits import effective_limits

__all__ = ["Room", "fair_output", "largest_output", "room_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What new calls may still take; `None` is not limited."""

    cost_nano_usd: int | None = None
    tokens: int | None = None

    def fits(self, *, cost_nano_usd: int, tokens: int) -> bool:
        """Whether a call of this size fits."""
        return (self.cost_nano_usd is None or cost_nano_usd <= self.cost_nano_usd) and (
            self.tokens is None or tokens <= self.tokens
        )


def room_of(
    charging: Charging, accounts: Sequence[Account | None], *, holds: bool = True
) -> Room:
    """Returns the room in the tightest budget, for money and for tokens.

    Args:
        charging: Whom a call is charged to.
        accounts: One row per line, in their order; `None` before its first call.
        holds: Whether open holds take room. Without, it is what waiting can bring.
    """
    costs: list[int] = []
    tokens: list[int] = []
    for line, account in zip(charging.lines, accounts, strict=True):
        if not line.is_binding:
            continue
        limits = effective_limits(line.limits, account.raised if account else None)
        if limits.cost_nano_usd is not None:
            costs.append(limits.cost_nano_usd - _used_cost(account, holds=holds))
        if limits.tokens is not None:
            tokens.append(limits.tokens - _used_tokens(account, holds=holds))
    return Room(
        cost_nano_usd=min(costs, default=None), tokens=min(tokens, default=None)
    )


def largest_output(fits: Callable[[int], bool], *, most: int) -> int:
    """Returns the largest output of at most `most` tokens that fits; 0 if none.

    Args:
        fits: Whether a call with that output fits. Less fits where more does.
        most: The largest to consider.
    """
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if fits(middle):
            least = middle
        else:
            most = middle - 1
    return least


def fair_output(largest: int, *, expected: int) -> int:
    """Returns the output to ask for where `largest` is all that fits.

    Half of it, so that calls beside this one find room too; but as much as is
    expected of it, or all there is if that is less.
    """
    return max(min(largest, expected), largest // 2)


def _used_cost(account: Account | None, *, holds: bool) -> int:
    if account is None:
        return 0
    return account.used_nano_usd - (0 if holds else account.held_nano_usd)


def _used_tokens(account: Account | None, *, holds: bool) -> int:
    if account is None:
        return 0
    return account.used_tokens - (0 if holds else account.held_tokens)
