"""Session detail: what one session did, call by call, and what each part cost."""

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from guardrails.core.calls import CallStatus
from guardrails.core.reporting.flat_events import FlatEvent

__all__ = ["CallRun", "SessionDetail", "Tally", "session_detail"]


@dataclass(slots=True, kw_only=True)
class Tally:
    """Sums of calls."""

    calls: int = 0
    cost_nano_usd: int = 0
    """As far as it is known."""
    failed: int = 0
    """Calls that ended in an error, or were broken off."""
    estimated: int = 0
    unpriced: int = 0
    """Calls of unknown cost; they add nothing to the cost."""
    tokens: int = 0
    latency_ms: int = 0

    def add(self, event: FlatEvent) -> None:
        """Counts one call."""
        self.calls += 1
        self.cost_nano_usd += event.cost_nano_usd or 0
        self.failed += event.status != CallStatus.OK
        self.estimated += event.is_estimated
        self.unpriced += event.cost_nano_usd is None
        self.tokens += (event.input_tokens or 0) + (event.output_tokens or 0)
        self.latency_ms += event.latency_ms or 0

    @property
    def known_nano_usd(self) -> int | None:
        """The cost; `None` if no call of these has a known one."""
        return None if self.unpriced == self.calls else self.cost_nano_usd


@dataclass(slots=True, kw_only=True)
class CallRun:
    """Calls of the same model or tool by the same agent, one after the other."""

    name: str
    """The model, or `server/tool`."""
    kind: str
    agent_path: str
    """As a JSON array, parent first."""
    first_ms: int
    last_ms: int
    tally: Tally = field(default_factory=Tally)
    cumulative_nano_usd: int = 0
    """What the session had spent after the last of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDetail:
    """What a session did."""

    total: Tally
    runs: Sequence[CallRun]
    """The last ones, oldest first."""
    runs_total: int
    agents: Sequence[tuple[tuple[str, ...], Tally]]
    """By agent path, each below its parent. Without what nested agents spent."""
    names: Sequence[tuple[str, Tally]]
    """By model and tool, most expensive first."""


def session_detail(
    pages: Iterable[Sequence[FlatEvent]], *, limit: int
) -> SessionDetail:
    """Sums up the events of one session.

    Args:
        pages: Its events, oldest first.
        limit: Runs to keep; 0 keeps all.
    """
    total = Tally()
    runs: deque[CallRun] = deque(maxlen=limit or None)
    runs_total = 0
    agents: dict[str, Tally] = {}
    names: dict[str, Tally] = {}
    for event in (event for page in pages for event in page):
        name = event.called
        last = runs[-1] if runs else None
        if last is None or (last.name, last.agent_path) != (name, event.agent_path):
            last = CallRun(
                name=name,
                kind=event.kind,
                agent_path=event.agent_path,
                first_ms=event.time_ms,
                last_ms=event.time_ms,
            )
            runs.append(last)
            runs_total += 1
        for tally in (
            total,
            last.tally,
            agents.setdefault(event.agent_path, Tally()),
            names.setdefault(name, Tally()),
        ):
            tally.add(event)
        last.last_ms = event.time_ms
        last.cumulative_nano_usd = total.cost_nano_usd
    return SessionDetail(
        total=total,
        runs=list(runs),
        runs_total=runs_total,
        agents=_tree(agents),
        names=sorted(names.items(), key=_dearest),
    )


def _tree(agents: Mapping[str, Tally]) -> list[tuple[tuple[str, ...], Tally]]:
    """Sorts agents below their parents, those that made no call included."""
    found = {_path(text): tally for text, tally in agents.items()}
    parents = {path[:depth] for path in found for depth in range(1, len(path))}
    return sorted(
        ({path: Tally() for path in parents} | found).items(),
        key=lambda branch: branch[0],
    )


def _path(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _dearest(named: tuple[str, Tally]) -> tuple[int, int, str]:
    name, tally = named
    return -tally.cost_nano_usd, -tally.calls, name
