"""Spending: what a report is asked for, checked, and read from a history."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import cast

from guardrails.core.accounts import Account
from guardrails.core.attribution import NAME_BYTES_MAX
from guardrails.core.groups import SPEND_DIMENSIONS, UNATTRIBUTED, Every
from guardrails.core.limits import effective_limits
from guardrails.core.lines import session_line
from guardrails.core.policy import Policy
from guardrails.core.rollups import Spend
from guardrails.errors import ConfigurationError
from guardrails.ports import History
from guardrails.reports import (
    SESSION_ORDERS,
    SESSION_STATES,
    CostReport,
    Series,
    SessionList,
    Span,
    UnitReport,
    report_by,
    report_sessions,
    report_units,
    series_of,
    sessions,
    unpriced_names,
    with_cause,
)
from guardrails.spans import seconds_of

__all__ = [
    "Asked",
    "checked_by",
    "checked_every",
    "checked_hours",
    "checked_where",
    "read_costs",
    "read_series",
    "read_sessions",
    "read_units",
]

HOURS_MAX = 24 * 366
"""A leap year."""

BY_MAX = 4
"""Dimensions of one report: more are columns that no screen has."""

PATTERNS_MAX = 100
"""Patterns of one dimension. A longer list is a job for the export."""

CAUSE_EVENTS_MAX = 5_000
"""The last calls of an outlier that its cause is looked for in: 0.1 s to read."""

SHORT_NAMES = {
    "session": "session_id",
    "customer": "customer_id",
    "user": "user_id",
    "project": "project_id",
}

_EVERY: Mapping[str, Every] = {"hour": "hour", "day": "day", "month": "month"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report is asked for."""

    project_id: str
    by: tuple[str, ...] = ()
    span: Span
    limit: int = 0
    """Rows to show; 0 shows all."""
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Patterns by dimension: in each, one has to match."""
    every: Every | None = None

    @property
    def joined(self) -> str:
        """The dimensions, as reports have them."""
        return ",".join(self.by)

    def spend(
        self, history: History, *by: str, span: Span | None = None
    ) -> Sequence[Spend]:
        """Reads what was spent, without steps."""
        span = span or self.span
        return history.spend(
            project_id=self.project_id,
            by=by,
            since_ms=span.since_ms,
            until_ms=span.until_ms,
            where=self.where,
        )

    def steps(self, history: History, *by: str) -> Sequence[Spend]:
        """Reads what was spent, step by step."""
        return history.spend(
            project_id=self.project_id,
            by=by,
            since_ms=self.span.since_ms,
            until_ms=self.span.until_ms,
            where=self.where,
            every=self.every,
        )

    def unpriced(self, history: History, total: Spend) -> list[str]:
        """Names the models and tools that had no price."""
        if not total.unpriced_calls:
            return []
        return unpriced_names(self.spend(history, "model"), self.spend(history, "tool"))


# --- Reading ----------------------------------------------------------------


def read_costs(history: History, asked: Asked, *, compares: bool = False) -> CostReport:
    """Reads where the money went.

    Args:
        history: What a store knows.
        asked: By at least one dimension.
        compares: Whether the span before is read as well.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    spends = asked.spend(history, *asked.by)
    if asked.by == ("session_id",) and not compares:
        report = report_sessions(
            spends,
            _accounts(history, asked, spends),
            project_id=asked.project_id,
            span=asked.span,
            limit=asked.limit,
        )
    else:
        before = asked.span.before
        report = report_by(
            spends,
            project_id=asked.project_id,
            by=asked.joined,
            span=asked.span,
            limit=asked.limit,
            before=asked.spend(history, *asked.by, span=before) if compares else None,
        )
    outliers = [
        with_cause(
            outlier,
            history.events(
                project_id=asked.project_id,
                session_id=outlier.session_id,
                limit=CAUSE_EVENTS_MAX,
            ),
        )
        for outlier in report.outliers
    ]
    return replace(
        report,
        outliers=outliers,
        unpriced=asked.unpriced(history, report.total),
        where=asked.where,
    )


def read_series(history: History, asked: Asked) -> Series:
    """Reads what was spent step by step.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    assert asked.every is not None
    series = series_of(
        asked.steps(history, *asked.by),
        project_id=asked.project_id,
        by=asked.joined or None,
        every=asked.every,
        span=asked.span,
        limit=asked.limit,
    )
    unpriced = asked.unpriced(history, series.total)
    return replace(series, unpriced=unpriced, where=asked.where)


def read_units(history: History, asked: Asked) -> UnitReport:
    """Reads what a session costs, by at least one dimension.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    report = report_units(
        asked.steps(history, *asked.by, "session_id"),
        project_id=asked.project_id,
        by=asked.joined,
        every=asked.every,
        span=asked.span,
        limit=asked.limit,
    )
    unpriced = asked.unpriced(history, report.total.spend)
    return replace(report, unpriced=unpriced, where=asked.where)


def read_sessions(
    history: History,
    asked: Asked,
    policy: Policy,
    *,
    sort: str = "cost",
    state: str | None = None,
) -> SessionList:
    """Reads the sessions that made a call.

    Args:
        history: What a store knows.
        asked: Its dimensions have no meaning here.
        policy: Says what each may spend, if nobody raised that.
        sort: One of `SESSION_ORDERS`.
        state: One of `SESSION_STATES`; `None` reads all.

    Raises:
        ConfigurationError: If there is no such order or state.
        StoreUnavailable: If the store cannot be read.
    """
    _check_one_of(sort, SESSION_ORDERS, key="sort")
    if state is not None:
        _check_one_of(state, SESSION_STATES, key="status")

    def limit_of(account: Account) -> int | None:
        if account.session is None:
            return None
        who = account.session.attribution
        line = session_line(policy.session_budget(who.agent), who)
        return effective_limits(line.limits, account.raised).cost_nano_usd

    spends = asked.spend(history, "session_id")
    found = sessions(
        spends,
        _accounts(history, asked, spends),
        project_id=asked.project_id,
        span=asked.span,
        limit=asked.limit,
        limit_of=limit_of,
        sort=sort,
        state=state,
    )
    return replace(found, where=asked.where)


def _accounts(
    history: History, asked: Asked, spends: Sequence[Spend]
) -> Sequence[Account]:
    names = [spend.name for spend in spends if spend.name]
    return history.session_accounts(project_id=asked.project_id, session_ids=names)


# --- Checking ---------------------------------------------------------------


def checked_by(given: object, *, key: str = "by") -> tuple[str, ...]:
    """Returns the dimensions of a report.

    Args:
        given: Names, or one text with commas between them.
        key: What a person calls it.

    Raises:
        ConfigurationError: If one is no dimension, comes twice, or there are none or
            more than four.
    """
    parts: object = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, Sequence) or not parts:
        raise ConfigurationError(
            f"{key}: {given!r} names no dimension. Use one of {_known()}, or several."
        )
    names = tuple(_dimension(name, key=key) for name in cast("Sequence[object]", parts))
    if len(set(names)) != len(names) or len(names) > BY_MAX:
        raise ConfigurationError(
            f"{key}: {given!r} must name each dimension once, and at most {BY_MAX}."
        )
    return names


def checked_where(
    given: Mapping[str, object] | None, *, key: str = "where"
) -> dict[str, tuple[str, ...]]:
    """Returns the filter of a report: patterns by dimension.

    Args:
        given: A pattern or several by dimension; `None` and an empty text stand for
            what has no name.
        key: What a person calls it.

    Raises:
        ConfigurationError: If there is no such dimension, or a pattern is no text.
    """
    if not isinstance(cast("object", given), Mapping | None):
        raise ConfigurationError(
            f"{key}: {given!r} is no mapping of dimensions to patterns. Pass one, as "
            'in where={"agent": "onboarding_*"}.'
        )
    found: dict[str, tuple[str, ...]] = {}
    for name, patterns in (given or {}).items():
        dimension = _dimension(name, key=key)
        several = cast(
            "Sequence[object]",
            patterns if isinstance(patterns, list | tuple) else (patterns,),
        )
        if not 0 < len(several) <= PATTERNS_MAX:
            raise ConfigurationError(
                f"{key}: {name} has {len(several)} patterns. Give at least 1 and at "
                f"most {PATTERNS_MAX}."
            )
        checked = tuple(_pattern(one, key=f"{key}: {name}") for one in several)
        found[dimension] = (*found.get(dimension, ()), *checked)
    return found


def checked_every(given: str | None, *, key: str = "every") -> Every | None:
    """Returns how long the steps of a series are.

    Raises:
        ConfigurationError: If there is no such step.
    """
    if given is None:
        return None
    _check_one_of(given, tuple(_EVERY), key=key)
    return _EVERY[given]


def checked_hours(since: object, *, key: str = "since") -> int:
    """Returns how many hours to look back; a part of one counts as a whole.

    Args:
        since: A text such as `7d`, or a timedelta.
        key: What a person calls it.

    Raises:
        ConfigurationError: If it is none, or not between an hour and a year.
    """
    if isinstance(since, timedelta):
        seconds = since.total_seconds()
    elif isinstance(since, str):
        seconds = seconds_of(since, option=key)
    else:
        raise ConfigurationError(
            f'{key}: {since!r} is no time. Pass a text such as "7d", or a timedelta.'
        )
    hours = math.ceil(seconds / 3_600)
    if not 1 <= hours <= HOURS_MAX:
        raise ConfigurationError(
            f"{key}: {since!r} is not between 1 hour and {HOURS_MAX // 24} days."
        )
    return hours


def _dimension(given: object, *, key: str) -> str:
    name = given.strip() if isinstance(given, str) else ""
    dimension = SHORT_NAMES.get(name, name)
    if dimension not in SPEND_DIMENSIONS:
        raise ConfigurationError(
            f"{key}: {given!r} is not a dimension. Use one of {_known()}."
        )
    return dimension


def _pattern(given: object, *, key: str) -> str:
    if given is None:
        return UNATTRIBUTED
    if not isinstance(given, str) or len(given) > NAME_BYTES_MAX:
        raise ConfigurationError(
            f"{key}: {repr(given)[:40]} is no pattern. Pass a name, with * and ? for "
            f"what may differ, of at most {NAME_BYTES_MAX} characters."
        )
    return given


def _check_one_of(given: object, known: Sequence[str], *, key: str) -> None:
    if given not in known:
        raise ConfigurationError(
            f"{key}: {given!r} is not known. Use one of {', '.join(known)}."
        )


def _known() -> str:
    return ", ".join(SPEND_DIMENSIONS)
