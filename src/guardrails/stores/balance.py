"""Balance: whether the holds of a ledger add up to what its accounts hold. Pure.

For each account the open holds must add up to `held`, and the unconfirmed ones
to `unconfirmed`. More than that blocks money for ever; less lets a limit be
passed. Every operation keeps the difference as it is, so it can be mended by
adding it, also while agents run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from guardrails.core.decisions import format_count
from guardrails.core.money import usd_digits
from guardrails.stores.diagnosis import Check, Status

__all__ = ["Held", "HeldBy", "Imbalance", "balance_check", "held_of", "imbalance_of"]

SHOWN_MAX = 3
"""Accounts that are named; whoever has more has one cause, and sees it in three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is held against an account, in nano-USD and tokens."""

    held_nano_usd: int = 0
    unconfirmed_nano_usd: int = 0
    held_tokens: int = 0
    unconfirmed_tokens: int = 0

    def plus(self, other: "Held", *, times: int = 1) -> "Held":
        """Returns the sum; the difference with `times=-1`."""
        names = [field.name for field in fields(self)]
        return Held(
            **{
                name: getattr(self, name) + times * getattr(other, name)
                for name in names
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBy:
    """A hold, and the accounts that it is held against."""

    accounts: tuple[str, ...]
    amounts: Held
    expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Imbalance:
    """An account whose holds do not add up."""

    account: str
    booked: Held | None
    """`None` if there is no such account."""
    holds: Held

    @property
    def missing(self) -> Held:
        """What has to be added to the account."""
        return self.holds.plus(self.booked or Held(), times=-1)


def held_of(holds: Iterable[HeldBy]) -> dict[str, Held]:
    """Adds up the holds of each account."""
    sums: dict[str, Held] = {}
    for hold in holds:
        for account in hold.accounts:
            sums[account] = sums.get(account, Held()).plus(hold.amounts)
    return sums


def imbalance_of(account: str, *, booked: Held | None, holds: Held) -> Imbalance | None:
    """Compares an account with its holds; `None` if they add up."""
    if booked == holds:
        return None
    return Imbalance(account=account, booked=booked, holds=holds)


def balance_check(
    found: Sequence[Imbalance],
    *,
    accounts: int,
    holds: int,
    mend: Callable[[Imbalance], str],
) -> Check:
    """Judges what was found.

    Args:
        found: The accounts that do not add up.
        accounts: How many were looked at.
        holds: How many open and unconfirmed holds there are.
        mend: Writes the command that adds what is missing.
    """
    if not found:
        read = f"{format_count(accounts, 'account')} and {format_count(holds, 'hold')}"
        return Check(name="balance", status=Status.OK, text=f"{read} add up")
    shown = sorted(found, key=lambda one: one.account)[:SHOWN_MAX]
    lines = [_sentence(one) for one in shown]
    if len(found) > len(shown):
        lines.append(f"{len(found) - len(shown):,} more accounts do not add up")
    return Check(
        name="balance",
        status=Status.FAIL,
        text=". ".join(lines),
        commands=tuple(mend(one) for one in shown if one.booked is not None),
    )


_UNITS: Mapping[str, str] = {
    "held_nano_usd": "open holds",
    "unconfirmed_nano_usd": "unconfirmed holds",
    "held_tokens": "open holds",
    "unconfirmed_tokens": "unconfirmed holds",
}


def _sentence(found: Imbalance) -> str:
    if found.booked is None:
        return f"{found.account}: it has holds and is gone: evicted, deleted or lost"
    parts: list[str] = []
    for name, kind in _UNITS.items():
        booked, held = getattr(found.booked, name), getattr(found.holds, name)
        if booked != held:
            word = name.partition("_")[0]
            parts.append(
                f"{word} is {_amount(name, booked)}, its {kind} add up to "
                f"{_amount(name, held)}"
            )
    return f"{found.account}: {'; '.join(parts)}"


def _amount(name: str, number: int) -> str:
    if name.endswith("_tokens"):
        return f"{number:,} tokens"
    sign = "-" if number < 0 else ""
    return f"{sign}${usd_digits(abs(number))}"
