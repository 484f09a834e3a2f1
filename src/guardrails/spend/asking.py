"""Asking: what people ask of a report, checked."""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import cast

from guardrails.config.problems import shown
from guardrails.core.attribution import NAME_BYTES_MAX
from guardrails.core.reporting.groups import SPEND_DIMENSIONS, UNATTRIBUTED, Every
from guardrails.core.reporting.rollups import LAYER
from guardrails.errors import ConfigurationError
from guardrails.spend.spans import seconds_of

__all__ = [
    "HOURS_MAX",
    "check_layers_alone",
    "check_one_of",
    "checked_by",
    "checked_every",
    "checked_hours",
    "checked_limit",
    "checked_where",
]

HOURS_MAX = 24 * 366
"""A leap year."""

BY_MAX = 4
"""Dimensions of one report: more are columns that no screen has."""

PATTERNS_MAX = 100
"""Patterns of one dimension. A longer list is a job for the export."""

SHORT_NAMES = {
    "session": "session_id",
    "customer": "customer_id",
    "user": "user_id",
    "project": "project_id",
}

_EVERY: Mapping[str, Every] = {"hour": "hour", "day": "day", "month": "month"}


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
            f"{key}: {shown(given)} names no dimension. Use one of {_known()}, or "
            "several."
        )
    if tuple(cast("Sequence[object]", parts)) == (LAYER,):
        return (LAYER,)
    names = tuple(_dimension(name, key=key) for name in cast("Sequence[object]", parts))
    if len(set(names)) != len(names) or len(names) > BY_MAX:
        raise ConfigurationError(
            f"{key}: {shown(given)} must name each dimension once, and at most "
            f"{BY_MAX}."
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
            f"{key}: {shown(given)} is no mapping of dimensions to patterns. Pass one, "
            'as in where={"agent": "onboarding_*"}.'
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
    check_one_of(given, tuple(_EVERY), key=key)
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
            f'{key}: {shown(since)} is no time. Pass a text such as "7d", or a '
            "timedelta."
        )
    hours = math.ceil(seconds / 3_600)
    if not 1 <= hours <= HOURS_MAX:
        raise ConfigurationError(
            f"{key}: {shown(since)} is not between 1 hour and {HOURS_MAX // 24} days."
        )
    return hours


def checked_limit(given: object) -> int:
    """Returns how many rows to show; 0 is all.

    Raises:
        ConfigurationError: If it is no whole number, or less than 0.
    """
    if type(given) is not int or given < 0:
        raise ConfigurationError(
            f"limit: {shown(given)} is no number of rows. Pass a whole number; 0 is "
            "all."
        )
    return given


def _dimension(given: object, *, key: str) -> str:
    name = given.strip() if isinstance(given, str) else ""
    dimension = SHORT_NAMES.get(name, name)
    if dimension == LAYER:
        raise _layers_alone(key)
    if dimension not in SPEND_DIMENSIONS:
        raise ConfigurationError(
            f"{key}: {shown(given)} is not a dimension. Use one of {_known()}."
        )
    return dimension


def _pattern(given: object, *, key: str) -> str:
    if given is None:
        return UNATTRIBUTED
    if not isinstance(given, str) or len(given) > NAME_BYTES_MAX:
        raise ConfigurationError(
            f"{key}: {shown(given)} is no pattern. Pass a name, with * and ? for "
            f"what may differ, of at most {NAME_BYTES_MAX} characters."
        )
    return given


def check_one_of(given: object, known: Sequence[str], *, key: str) -> None:
    """Checks a word of a closed set.

    Raises:
        ConfigurationError: If it is none of them.
    """
    if given not in known:
        raise ConfigurationError(
            f"{key}: {shown(given)} is not known. Use one of {', '.join(known)}."
        )


def check_layers_alone(
    by: Sequence[str], where: Mapping[str, object], every: object
) -> None:
    """Checks that a report by layer is asked for nothing else.

    Raises:
        ConfigurationError: If it is.
    """
    if LAYER in by and (len(by) > 1 or where or every):
        raise _layers_alone("by")


def _layers_alone(key: str) -> ConfigurationError:
    return ConfigurationError(
        f"{key}: {LAYER!r} goes with no other name, no filter and no steps: layers are "
        "summed up over whole projects. Ask by layer alone, or export the events, "
        "which have tokens and costs by layer."
    )


def _known() -> str:
    return ", ".join((*SPEND_DIMENSIONS, LAYER))
