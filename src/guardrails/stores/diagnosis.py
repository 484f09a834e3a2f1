"""Diagnosis: what was checked about a store, how it stands, and what mends it. Pure."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Check", "Status", "worst_of"]


class Status(enum.StrEnum):
    """How a check ended, best first."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be looked at; the text says why."""
    WARN = "warn"
    """It works, and something may be lost or missed."""
    FAIL = "fail"
    """Limits do not hold, or will not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    """One word, the same for every store that has such a thing."""
    status: Status
    text: str
    """What was found, and of a problem what it means. Without credentials."""
    commands: tuple[str, ...] = ()
    """What mends it, for a shell, in order. May have several lines each."""


def worst_of(checks: Iterable[Check]) -> Status:
    """Returns the worst status; that of no check is ok."""
    order = list(Status)
    return max((check.status for check in checks), key=order.index, default=Status.OK)
