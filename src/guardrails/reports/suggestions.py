"""Suggestions: limits per agent into which the sessions of the past fit. Pure.

A limit is what 99 of 100 sessions of an agent needed at most, half as much again and
rounded up to two digits. What used even more than that is counted: those sessions were
runaways, or the limit is too low for them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guardrails.core.events import Event
from guardrails.core.policy import Measure

__all__ = ["SESSIONS_MIN", "SuggestedLimit", "Suggestion", "suggested"]

SESSIONS_MIN = 20
"""Of fewer the largest says little about the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedLimit:
    """One limit of an agent's sessions, in the unit of the ledger."""

    measure: Measure
    limit: int
    median: int
    p99: int
    most: int
    beyond: int
    """Sessions that used more than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What one agent needs."""

    agent: str | None
    sessions: int
    limits: tuple[SuggestedLimit, ...]
    """None while there are too few sessions."""


@dataclass(slots=True)
class _Session:
    agent: str | None
    cost_nano_usd: int = 0
    steps: int = 0


def suggested(events: Iterable[Event]) -> list[Suggestion]:
    """Suggests limits, for the agents with the most sessions first.

    Args:
        events: Calls, oldest first. Of a session that began before them only what is
            among them counts.
    """
    sessions: dict[str | None, _Session] = {}
    for event in events:
        who = event.attribution
        session = sessions.get(who.session_id)
        if session is None:
            # Agents that come later run inside the session's own, which called first.
            session = sessions[who.session_id] = _Session(who.agent)
        session.cost_nano_usd += event.charge.cost_nano_usd or 0
        session.steps += 1
    agents: dict[str | None, list[_Session]] = {}
    for session in sessions.values():
        agents.setdefault(session.agent, []).append(session)
    found = [_suggestion(agent, each) for agent, each in agents.items()]
    return sorted(found, key=lambda one: (-one.sessions, one.agent or ""))


def _suggestion(agent: str | None, sessions: Sequence[_Session]) -> Suggestion:
    needs = {
        Measure.COST: sorted(session.cost_nano_usd for session in sessions),
        Measure.STEPS: sorted(session.steps for session in sessions),
    }
    limits = [_limit(measure, used) for measure, used in needs.items() if used[-1]]
    is_known = len(sessions) >= SESSIONS_MIN
    return Suggestion(
        agent=agent, sessions=len(sessions), limits=tuple(limits) if is_known else ()
    )


def _limit(measure: Measure, used: Sequence[int]) -> SuggestedLimit:
    p99 = _rank(used, 99)
    limit = _rounded_up(p99 + p99 // 2)
    return SuggestedLimit(
        measure=measure,
        limit=limit,
        median=_rank(used, 50),
        p99=p99,
        most=used[-1],
        beyond=sum(one > limit for one in used),
    )


def _rank(used: Sequence[int], percent: int) -> int:
    """Returns the value that so many percent do not exceed: one that occurred."""
    return used[-(-len(used) * percent // 100) - 1]


def _rounded_up(number: int) -> int:
    """Rounds up to two digits; 0 becomes 1, because a limit of 0 lets nothing pass."""
    number = max(number, 1)
    unit = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit
