"""Money: integer nano-USD inside, `Decimal` at the edges, never float.

One nano-USD is 1e-9 USD, fine enough to price a single token of the cheapest
model exactly. Sums of integers do not drift, and integers up to 2**53 survive
the doubles of Lua, so every store computes the same total.

A host program may round its decimals to a few digits, or have each rounding raise. What
is computed with decimals here, and elsewhere, therefore names `EXACT` as its context.
"""

import re
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation

__all__ = [
    "EXACT",
    "LIMIT_NANO_USD_MAX",
    "NANO_PER_USD",
    "format_usd",
    "nano_usd",
    "usd",
    "usd_digits",
]

NANO_PER_USD = 10**9

EXACT = Context(
    prec=100,  # More digits than any amount, ratio or product of them has.
    rounding=ROUND_HALF_UP,
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[InvalidOperation],
)
"""The context of all that is computed with decimals. All is said here: what is not is
taken from `decimal.DefaultContext`, which a host may have changed."""

LIMIT_NANO_USD_MAX = 2**53 - 1
"""The largest limit of one account, about 9.0 million USD: the largest integer
that every store, Lua's doubles included, represents exactly."""

CHARACTERS_SHOWN_MAX = 60
"""Of a value in an error message: more than any amount has."""

_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]+)?", re.ASCII)
_DECIMALS_MAX = 9
_CENT = Decimal("0.01")
_CENT_NANO_USD = NANO_PER_USD // 100


def nano_usd(amount: object, *, name: str) -> int:
    """Converts an amount in USD to integer nano-USD, exactly or not at all.

    Args:
        amount: A `Decimal`, an `int`, a decimal string such as `"0.50"`, or a
            float whose shortest decimal form has at most nine decimals (YAML
            reads `0.50` as a float).
        name: The full path of the key, for the error message.

    Raises:
        ValueError: If the amount is no finite, non-negative number of USD with
            at most nine decimals and below `LIMIT_NANO_USD_MAX`.
    """
    text = _plain(amount, name=name)
    whole, _, decimals = text.partition(".")
    decimals = decimals.rstrip("0")
    if len(decimals) > _DECIMALS_MAX:
        drift = " Floats drift:" if isinstance(amount, float) else ""
        # What is above nothing does not become 0, which as a limit refuses all.
        near = max(Decimal(text).quantize(usd(1), context=EXACT), usd(1))
        shorter = f"{near.normalize(EXACT):f}"
        raise ValueError(
            f"{name}: {_shown(amount)} has more than {_DECIMALS_MAX} decimals."
            f'{drift} Write the amount as a string, for example "{shorter}".'
        )
    nano = int(whole) * NANO_PER_USD + int(decimals.ljust(_DECIMALS_MAX, "0"))
    if nano > LIMIT_NANO_USD_MAX:
        raise ValueError(
            f"{name}: {_shown(amount)} is above the largest amount, "
            f"{usd(LIMIT_NANO_USD_MAX)} USD. Use a smaller one, or split the scope."
        )
    return nano


def _shown(amount: object) -> str:
    """Names a value that is no amount; its own repr might raise or be huge."""
    if isinstance(amount, int) and amount.bit_length() > CHARACTERS_SHOWN_MAX * 3:
        return f"an integer of {amount.bit_length()} bits"
    if isinstance(amount, str):
        return repr(amount[:CHARACTERS_SHOWN_MAX])
    if isinstance(amount, int | float | Decimal):
        return repr(amount)[: CHARACTERS_SHOWN_MAX * 2]
    return f"a value of type {type(amount).__name__}"


def _plain(amount: object, *, name: str) -> str:
    """Returns the amount as digits with an optional fraction."""
    if isinstance(amount, bool) or not isinstance(amount, int | float | str | Decimal):
        raise ValueError(
            f"{name}: {_shown(amount)} is not an amount in USD. "
            'Write a number or a decimal string, for example "0.50".'
        )
    if isinstance(amount, str):
        text = amount.strip()
    else:
        # Not repr: NumPy's floats are floats, and write themselves `np.float64(0.5)`.
        digits = float.__repr__(amount) if isinstance(amount, float) else amount
        exact = Decimal(digits)
        # An exponent is bounded before it is written out: 1e400 has 401 digits.
        large = exact.is_finite() and abs(exact.adjusted()) > 40
        text = str(exact) if large else f"{exact:f}"
    if not _AMOUNT.fullmatch(text):
        raise ValueError(
            f"{name}: {_shown(amount)} is not an amount in USD. It must be a finite "
            'number of at least 0, such as "0.50" (a point, no comma, no sign).'
        )
    return text


def usd(nano: int) -> Decimal:
    """Converts integer nano-USD to an exact `Decimal` in USD, cents at least."""
    exact = Decimal(nano).scaleb(-_DECIMALS_MAX, EXACT).normalize(EXACT)
    is_fine = abs(nano) % _CENT_NANO_USD
    return exact if is_fine else exact.quantize(_CENT, context=EXACT)


def usd_digits(nano: int) -> str:
    """Writes an amount as a configuration would: `0.5`, exactly, without a sign."""
    return f"{usd(nano).normalize(EXACT):f}"


def format_usd(nano: int | None) -> str:
    """Writes an amount for people: `$1.00`, `$0.0135`, `-` for unknown.

    Cents are always shown. Below one dollar the amount keeps up to six
    decimals, because a single call often costs less than a cent.
    """
    if nano is None:
        return "-"
    decimals = 2 if abs(nano) >= NANO_PER_USD else 6
    # As columns do: one amount reads alike wherever it is shown.
    rounded = usd(nano).quantize(Decimal((0, (1,), -decimals)), context=EXACT)
    text = f"{rounded:,f}"
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"
