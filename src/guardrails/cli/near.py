"""Near names: what somebody may have meant whose name the ledger does not know."""

import difflib

from guardrails.cli.screens.names import safe
from guardrails.core.windows import DAY_MS
from guardrails.ports import History
from guardrails.system.clock import SystemClock

__all__ = ["NEAR_DAYS", "near_names", "recent_names"]

NEAR_DAYS = 7
"""How far back names are looked for."""

NEAR_NAMES = 3
CANDIDATES_MAX = 5_000
"""Names that an unknown one is compared with: 0.2 s."""


def recent_names(history: History, project_id: str, *, by: str) -> list[str]:
    """Returns the names of a dimension that had calls in the last days.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    now_ms = SystemClock().now_ms()
    found = history.spend(
        project_id=project_id,
        by=by,
        since_ms=now_ms - NEAR_DAYS * DAY_MS,
        until_ms=now_ms,
    )
    return [spend.name for spend in found if spend.name]


def near_names(name: str, known: list[str]) -> str:
    """Returns the question whether one of these was meant, or nothing."""
    known = known[:CANDIDATES_MAX]
    begun = [other for other in known if other.startswith(name)]
    near = (begun or difflib.get_close_matches(name, known))[:NEAR_NAMES]
    return f" Did you mean {' or '.join(map(safe, near))}?" if near else ""
