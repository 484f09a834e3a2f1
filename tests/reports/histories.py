"""Random histories, played through a guard, and what a plain sum says of them."""

import random  # noqa: TID251 - seeded, so that every run plays alike
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from guardrails import Attribution, Guard, TokenUsage
from guardrails.core.money import usd
from guardrails.spend.rows import SpendRow
from guardrails.testing import FakeClock

HOUR_MS = 3_600_000
PROJECT = "default"

NAMES = (
    "acme", "ACME", "caf\u00e9", "x" * 256, "\u05d0\u05d1", "\u202egnp.exe", "a,b",
    "a|b", 'q"', "'=1", "=cmd()", "-1", "a/b", "%2F", "\U0001f600", "stra\u00dfe",
    "STRASSE", "(unattributed)", "null", "[x]", "*", "\\", " lead", "\u4e2d\u6587" * 20,
)  # fmt: skip
"""Names that a report, a key, a table or a spreadsheet may take for something else."""

STARTS = (
    datetime(2024, 12, 31, 20, tzinfo=UTC),
    datetime(2025, 3, 29, 22, 59, 59, tzinfo=UTC),
    datetime(2024, 2, 28, 23, tzinfo=UTC),
)
"""Shortly before a year, a clock of summer and a leap day."""

MODELS: Mapping[str | None, tuple[int, int]] = {"m/a": (1_000, 2_000), "odd": (37, 91)}
"""Nano-USD of a token of input and of output."""

UNPRICED = "m,unknown"
TOOLS = (("maps", "a/b"), ("maps/a", "b"), (None, "=tool"))
GAPS_MS = (0, 1, 60_000, HOUR_MS - 1, HOUR_MS, 30 * HOUR_MS)

CONFIGURATION: Mapping[str, object] = {
    "defaults": {"on_unpriced": "allow", "loop": {"action": "warn"}},
    "models": {
        name: {
            "input_per_1m_usd": usd(price * 10**6),
            "output_per_1m_usd": usd(output * 10**6),
        }
        for name, (price, output) in MODELS.items()
    },
}

OF_KINDS = {"provider": "model", "model": "model", "server": "tool", "tool": "tool"}

Sums = tuple[int, int, int, int, int]
"""Nano-USD of models and of tools, calls of both, and those without a price."""

Groups = dict[tuple[datetime | None, tuple[str | None, ...]], Sums]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A call that was made."""

    time_ms: int
    who: Attribution
    names: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    cost_nano_usd: int | None

    @property
    def kind(self) -> str:
        return "model" if "model" in self.names else "tool"

    def name(self, dimension: str) -> str | None:
        match dimension:
            case "kind":
                return self.kind
            case "root_agent":
                return self.who.agent_path[0] if self.who.agent_path else None
            case "tool" if self.names.get("server"):
                return f"{self.names['server']}/{self.names['tool']}"
            case "provider" | "model" | "server" | "tool":
                return self.names.get(dimension)
            case _:
                return self.who.value(dimension)


class History:
    """Plays the history of a seed, the same on each guard.

    Args:
        seed: Of the history.
        clock: The clock of the guard.
    """

    def __init__(self, seed: int, clock: FakeClock) -> None:
        self._draw = random.Random(seed)
        self._clock = clock
        self._names = [None, *self._draw.sample(NAMES, 4)]
        clock.set(round(self._draw.choice(STARTS).timestamp() * 1_000))

    def play(self, guard: Guard, *, sessions: int) -> list[Done]:
        """Makes calls, and returns them."""
        return [done for _ in range(sessions) for done in self._session(guard, depth=0)]

    def _session(self, guard: Guard, *, depth: int) -> Iterator[Done]:
        draw = self._draw
        self._clock.advance(seconds=draw.choice(GAPS_MS) / 1_000)
        with guard.session(
            draw.choice(self._names),
            customer_id=draw.choice(self._names),
            user_id=draw.choice(self._names),
            feature=draw.choice(self._names),
            prompt_version=draw.choice(self._names),
            session_id=f"s{draw.randrange(6)}{draw.choice(self._names) or ''}"[:200],
            tags={"t": draw.choice(NAMES)},
        ):
            for _ in range(draw.randrange(1, 4)):
                if depth < 2 and draw.random() < 0.2:
                    yield from self._session(guard, depth=depth + 1)
                else:
                    yield (
                        self._model(guard) if draw.random() < 0.6 else self._tool(guard)
                    )

    def _model(self, guard: Guard) -> Done:
        draw = self._draw
        model, provider = draw.choice([*MODELS, UNPRICED]), draw.choice([None, "p/q"])
        usage = TokenUsage(
            input_tokens=draw.choice([0, 1, 33_333]), output_tokens=draw.choice([0, 7])
        )
        assert model is not None
        with guard.call(model=model, provider=provider) as call:
            call.settle(usage)
        price, output = MODELS.get(model, (None, 0))
        cost = None
        if price is not None:
            cost = usage.input_tokens * price + usage.output_tokens * output
        return self._done(
            call.attribution, cost, {"model": model, "provider": provider}
        )

    def _tool(self, guard: Guard) -> Done:
        server, tool = self._draw.choice(TOOLS)
        cost = self._draw.choice([None, 0, 1, 5_000_000])
        with guard.call(
            tool=tool, server=server, cost_usd=None if cost is None else usd(cost)
        ) as call:
            call.settle()
        return self._done(call.attribution, cost, {"server": server, "tool": tool})

    def _done(
        self, who: Attribution, cost: int | None, names: Mapping[str, str | None]
    ) -> Done:
        now_ms = self._clock.now_ms()
        return Done(time_ms=now_ms, who=who, names=names, cost_nano_usd=cost)


def summed(
    calls: Sequence[Done], by: Sequence[str], *, every: str | None = None
) -> Groups:
    """Adds up calls, as reports have to."""
    kinds = {OF_KINDS[one] for one in by if one in OF_KINDS}
    found: dict[tuple[datetime | None, tuple[str | None, ...]], list[Done]]
    found = defaultdict(list)
    for call in calls:
        if not kinds or call.kind in kinds:
            names = tuple(call.name(one) for one in by)
            found[step_of(call.time_ms, every), names].append(call)
    return {key: _sums(group) for key, group in found.items()}


def told(rows: Sequence[SpendRow]) -> Groups:
    """Returns what a report says, in the same form, without steps of nothing."""
    found: Groups = {}
    for row in rows:
        if row.calls:
            assert (row.since, row.names) not in found
            found[row.since, row.names] = (
                round(row.model_usd * 10**9),
                round(row.tool_usd * 10**9),
                row.model_calls,
                row.tool_calls,
                row.unpriced_calls,
            )
    return found


def step_of(time_ms: int, every: str | None) -> datetime | None:
    """Returns when the step of an instant begins, by the calendar of UTC."""
    if every is None:
        return None
    time = datetime.fromtimestamp(time_ms // 1_000, tz=UTC)
    hour = time.replace(minute=0, second=0)
    if every == "hour":
        return hour
    return hour.replace(hour=0) if every == "day" else hour.replace(hour=0, day=1)


def steps_of(since_ms: int, until_ms: int, every: str) -> list[datetime | None]:
    """Returns all steps between two instants, each once, oldest first."""
    hours = range(since_ms // HOUR_MS, until_ms // HOUR_MS + 1)
    return list(dict.fromkeys(step_of(hour * HOUR_MS, every) for hour in hours))


def forgotten(call: Done, customer_id: str) -> Done:
    """Returns what is left of a call of a customer that is forgotten."""
    if call.who.customer_id != customer_id:
        return call
    nobody = replace(call.who, customer_id=None, user_id=None, session_id=None)
    return replace(call, who=nobody)


def _sums(calls: Sequence[Done]) -> Sums:
    def cost(kind: str) -> int:
        return sum(call.cost_nano_usd or 0 for call in calls if call.kind == kind)

    models = sum(call.kind == "model" for call in calls)
    unpriced = sum(call.cost_nano_usd is None for call in calls)
    return cost("model"), cost("tool"), models, len(calls) - models, unpriced
