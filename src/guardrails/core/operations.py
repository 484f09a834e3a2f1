"""Operations: what can be asked of a ledger, and its replies, as plain values.

The core plans an operation, a store applies it atomically, the core decides
from the reply. Because operations are values, they can be compared, recorded,
sent again, and run against any store.
"""

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

from guardrails.core.accounts import Account, Charging, Line, Stop, Threshold
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind
from guardrails.core.events import Event
from guardrails.core.loops import LoopFinding, ToolTrace
from guardrails.core.money import LIMIT_NANO_USD_MAX
from guardrails.core.policy import Limits, Measure
from guardrails.core.stops import AuditEntry, StopOrder, StopTarget
from guardrails.core.telling import Telling
from guardrails.core.usage import TOKENS_MAX

__all__ = [
    "Close",
    "Conflict",
    "Crossing",
    "Operation",
    "RaiseLimits",
    "ReadAccount",
    "ReadAudit",
    "ReadStops",
    "Refusal",
    "Release",
    "Released",
    "Reserve",
    "Reserved",
    "Resume",
    "ResumeScope",
    "Settle",
    "Settled",
    "StopScope",
    "StopSession",
    "Sweep",
    "Swept",
    "Turn",
    "Turned",
    "Verdict",
    "settled_by",
]

R = TypeVar("R")


class Verdict(enum.StrEnum):
    """The answer to a reservation."""

    ALLOW = "allow"
    """The call fits."""
    WAIT = "wait"
    """It fits once open holds settle: refused now, and nothing is decided."""
    DENY = "deny"
    """It does not fit, even if no hold were open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a call may not be made."""

    line: Line
    measure: Measure | None = None
    """The limit in the way; `None` for a stop or a loop."""
    used: int = 0
    """Posted, held and unconfirmed, in the unit of the ledger."""
    allowed: int = 0
    needed: int = 0
    """What the call would add at most."""
    steps: int = 0
    """Steps of the session that asks, so far."""
    stop: Stop | None = None
    """The stop that ends the session: an earlier one, or the one this sets."""
    finding: LoopFinding | None = None
    """The loop that this one call would continue."""
    order: StopOrder | None = None
    """The stop of a person that the call falls under; it ends no session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A soft threshold that an operation crossed. Told once."""

    line: Line
    threshold: Threshold
    posted: int
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """The answer to `Reserve`."""

    verdict: Verdict
    refusal: Refusal | None = None
    """Set unless allowed. With `ALLOW` in observe mode: what would have refused."""
    new_stop: Stop | None = None
    """The stop that this operation set; one caller in the fleet sees it."""
    crossings: tuple[Crossing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The answer to `Settle`."""

    is_applied: bool = True
    """False when the hold had been settled before: nothing changed."""
    is_late: bool = False
    """The hold was no longer open, or was not known."""
    crossings: tuple[Crossing, ...] = ()
    new_stop: Stop | None = None
    """The stop that this operation set; one caller in the fleet sees it."""
    finding: LoopFinding | None = None
    """A loop that this result completed; told once per run of repetitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The answer to `Release`."""

    is_applied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The answer to `Sweep`."""

    unconfirmed: int
    """Open holds that became unconfirmed."""
    forgotten: int
    """Finished holds that were forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """The id was used before, with other content or for a call that was given back.

    Nothing was changed.
    """

    hold_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """The answer to `Turn`."""

    settled: Settled | Conflict
    reserved: Reserved | Conflict


@dataclass(frozen=True, slots=True)
class Operation(Generic[R]):
    """One atomic change or reading of a ledger; `R` is the type of its reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve(Operation[Reserved | Conflict]):
    """Hold a call's upper bound against every line, or against none.

    Idempotent by `hold_id` once admitted; a refused reservation leaves no
    trace and may be tried again under the same id.
    """

    hold_id: str
    charging: Charging
    kind: CallKind
    cost_nano_usd: int
    tokens: int
    now_ms: int
    expires_at_ms: int
    active_ms: tuple[int, ...]
    """One entry per session line: see `SessionState.elapsed_ms`."""
    trace: ToolTrace | None = None
    """The tool call, without its result; only rules that block look at it."""

    def __post_init__(self) -> None:
        _check_amounts(self.cost_nano_usd, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(Operation[Settled | Conflict]):
    """Book what a call really cost. Never refused, idempotent by `hold_id`.

    It names all that it needs, so it books the truth also when the ledger has
    lost the hold.
    """

    hold_id: str
    charging: Charging
    """As reserved."""
    kind: CallKind
    cost_nano_usd: int
    """0 for a call whose cost is not known: its event says so."""
    tokens: int
    now_ms: int
    active_ms: tuple[int, ...]
    """One entry per session line: see `SessionState.elapsed_ms`."""
    event: Event
    trace: ToolTrace | None = None
    """The tool call with its result; `None` if it takes no part in loops."""

    def __post_init__(self) -> None:
        _check_amounts(self.cost_nano_usd, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Operation[Released]):
    """Give a hold back, because its call was never sent. Idempotent."""

    hold_id: str
    account: str
    """The first account that the hold is charged to: it names the project."""
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Operation[Turned]):
    """Book the call that has ended, then reserve the one that begins.

    The same as `Settle` and then `Reserve`, in one round trip where both are
    charged alike. Each half is atomic, and has its own effect and answer.
    """

    settle: Settle
    reserve: Reserve


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Operation[Swept]):
    """Turn expired holds into unconfirmed ones and forget what is long over."""

    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Operation[Account | None]):
    """Note that nothing of this session runs now. A later call reopens it."""

    account: str
    now_ms: int
    active_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSession(Operation[Account]):
    """Stop a session for good, whether or not it has begun. Idempotent."""

    account: str
    attribution: Attribution
    now_ms: int
    by: str | None = None
    note: str | None = None
    telling: Telling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Operation[Account | None]):
    """Lift a session's stop and forget the repetitions that led to it."""

    account: str
    now_ms: int
    by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopScope(Operation[StopOrder | None]):
    """Stop whatever calls fall under a target, until an instant or until lifted.

    A session is stopped so for a time only; `StopSession` stops it for good. The
    reply is the order in force: this one, or an earlier one that lasts as long.
    `None` if as many are in force as the ledger keeps. Idempotent.
    """

    project_id: str
    target: StopTarget
    now_ms: int
    until_ms: int | None = None
    by: str | None = None
    note: str | None = None
    telling: Telling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeScope(Operation[StopOrder | None]):
    """Lift the stop of a target. The reply is what was lifted. Idempotent."""

    project_id: str
    target: StopTarget
    now_ms: int
    by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseLimits(Operation[Account]):
    """Raise limits of an account above the policy's; lifts a budget stop."""

    account: str
    limits: Limits
    """`None` leaves a limit as it is."""
    now_ms: int
    by: str | None = None
    note: str | None = None
    policy: Limits | None = None
    """The policy's limits, for the audit."""
    telling: Telling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadStops(Operation[tuple[StopOrder, ...]]):
    """Read the stops of people that are in force in a project, oldest first."""

    project_id: str
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAudit(Operation[tuple[AuditEntry, ...]]):
    """Read what people did last in a project, newest first."""

    project_id: str
    limit: int
    """At least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAccount(Operation[Account | None]):
    """Read an account. The reply is a copy; `None` before its first call."""

    account: str


def settled_by(
    operation: object, reply: object
) -> tuple[Settle, Settled] | tuple[None, None]:
    """Returns what an operation booked, and the answer to that."""
    if isinstance(operation, Turn) and isinstance(reply, Turned):
        operation, reply = operation.settle, reply.settled
    if isinstance(operation, Settle) and isinstance(reply, Settled):
        return operation, reply
    return None, None


def _check_amounts(cost_nano_usd: int, tokens: int) -> None:
    """Refuses what could poison a total, before any row is touched."""
    if not 0 <= cost_nano_usd <= LIMIT_NANO_USD_MAX or not 0 <= tokens <= TOKENS_MAX:
        raise ValueError(
            f"amounts: {cost_nano_usd!r} nano-USD and {tokens!r} tokens must be at "
            f"least 0 and at most {LIMIT_NANO_USD_MAX} and {TOKENS_MAX}."
        )
