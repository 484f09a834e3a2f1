"""Loops: recognises an agent that repeats itself without getting anywhere.

A detector is a pure function over the session's last tool calls, oldest first.
It looks at arguments *and* result: the same call with the same result is a
loop, the same call with a changing result is polling, which is often right and
needs a much higher count. Every finding says what repeated, how often, and
what that cost, so that a person can check the verdict.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "LoopAction",
    "LoopFinding",
    "LoopKind",
    "LoopRule",
    "ToolTrace",
    "find_loop",
]

TRACES_MAX = 64
"""Tool calls remembered per session: the largest `within`."""


class LoopAction(enum.StrEnum):
    """What to do about a loop."""

    WARN = "warn"
    """Tell people and go on."""
    BLOCK = "block"
    """Refuse the repeated call with a message that the model can read."""
    STOP = "stop"
    """End the session."""


class LoopKind(enum.StrEnum):
    """What repeats."""

    IDENTICAL = "identical"
    """The same tool, arguments and result in a row."""
    POLLING = "polling"
    """The same tool and arguments in a row, while the result changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRule:
    """When repetition counts as a loop.

    Raises:
        ValueError: If a count is out of range.
    """

    repeats: int = 3
    """Identical calls with identical results in a row that make a loop."""
    polling_repeats: int = 10
    """Identical calls in a row, whatever their results, that make a loop."""
    within: int = 20
    """How many of the session's last tool calls are looked at."""
    action: LoopAction = LoopAction.STOP
    ignore_arguments: tuple[str, ...] = ()
    """Names of arguments that change on every call and mean nothing."""
    exempt: tuple[str, ...] = ()
    """Globs over `server/tool` of tools that may repeat."""

    def __post_init__(self) -> None:
        if not 2 <= self.repeats <= self.within:
            raise ValueError(
                f"loop.repeats: {self.repeats!r} must be at least 2 and at most "
                f"loop.within ({self.within!r})."
            )
        if not self.repeats <= self.polling_repeats <= self.within:
            raise ValueError(
                f"loop.polling_repeats: {self.polling_repeats!r} must be at least "
                f"loop.repeats ({self.repeats!r}) and at most loop.within "
                f"({self.within!r})."
            )
        if self.within > TRACES_MAX:
            raise ValueError(
                f"loop.within: {self.within!r} is above {TRACES_MAX}, the number of "
                "tool calls that are remembered."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTrace:
    """What is remembered of one tool call: digests, never content."""

    tool: str
    """`server/tool`."""
    arguments_digest: str
    result_digest: str | None
    """`None` while the call is open, or when its result is not known."""
    call_id: str | None = None
    cost_nano_usd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFinding:
    """A repetition, with what a person needs to judge it."""

    kind: LoopKind
    tool: str
    """`server/tool` of the call that repeats."""
    arguments_digest: str
    count: int
    """How many calls of the repetition are in view."""
    cost_nano_usd: int
    """What those calls cost, as far as it is known."""

    def continues(self, earlier: "LoopFinding | None") -> bool:
        """Whether an earlier finding was of the same run of repetitions."""
        return earlier is not None and (
            (self.kind, self.tool, self.arguments_digest)
            == (earlier.kind, earlier.tool, earlier.arguments_digest)
        )


def remember(traces: Sequence[ToolTrace], trace: ToolTrace) -> tuple[ToolTrace, ...]:
    """Returns the traces with one more, oldest first.

    The same `call_id` replaces its earlier trace: a framework that runs a tool
    again after an interrupt repeats itself, the agent does not.
    """
    kept = tuple(
        known
        for known in traces
        if trace.call_id is None or known.call_id != trace.call_id
    )
    return (*kept, trace)[-TRACES_MAX:]


def find_loop(traces: Sequence[ToolTrace], rule: LoopRule) -> LoopFinding | None:
    """Looks for a loop that ends in the last trace.

    Args:
        traces: Completed tool calls of one session, oldest first.
        rule: The counts. Exempt tools are not among the traces.
    """
    if not traces:
        return None
    recent = traces[-rule.within :]
    last = recent[-1]
    same_call = _run(recent, last, results_matter=False)
    same_result = _run(recent, last, results_matter=True)
    if last.result_digest is not None and len(same_result) >= rule.repeats:
        return _finding(LoopKind.IDENTICAL, same_result)
    if len(same_call) >= rule.polling_repeats:
        return _finding(LoopKind.POLLING, same_call)
    return None


def _run(
    traces: Sequence[ToolTrace], last: ToolTrace, *, results_matter: bool
) -> list[ToolTrace]:
    """Returns the unbroken run of calls like the last one."""
    run: list[ToolTrace] = []
    for trace in reversed(traces):
        if trace.tool != last.tool or trace.arguments_digest != last.arguments_digest:
            break
        if results_matter and trace.result_digest != last.result_digest:
            break
        run.append(trace)
    return run


def _finding(kind: LoopKind, run: Sequence[ToolTrace]) -> LoopFinding:
    return LoopFinding(
        kind=kind,
        tool=run[0].tool,
        arguments_digest=run[0].arguments_digest,
        count=len(run),
        cost_nano_usd=sum(trace.cost_nano_usd or 0 for trace in run),
    )
