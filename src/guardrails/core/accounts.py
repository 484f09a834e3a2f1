"""Accounts and holds: the rows of the ledger, and what a call is charged to.

Rows are mutable and belong to one ledger; everything else here is a value.
"""

import enum
from dataclasses import dataclass, field, replace
from decimal import Decimal

from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind
from guardrails.core.loops import LoopFinding, LoopRule, ToolTrace
from guardrails.core.policy import Limits, Measure, OnStoreError
from guardrails.core.stops import stop_keys
from guardrails.core.telling import Telling

__all__ = [
    "FORGOTTEN",
    "Account",
    "Charging",
    "Hold",
    "HoldState",
    "Line",
    "SessionState",
    "Stop",
    "StopReason",
    "Threshold",
]

CLOCK_STEP_MS = 60_000
"""Processes of one machine disagree by milliseconds; a clock that goes back
further than this was set."""


FORGOTTEN = ""
"""Stands in an unconfirmed hold for a session that was forgotten with its customer. The
rest of the hold waits for its late settle."""


class StopReason(enum.StrEnum):
    """Why a session was ended."""

    BUDGET_EXCEEDED = "budget_exceeded"
    LOOP_DETECTED = "loop_detected"
    KILLED = "killed"


class HoldState(enum.StrEnum):
    """The life of a hold; see `ledger.py`."""

    OPEN = "open"
    UNCONFIRMED = "unconfirmed"
    SETTLED = "settled"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A point below a limit at which people are told."""

    measure: Measure
    value: int
    """In the unit of the ledger: nano-USD, counts, milliseconds."""
    ratio: Decimal | None = None
    """The fraction of the limit it stands for; it moves with a raised limit."""
    label: str
    """Names it once per account, such as `max_cost_usd:0.8`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One account that a call is charged to, with the limits that apply there."""

    account: str
    """The account's key."""
    scope: str
    """The scope for people: `session`, `customer_id=acme`, `project`."""
    limits: Limits
    thresholds: tuple[Threshold, ...] = ()
    is_session: bool = False
    """Session accounts stop, keep time and remember tool calls."""
    attribution: Attribution | None = None
    """Whose session it is, if it is not that of the call: one around it."""
    is_binding: bool = True
    """False for budgets that only alert."""
    expires_at_ms: int | None = None
    """When the account's window ends."""
    on_store_error: OnStoreError | None = None
    """What holds here while the store is away, if not what holds in general."""
    part: tuple[str, str, str] | None = None
    """Of a part of a session: the session's id, `agent` or `tool`, and its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charging:
    """Whom a call is charged to, and by which rules. Shared by many calls."""

    attribution: Attribution
    lines: tuple[Line, ...]
    """The session first, then the sessions around it, then their parts and shared
    accounts."""
    loop: LoopRule | None = None
    is_enforced: bool = True
    """False decides and records everything, and refuses nothing."""
    telling: Telling | None = None
    """What the ledger tells people of; `None` if nobody wants to know."""
    accounts: tuple[str, ...] = field(init=False)
    """The keys of the lines' accounts, in their order."""

    stop_keys: tuple[str, ...] = field(init=False)
    """The keys of the stop orders that such calls fall under."""

    has_thresholds: bool = field(init=False)
    """Whether any line has soft thresholds to watch."""

    def __post_init__(self) -> None:
        keys = tuple([line.account for line in self.lines])
        object.__setattr__(self, "accounts", keys)
        sessions = [line.account for line in self.lines if line.is_session]
        stops = stop_keys(self.attribution, sessions)
        object.__setattr__(self, "stop_keys", stops)
        watched = any(line.thresholds for line in self.lines)
        object.__setattr__(self, "has_thresholds", watched)

    @property
    def limits_cost(self) -> bool:
        """Whether any binding budget limits money."""
        return any(
            line.is_binding and line.limits.cost_nano_usd is not None
            for line in self.lines
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The sticky end of a session."""

    reason: StopReason
    at_ms: int
    measure: Measure | None = None
    """The limit that ended it, if one did."""
    scope: str | None = None
    """Of the line that it came from, for people; `None` if a person stopped it."""
    used: int = 0
    """What counted against the limit, in the unit of the ledger."""
    allowed: int = 0
    needed: int | None = None
    """What the refused call would have added at most."""
    finding: LoopFinding | None = None
    by: str | None = None
    """Who stopped it, if a person did."""
    note: str | None = None


@dataclass(slots=True, kw_only=True)
class SessionState:
    """What a session's account keeps beside its totals."""

    attribution: Attribution
    started_at_ms: int
    last_active_at_ms: int
    active_ms: int = 0
    """Time during which an agent run was active, in any process."""
    ended_at_ms: int | None = None
    traces: tuple[ToolTrace, ...] = ()
    """The last completed tool calls, oldest first."""

    def elapsed_ms(self, now_ms: int, active_ms: int) -> int:
        """Returns the active time if a process was active until `now_ms`.

        Args:
            now_ms: The instant of the report.
            active_ms: How long the process has been active without a break, on
                its monotonic clock. All such spans end at `now_ms` and arrive
                in order, so adding what lies after the last report counts
                overlapping processes once, and waiting for a person never.
        """
        gap_ms = now_ms - self.last_active_at_ms
        return self.active_ms + max(0, min(active_ms, gap_ms))

    def touch(self, now_ms: int, active_ms: int) -> None:
        """Adds the active time up to `now_ms`, and reopens the session."""
        gap_ms = now_ms - self.last_active_at_ms
        if gap_ms > 0:
            self.active_ms += min(active_ms, gap_ms)
            self.last_active_at_ms = now_ms
        elif gap_ms < -CLOCK_STEP_MS:
            self.last_active_at_ms = now_ms
        self.ended_at_ms = None


@dataclass(slots=True, kw_only=True)
class Account:
    """The running totals of one scope in one window. A row of the ledger."""

    key: str
    posted_nano_usd: int = 0
    held_nano_usd: int = 0
    unconfirmed_nano_usd: int = 0
    posted_tokens: int = 0
    held_tokens: int = 0
    unconfirmed_tokens: int = 0
    steps: int = 0
    """Admitted calls, open ones included: an admitted call stays a step unless
    it is released, so steps are never held."""
    model_calls: int = 0
    tool_calls: int = 0
    alerted: tuple[str, ...] = ()
    """Labels of the thresholds that were crossed."""
    raised: Limits | None = None
    """Limits that a person raised above the policy's."""
    stop: Stop | None = None
    expires_at_ms: int | None = None
    session: SessionState | None = None

    @property
    def used_nano_usd(self) -> int:
        """What counts against a cost limit."""
        return self.posted_nano_usd + self.held_nano_usd + self.unconfirmed_nano_usd

    @property
    def used_tokens(self) -> int:
        """What counts against a token limit."""
        return self.posted_tokens + self.held_tokens + self.unconfirmed_tokens

    def used(self, measure: Measure) -> int:
        """Returns what counts against a limit: held and unconfirmed included."""
        if measure is Measure.COST:
            return self.used_nano_usd
        if measure is Measure.TOKENS:
            return self.used_tokens
        return self.posted(measure)

    def posted(self, measure: Measure) -> int:
        """Returns the settled total of a measure, in the unit of the ledger."""
        match measure:
            case Measure.COST:
                return self.posted_nano_usd
            case Measure.TOKENS:
                return self.posted_tokens
            case Measure.STEPS:
                return self.steps
            case Measure.MODEL_CALLS:
                return self.model_calls
            case Measure.TOOL_CALLS:
                return self.tool_calls
            case Measure.WALL_TIME:
                return self.session.active_ms if self.session else 0

    def copy(self) -> "Account":
        """Returns a copy that shares nothing mutable with this row."""
        session = None if self.session is None else replace(self.session)
        return replace(self, session=session)

    def count(self, kind: CallKind, by: int) -> None:
        """Adds an admitted call, or takes a released one back."""
        self.steps += by
        if kind is CallKind.MODEL:
            self.model_calls += by
        else:
            self.tool_calls += by

    def drop(self, hold: "Hold") -> None:
        """Removes a hold from what is held or unconfirmed."""
        if hold.state is HoldState.OPEN:
            self.held_nano_usd -= hold.cost_nano_usd
            self.held_tokens -= hold.tokens
        elif hold.state is HoldState.UNCONFIRMED:
            self.unconfirmed_nano_usd -= hold.cost_nano_usd
            self.unconfirmed_tokens -= hold.tokens


@dataclass(slots=True, kw_only=True)
class Hold:
    """A reservation. A row of the ledger."""

    hold_id: str
    state: HoldState
    kind: CallKind
    accounts: tuple[str, ...]
    cost_nano_usd: int
    tokens: int
    expires_at_ms: int
    """When an open hold becomes unconfirmed; when a finished one is forgotten."""
