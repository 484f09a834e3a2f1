"""Meters: what a charge was for, class by class, and to the nano-dollar. Pure."""

from collections.abc import Sequence

__all__ = ["METERS", "shares"]

METERS = (
    "Input Tokens",
    "Cached Input Tokens",
    "Cache Write Tokens",
    "Output Tokens",
)
"""Classes of tokens that have a price of their own."""


def shares(cost: int, weights: Sequence[int]) -> list[int]:
    """Divides an amount by weights; the parts add up to it exactly.

    Each part is rounded down, and what is left goes to those that lost most by
    that, one unit each (the largest remainder).

    Args:
        cost: The amount, at least 0.
        weights: At least 0, and not all of them 0.
    """
    total = sum(weights)
    parts = [cost * weight // total for weight in weights]
    lost = [cost * weight % total for weight in weights]
    by_loss = sorted(range(len(weights)), key=lambda i: -lost[i])
    for i in by_loss[: cost - sum(parts)]:
        parts[i] += 1
    return parts
