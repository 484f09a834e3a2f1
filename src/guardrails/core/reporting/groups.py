"""Groups: what was spent by any dimensions, with any filter, from rollup cells. Pure.

A report of one dimension reads the cells of that. All others read mixes, which hold
every name: those that the filter does not take are left out, and those that are alike
in what the report is by are added up. Dimensions of calls divide only the calls that
have them: a report by tool is of tool calls, one by model and tool is of all calls.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Literal, Self, TypeVar

from guardrails.core.calls import CallKind
from guardrails.core.reporting.rollups import (
    HOUR_MS,
    LAYER,
    ROLLUP_DIMENSIONS,
    SUM_NAMES,
    Mix,
    Spend,
)

__all__ = [
    "OF_KINDS",
    "SPEND_DIMENSIONS",
    "UNATTRIBUTED",
    "Every",
    "Names",
    "SpendQuery",
    "grouped",
    "in_order",
    "step_start",
]

SPEND_DIMENSIONS = ("project_id", *Mix._fields)
"""What spend can be grouped by and filtered on. `tool` is `server/tool`."""

UNATTRIBUTED = ""
"""The pattern of what has no name. No name is empty, and no other takes it."""

Every = Literal["hour", "day", "month"]
"""The steps of a series, in UTC."""

Names = tuple[str | None, ...]
"""One name per dimension."""

ADDED_AT_ONCE = 256
"""Cells that are added up together, which is faster than one by one: 200 kB."""

N = TypeVar("N", str, bytes)
"""The name of a cell, as its store keeps it."""

NAMES_MAX = 16_384
"""Names that are remembered with whether a filter takes them."""

OF_KINDS: Mapping[str, CallKind] = {
    "provider": CallKind.MODEL,
    "model": CallKind.MODEL,
    "server": CallKind.TOOL,
    "tool": CallKind.TOOL,
}
"""The calls that have the dimensions of calls."""


_PLAIN = frozenset(Mix._fields) - {"tool"}
"""Dimensions whose names stand in a mix as they are."""


@dataclass(frozen=True, kw_only=True)  # No slots: what follows from it is kept.
class SpendQuery:
    """What a report asks for.

    Raises:
        ValueError: If there is no such dimension, or there are layers with anything
            else.
    """

    project_id: str
    by: tuple[str, ...]
    """Of `SPEND_DIMENSIONS`; none asks for the total. Or `layer` alone."""
    since_ms: int
    """The hour that contains this instant is the first."""
    until_ms: int
    """The hour that contains this instant is the last."""
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Patterns of `fnmatch` by dimension: one of them has to match in each."""
    every: Every | None = None
    """The steps of a series."""

    def __post_init__(self) -> None:
        if LAYER in self.by:
            if len(self.by) > 1 or self.where or self.every:
                raise ValueError("Layers are summed up over whole projects only.")
            return
        for dimension in (*self.by, *dict(self.where)):
            if dimension not in SPEND_DIMENSIONS:
                known = ", ".join(SPEND_DIMENSIONS)
                raise ValueError(
                    f"{dimension!r} is not a dimension. Use one of {known}."
                )

    @classmethod
    def of(
        cls,
        *,
        project_id: str,
        by: str | Sequence[str],
        since_ms: int,
        until_ms: int,
        where: Mapping[str, Sequence[str]] | None = None,
        every: Every | None = None,
    ) -> Self:
        """Builds a query from what `guardrails.ports.History.spend` is given."""
        return cls(
            project_id=project_id,
            by=(by,) if isinstance(by, str) else tuple(by),
            since_ms=since_ms,
            until_ms=max(since_ms, until_ms),
            where=tuple((key, tuple(globs)) for key, globs in (where or {}).items()),
            every=every,
        )

    @property
    def hours(self) -> range:
        """The hours that it covers, counted since 1970."""
        return range(self.since_ms // HOUR_MS, self.until_ms // HOUR_MS + 1)

    @property
    def dimension(self) -> str | None:
        """The dimension whose own cells answer it; `None` if mixes do."""
        if self.where or len(self.by) != 1:
            return None
        return self.by[0] if self.by[0] in (*ROLLUP_DIMENSIONS, LAYER) else None

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of a mix that make a difference, in their order."""
        asked = {*self.by, *dict(self.where)}
        if "tool" in asked:
            asked.add("server")
        if self._kinds:
            asked.add("kind")
        return tuple(field for field in Mix._fields if field in asked)

    @cached_property
    def _kinds(self) -> frozenset[str]:
        return frozenset(OF_KINDS[by] for by in self.by if by in OF_KINDS)

    def names_of(self, mix: Mix) -> Names | None:
        """Returns the names of the group of a mix; `None` if it is left out."""
        if self._kinds and mix.kind not in self._kinds:
            return None
        for dimension, patterns in self.where:
            if not _is_taken(self._name(mix, dimension), patterns):
                return None
        return self._group(mix)

    @cached_property
    def _group(self) -> Callable[[Mix], Names]:
        """Reads the names of the dimensions, as fast as they allow."""
        places = [Mix._fields.index(by) for by in self.by if by in _PLAIN]
        if len(places) == len(self.by) > 1:
            return itemgetter(*places)
        return lambda mix: tuple([self._name(mix, by) for by in self.by])

    def start_of(self, hour: int) -> int | None:
        """Returns the hour with which the step of an hour begins, in a series."""
        return None if self.every is None else step_start(hour, self.every)

    def _name(self, mix: Mix, dimension: str) -> str | None:
        if dimension == "project_id":
            return self.project_id
        if dimension == "tool" and mix.server and mix.tool:
            return f"{mix.server}/{mix.tool}"
        return getattr(mix, dimension)


def step_start(hour: int, every: Every) -> int:
    """Returns the first hour of the step that an hour is in."""
    match every:
        case "hour":
            return hour
        case "day":
            return hour - hour % 24
        case "month":
            then = datetime.fromtimestamp(hour * 3_600, tz=UTC)
            return int(then.replace(day=1, hour=0).timestamp()) // 3_600


def grouped(
    query: SpendQuery,
    cells: Iterable[tuple[int, N, Sequence[int]]],
    names_of: Callable[[N], Names | None],
) -> list[Spend]:
    """Adds up cells that are alike.

    Args:
        query: What is asked for.
        cells: The hour of each, its name, and its sums in the order of `SUM_NAMES`.
        names_of: Reads the names of a group from the name of a cell; `None` leaves
            the cell out.

    Returns:
        One entry per group, as `in_order`.
    """
    found: dict[tuple[int | None, Names], list[Sequence[int]]] = {}
    read: dict[N, Names | None] = {}
    for hour, text, amounts in cells:
        names = read[text] if text in read else read.setdefault(text, names_of(text))
        if names is None:
            continue
        key = (query.start_of(hour), names)
        known = found.get(key)
        if known is None:
            found[key] = [amounts]
        else:
            known.append(amounts)
            if len(known) == ADDED_AT_ONCE:
                known[:] = [_sums(known)]
    return in_order(
        Spend(
            name=names[0] if names else None,
            more_names=names[1:],
            since_ms=None if hour is None else hour * HOUR_MS,
            **dict(zip(SUM_NAMES, _sums(alike), strict=True)),
        )
        for (hour, names), alike in found.items()
    )


def _sums(cells: Sequence[Sequence[int]]) -> list[int]:
    return list(map(sum, zip(*cells, strict=True)))


def in_order(spends: Iterable[Spend]) -> list[Spend]:
    """Sorts spends: of a series the oldest step first, then the most expensive."""
    return sorted(
        spends,
        key=lambda spend: (
            spend.since_ms or 0,
            -spend.total_nano_usd,
            -spend.steps,
            [name or "" for name in spend.names],
        ),
    )


@lru_cache(maxsize=NAMES_MAX)
def _is_taken(name: str | None, patterns: tuple[str, ...]) -> bool:
    if name is None:
        return UNATTRIBUTED in patterns
    return any(fnmatchcase(name, pattern) for pattern in patterns)
