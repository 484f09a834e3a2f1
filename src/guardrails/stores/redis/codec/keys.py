"""Keys: where each part of a project's ledger lies in Redis. Pure.

A project is the unit of sharding. Its encoded name is the hash tag of all its
keys, so that one script reaches everything that a call touches, also in a
cluster. Names in account keys are percent-encoded: none can hold a brace.
"""

from functools import lru_cache
from urllib.parse import quote

from guardrails.core.reporting.rollups import HOUR_MS

__all__ = [
    "FINISHED_PERIOD_MS",
    "SECRET",
    "account_of",
    "audit",
    "due",
    "events",
    "field_of",
    "finished",
    "holding",
    "holds",
    "lost",
    "new_events",
    "notes",
    "nothing",
    "outbox",
    "prefix_of",
    "project_prefix",
    "rollup",
    "stops",
    "traces_of",
    "turn",
    "version",
]

PREFIX = "gr:"
"""Of every key, so that an access rule can name them all: `~gr:*`."""

SECRET = f"{PREFIX}secret"
"""The fingerprint key; the only key outside a project."""

FINISHED_PERIOD_MS = 12 * HOUR_MS + HOUR_MS // 2
"""Ids of finished calls are kept per period, and looked up in four of them: so
each is known for at least `SETTLED_RETENTION_MS`, and no key lives for ever."""


def project_prefix(project_id: str) -> str:
    """Returns what the keys of a project begin with."""
    return f"{PREFIX}{{{quote(project_id, safe='')}}}:"


@lru_cache(maxsize=4096)
def account_of(account: str) -> str:
    """Returns the key of an account: `project/window/...` in the ledger."""
    project, _, rest = account.partition("/")
    return f"{PREFIX}{{{project}}}:{rest}"


def prefix_of(account: str) -> str:
    """Returns what the keys of an account's project begin with."""
    return f"{PREFIX}{{{account.partition('/')[0]}}}:"


def traces_of(account: str) -> str:
    """Returns the key of the tool calls that a session remembers."""
    project, _, rest = account.partition("/")
    return f"{PREFIX}{{{project}}}:traces/{rest}"


def version(prefix: str) -> str:
    """Counts the project's changes; it never goes back unless data is lost."""
    return f"{prefix}version"


def holds(prefix: str) -> str:
    """Open holds by id."""
    return f"{prefix}holds"


def due(prefix: str) -> str:
    """Ids of open holds by the instant at which they expire."""
    return f"{prefix}due"


def lost(prefix: str) -> str:
    """Unconfirmed holds by id."""
    return f"{prefix}lost"


def holding(prefix: str) -> tuple[str, ...]:
    """What every script that moves holds is given first."""
    return (version(prefix), holds(prefix), due(prefix), lost(prefix))


def finished(prefix: str, now_ms: int) -> tuple[str, ...]:
    """Settled and released ids: this period, the one after and two before.

    The one after is for clocks that disagree, or that were set back.
    """
    period = now_ms // FINISHED_PERIOD_MS
    return tuple(f"{prefix}finished/{period - back}" for back in (0, -1, 1, 2))


def events(prefix: str) -> str:
    """The stream of events."""
    return f"{prefix}events"


def new_events(prefix: str) -> str:
    """The stream that is to take the place of that of events."""
    return f"{prefix}events/new"


def turn(prefix: str) -> str:
    """Who may rewrite the stream of events."""
    return f"{prefix}events/turn"


def nothing(prefix: str) -> str:
    """A key that is never there.

    A cluster that moves a slot runs no script that names it: a script that finds its
    keys by itself would take for gone what is only elsewhere.
    """
    return f"{prefix}nothing"


def stops(prefix: str) -> str:
    """What people have stopped, by `field_of` its key; gone when the last one is."""
    return f"{prefix}stops"


def notes(prefix: str) -> str:
    """What calls come to, until it is added to the sums of hours."""
    return f"{prefix}notes"


def audit(prefix: str) -> str:
    """What people did, oldest first."""
    return f"{prefix}audit"


def outbox(prefix: str) -> str:
    """What people are to be told, by id. Keys below it say where to."""
    return f"{prefix}outbox"


def field_of(key: str) -> str:
    """Returns the part of a key of the ledger that follows its project."""
    return key.partition("/")[2]


def rollup(prefix: str, hour: int, dimension: str) -> str:
    """The sums of one hour by the names of one dimension."""
    return f"{prefix}hour/{hour}/{dimension}"
