"""Loops: recognises an agent that repeats itself without getting anywhere.

A detector is a pure function over the session's last tool calls, oldest first.
It looks at arguments *and* result: the same call with the same result is a
loop, and so is a round of calls that comes again exactly. The same call with a
changing result is polling, which is often right and needs a much higher count;
and a tool that fails in the same way whatever it is asked is a loop too. Every
finding says what repeated, how often, and what that cost, so that a person can
check the verdict.

Theory of operation
-------------------
The trace of a completed call is remembered, and `find_loop` looks at those that
are remembered for a loop that *ends in the last one*. So another call ends a loop,
and nobody has to remember that there was one. Where a rule blocks, the calls that
would go on with it are refused, and each refusal leaves a trace behind the others,
which are counted: an agent that reads the refusal and goes on all the same is
stopped. The next completed call sweeps them away.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

__all__ = [
    "CYCLE_PERIOD_MAX",
    "FAILED",
    "TRACES_MAX",
    "LoopAction",
    "LoopFinding",
    "LoopKind",
    "LoopRule",
    "ToolTrace",
    "continues_loop",
    "find_loop",
    "refusals_of",
    "refused_trace",
    "remember",
    "remember_refusal",
]

TRACES_MAX = 64
"""Tool calls remembered per session: the largest `within` and `refusals` together."""

CYCLE_PERIOD_MAX = 8
"""Calls of the longest round that is recognised. Two rounds of it lie in the usual
`within`; longer ones are not met in practice."""

REPEATS = 3
"""Once may be chance and twice a mistake; agents at work do not come to three."""

CYCLE_REPEATS = 2
"""Two rounds are at least four calls that brought nothing new."""

ERROR_REPEATS = 5
"""Agents at work try other arguments up to three times (recorded sessions, 2024)."""

POLLING_REPEATS = 10
"""Waiting is often right; ten looks in a row without another call seldom are."""

REFUSALS = 3
"""Models that do not follow the first refusal may follow the second or third."""

FAILED = "!"
"""What the digest of an error begins with. It is part of the digest, so that an
error is never the same as a result, in whatever store."""

REFUSED = "-"
"""Stands where a call that was refused would have the digest of its result."""


class LoopAction(enum.StrEnum):
    """What to do about a loop."""

    WARN = "warn"
    """Tell people and go on."""
    BLOCK = "block"
    """Refuse the repeated call with a message that the model can read, and end the
    session if the agent goes on all the same."""
    STOP = "stop"
    """End the session."""


class LoopKind(enum.StrEnum):
    """What repeats."""

    IDENTICAL = "identical"
    """The same tool, arguments and result in a row."""
    CYCLE = "cycle"
    """The same round of calls, with the same arguments and results, in a row."""
    REPEATED_ERROR = "repeated_error"
    """The same tool with the same error in a row, whatever its arguments."""
    POLLING = "polling"
    """The same tool and arguments in a row, while the result changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRule:
    """When repetition counts as a loop.

    Raises:
        ValueError: If a count is out of range.
    """

    repeats: int = REPEATS
    """Identical calls with identical results in a row that make a loop."""
    cycle_repeats: int = CYCLE_REPEATS
    """Identical rounds of 2 to `CYCLE_PERIOD_MAX` calls in a row that make a loop."""
    error_repeats: int = ERROR_REPEATS
    """Calls of one tool with the same error in a row that make a loop."""
    polling_repeats: int = POLLING_REPEATS
    """Identical calls in a row, whatever their results, that make a loop."""
    within: int = 20
    """How many of the session's last tool calls are looked at."""
    action: LoopAction = LoopAction.STOP
    refusals: int = REFUSALS
    """How often `block` refuses to go on with a loop before it ends the session."""
    ignore_arguments: tuple[str, ...] = ()
    """Names of arguments that change on every call and mean nothing."""
    exempt: tuple[str, ...] = ()
    """Globs over `server/tool` of tools that may repeat."""

    def __post_init__(self) -> None:
        self._check_at_least("repeats", 2)
        self._check_at_least("cycle_repeats", 2)
        self._check_at_least("error_repeats", 2)
        if not self.repeats <= self.polling_repeats <= self.within:
            raise ValueError(
                f"loop.polling_repeats: {self.polling_repeats!r} must be at least "
                f"loop.repeats ({self.repeats!r}) and at most loop.within "
                f"({self.within!r})."
            )
        if self.cycle_repeats * 2 > self.within:
            raise ValueError(
                f"loop.cycle_repeats: {self.cycle_repeats!r} rounds are at least "
                f"{self.cycle_repeats * 2} calls, which must be at most loop.within "
                f"({self.within!r})."
            )
        if self.refusals < 1:
            raise ValueError(
                f"loop.refusals: {self.refusals!r} must be at least 1. To stop "
                "without refusing first, write action: stop."
            )
        if self.within > TRACES_MAX:
            raise ValueError(
                f"loop.within: {self.within!r} is above {TRACES_MAX}, the number of "
                "tool calls that are remembered."
            )
        if self.within + self.refusals > TRACES_MAX:
            raise ValueError(
                f"loop.refusals: {self.refusals!r} and loop.within ({self.within!r}) "
                f"are together above {TRACES_MAX}, the number of tool calls that are "
                "remembered."
            )

    def _check_at_least(self, key: str, lowest: int) -> None:
        value: int = getattr(self, key)
        if not lowest <= value <= self.within:
            raise ValueError(
                f"loop.{key}: {value!r} must be at least {lowest} and at most "
                f"loop.within ({self.within!r})."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTrace:
    """What is remembered of one tool call: digests, never content."""

    tool: str
    """`server/tool`."""
    arguments_digest: str
    result_digest: str | None
    """Begins with `FAILED` if the call failed. `None` while the call is open, or when
    its result is not known."""
    call_id: str | None = None
    cost_nano_usd: int | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the call was not made, because it would have gone on with a loop."""
        return self.result_digest == REFUSED

    def is_like(self, other: "ToolTrace") -> bool:
        """Whether both are the same call, whatever its results."""
        return (
            self.arguments_digest == other.arguments_digest and self.tool == other.tool
        )

    def brings_the_same(self, other: "ToolTrace") -> bool:
        """Whether both are the same call with the same result, which is known."""
        result = self.result_digest
        return (
            result is not None and result == other.result_digest and self.is_like(other)
        )

    def fails_the_same(self, other: "ToolTrace") -> bool:
        """Whether one tool failed with the same error, whatever it was asked."""
        result = self.result_digest
        return (
            result is not None
            and result.startswith(FAILED)
            and result == other.result_digest
            and self.tool == other.tool
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFinding:
    """A repetition, with what a person needs to judge it."""

    kind: LoopKind
    tool: str
    """`server/tool` of the last call."""
    arguments_digest: str
    """Of the last call."""
    count: int
    """How many calls of the repetition are in view; of a cycle, how many calls in
    all of its rounds."""
    cost_nano_usd: int
    """What those calls cost, as far as it is known."""
    tools: tuple[str, ...] = ()
    """The tools of one round of a cycle, in order; `tool` is the last. Else empty."""

    @property
    def repeats(self) -> int:
        """How often the call, or the round of calls, was made."""
        return self.count // max(1, len(self.tools))

    def continues(self, earlier: "LoopFinding | None") -> bool:
        """Whether an earlier finding was of the same run of repetitions.

        The earlier one ended one call before. Two runs of equal rounds that overlap
        by a round are one.
        """
        if earlier is None or self.kind is not earlier.kind:
            return False
        match self.kind:
            case LoopKind.CYCLE:
                return len(self.tools) == len(earlier.tools)
            case LoopKind.REPEATED_ERROR:
                return self.tool == earlier.tool
            case LoopKind.IDENTICAL | LoopKind.POLLING:
                return (self.tool, self.arguments_digest) == (
                    earlier.tool,
                    earlier.arguments_digest,
                )


def remember(traces: Sequence[ToolTrace], trace: ToolTrace) -> tuple[ToolTrace, ...]:
    """Returns the traces with a completed one more, oldest first.

    The same `call_id` replaces its earlier trace: a framework that runs a tool
    again after an interrupt repeats itself, the agent does not. What was refused
    before it counts no longer.
    """
    kept = _completed(traces)
    if trace.call_id is not None:
        kept = [known for known in kept if known.call_id != trace.call_id]
    return (*kept, trace)[-TRACES_MAX:]


def remember_refusal(
    traces: Sequence[ToolTrace], trace: ToolTrace, *, hold_id: str
) -> tuple[ToolTrace, ...]:
    """Returns the traces with a refused call more, oldest first.

    The same call counts once, however often it asks.
    """
    refused = refused_trace(trace, hold_id=hold_id)
    kept = tuple(
        known
        for known in traces
        if not known.is_refused or known.call_id != refused.call_id
    )
    return (*kept, refused)[-TRACES_MAX:]


def refused_trace(trace: ToolTrace, *, hold_id: str) -> ToolTrace:
    """Returns what is remembered of a call that is refused."""
    call_id = hold_id if trace.call_id is None else trace.call_id
    return replace(trace, result_digest=REFUSED, call_id=call_id)


def refusals_of(traces: Sequence[ToolTrace]) -> int:
    """Returns how often it was refused to go on with the loop that they end in."""
    return len(traces) - len(_completed(traces))


def find_loop(traces: Sequence[ToolTrace], rule: LoopRule) -> LoopFinding | None:
    """Looks for a loop that ends in the last completed trace.

    Args:
        traces: Tool calls of one session, oldest first.
        rule: The counts. Exempt tools are not among the traces.
    """
    recent = _completed(traces)[-rule.within :]
    if not recent:
        return None
    identical = _repeating(recent, ToolTrace.brings_the_same)
    if identical >= rule.repeats:
        return _finding(LoopKind.IDENTICAL, recent[-identical:])
    same_call = _repeating(recent, ToolTrace.is_like)
    # A round of one call is none: its results may alternate while it polls.
    last, longest = recent[-1], len(recent) // rule.cycle_repeats
    for period in range(max(2, same_call + 1), min(CYCLE_PERIOD_MAX, longest) + 1):
        # Of most periods no more is looked at: half of the time of all this.
        if recent[-1 - period].arguments_digest != last.arguments_digest:
            continue
        count = _repeating(recent, ToolTrace.brings_the_same, period=period)
        if count >= period * rule.cycle_repeats:
            return _finding(LoopKind.CYCLE, recent[-count:], period=period)
    count = _repeating(recent, ToolTrace.fails_the_same)
    if count >= rule.error_repeats:
        return _finding(LoopKind.REPEATED_ERROR, recent[-count:])
    if same_call >= rule.polling_repeats:
        return _finding(LoopKind.POLLING, recent[-same_call:])
    return None


def continues_loop(
    trace: ToolTrace, finding: LoopFinding, traces: Sequence[ToolTrace]
) -> bool:
    """Whether a call would go on with the loop that was found in the traces.

    Of a cycle that is any of its calls: an agent that leaves one out is not out of it.
    """
    if finding.kind is LoopKind.REPEATED_ERROR:
        return trace.tool == finding.tool
    round_of_calls = _completed(traces)[-max(1, len(finding.tools)) :]
    return any(trace.is_like(known) for known in round_of_calls)


def _completed(traces: Sequence[ToolTrace]) -> Sequence[ToolTrace]:
    """Returns the traces without the refusals at their end."""
    end = len(traces)
    while end and traces[end - 1].is_refused:
        end -= 1
    return traces[:end]


def _repeating(
    traces: Sequence[ToolTrace],
    is_same: Callable[[ToolTrace, ToolTrace], bool],
    *,
    period: int = 1,
) -> int:
    """Returns how many calls at the end repeat those of `period` calls before.

    The first round counts, too.
    """
    count = period
    while count < len(traces) and is_same(
        traces[-1 - count + period], traces[-1 - count]
    ):
        count += 1
    return count


def _finding(
    kind: LoopKind, run: Sequence[ToolTrace], *, period: int = 0
) -> LoopFinding:
    """Says what a run of calls is; the period is that of a cycle."""
    last = run[-1]
    return LoopFinding(
        kind=kind,
        tool=last.tool,
        arguments_digest=last.arguments_digest,
        count=len(run),
        cost_nano_usd=sum(trace.cost_nano_usd or 0 for trace in run),
        tools=tuple([trace.tool for trace in run[len(run) - period :]]),
    )
