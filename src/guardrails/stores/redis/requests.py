"""Requests: ledger operations as the arguments of a script. Pure."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

from guardrails.core.accounts import Charging, Line, Stop
from guardrails.core.calls import CallKind
from guardrails.core.events import Event
from guardrails.core.layers import LAYERS
from guardrails.core.limits import effective_limits
from guardrails.core.loops import ToolTrace, refused_trace
from guardrails.core.operations import Reserve, Settle
from guardrails.core.policy import Limits
from guardrails.core.rollups import HOUR_MS, LAYER, amounts_of, cells_of
from guardrails.stores import rows
from guardrails.stores.alert_texts import who_text
from guardrails.stores.redis import keys
from guardrails.stores.redis.layouts import (
    DERIVED,
    LAYER_SUMS,
    SEPARATOR,
    SLOTS,
    SUMS,
    raised_from,
)
from guardrails.stores.redis.outbox import telling_text
from guardrails.stores.redis.wire import Argument, Fragment

__all__ = ["call_arguments", "limits_arguments", "stop_text"]

DIGEST_BYTES = 6
"""Tells two contents of one id apart: 2^48 of them."""

CELLS_MAX = 4_096
"""Sets of rollup cells whose names are kept written out."""

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: making one takes as long as what it does."""

_NO_SETTLE: tuple[Argument, ...] = ("",) * 9
_NO_RESERVE: tuple[Argument, ...] = ("",) * 8


def call_arguments(
    settle: Settle | None,
    reserve: Reserve | None,
    *,
    raised: Mapping[str, str],
    version: int,
    events_max: int,
) -> tuple[Fragment, Fragment]:
    """Returns the keys and the arguments of `call.lua`.

    Args:
        settle: The call that has ended, if any.
        reserve: The call that begins, if any; both are charged to the same
            accounts.
        raised: What is known of raised limits, by account.
        version: The highest version of the project that was seen.
        events_max: How many events the stream keeps.
    """
    op = reserve or settle
    assert op is not None
    charging = op.charging
    known = tuple([raised.get(account, "") for account in charging.accounts])
    static = _static(charging, known)
    period = op.now_ms // keys.FINISHED_PERIOD_MS
    cell_keys, cell_names = _NO_CELLS
    if settle is not None:
        project_id = settle.event.attribution.project_id
        hour = settle.event.time_ms // HOUR_MS
        cell_keys, cell_names = _cells(project_id, hour, _written(settle.event))
    sessions = static.sessions
    active: list[Argument] = [events_max, sessions]
    for one in (settle, reserve):
        active += (0,) * sessions if one is None else one.active_ms[:sessions]
    names = Fragment.joined(
        (_shared_keys(static.prefix, period), static.keys, cell_keys)
    )
    arguments = Fragment.joined(
        (
            Fragment.of(
                (
                    version,
                    len(charging.lines),
                    *(_NO_SETTLE if settle is None else _settled(settle, static)),
                    *(_NO_RESERVE if reserve is None else _reserved(reserve, static)),
                )
            ),
            static.rules,
            Fragment.of(active),
            cell_names,
            static.lines,
            static.stops,
        )
    )
    return names, arguments


def _written(event: Event) -> tuple[tuple[str, str | None], ...]:
    """Returns the cells that are written; the history derives the others.

    Every call has a cell by agent, so they sum up to the project; what is missing
    there in another dimension has no name in it. A session has few mixes in an hour.
    """
    found = [
        (dimension, name)
        for dimension, name in cells_of(event)
        if dimension not in DERIVED and (name is not None or dimension in _COMPLETE)
    ]
    if event.layers:
        found.append((LAYER, None))  # The last one: see `_sums`.
    return tuple(found)


_COMPLETE = ("agent", "model", "tool")


class _Static:
    """What the calls of one charging have in common."""

    def __init__(self, charging: Charging, raised: tuple[str, ...]) -> None:
        first = charging.accounts[0]
        self.prefix = keys.prefix_of(first)
        accounts = [keys.account_of(account) for account in charging.accounts]
        self.keys = Fragment.of([keys.traces_of(first), *accounts])
        self.text = "\n".join(accounts)
        # Sessions come first in a charging.
        self.sessions = sum(line.is_session for line in charging.lines)
        rule = charging.loop
        loop: tuple[Argument, ...] = ("",) * 7
        if rule is not None:
            loop = (
                rule.repeats,
                rule.cycle_repeats,
                rule.error_repeats,
                rule.polling_repeats,
                rule.within,
                rule.action.value,
                rule.refusals,
            )
        self.rules = Fragment.of(
            [
                f"{charging.is_enforced:d}{telling_text(charging)}",
                *loop,
                _digest(self.text),
                self.text,
            ]
        )
        lines: list[Argument] = []
        for line, text in zip(charging.lines, raised, strict=True):
            lines += _line_arguments(line, charging, text)
        self.lines = Fragment.of(lines)
        self.stops = Fragment.of([keys.field_of(key) for key in charging.stop_keys])


@lru_cache(maxsize=64)
def _shared_keys(prefix: str, period: int) -> Fragment:
    """Returns the keys that all calls of a project name."""
    return Fragment.of(
        [
            *keys.holding(prefix),
            *keys.finished(prefix, period * keys.FINISHED_PERIOD_MS),
            keys.events(prefix),
            keys.stops(prefix),
        ]
    )


@lru_cache(maxsize=CELLS_MAX)
def _cells(
    project_id: str, hour: int, cells: tuple[tuple[str, str | None], ...]
) -> tuple[Fragment, Fragment]:
    """Returns the keys of the rollups that a call adds to, and its names there."""
    prefix = keys.project_prefix(project_id)
    return (
        Fragment.of([keys.rollup(prefix, hour, dimension) for dimension, _ in cells]),
        Fragment.of([len(cells), *[name or "" for _, name in cells]]),
    )


_NO_CELLS = (Fragment(0, b""), Fragment.of([0]))

_statics: dict[int, tuple[Charging, tuple[str, ...], _Static]] = {}
"""By the identity of a charging: comparing one costs more than writing it out."""

STATICS_MAX = 4096


def _static(charging: Charging, raised: tuple[str, ...]) -> _Static:
    known = _statics.get(id(charging))
    if known is not None and known[0] is charging and known[1] == raised:
        return known[2]
    if len(_statics) >= STATICS_MAX:
        _statics.clear()
    static = _Static(charging, raised)
    _statics[id(charging)] = (charging, raised, static)
    return static


def _line_arguments(line: Line, charging: Charging, raised: str) -> list[Argument]:
    limits = effective_limits(line.limits, raised_from(raised))
    who = ""
    if line.is_session:
        who = who_text(line.attribution or charging.attribution)
    arguments: list[Argument] = [
        int(line.is_binding),
        line.scope,
        *limits_arguments(limits),
        _number(line.expires_at_ms),
        who,
        raised,
        len(line.thresholds),
    ]
    for point in line.thresholds:
        value, limit = point.value, limits.of(point.measure)
        if raised and point.ratio is not None and limit is not None:
            value = math.ceil(limit * point.ratio)
        arguments += (SLOTS[point.measure], value, point.label)
    return arguments


def _settled(op: Settle, static: _Static) -> tuple[Argument, ...]:
    return (
        op.hold_id,
        op.now_ms,
        op.kind.value,
        op.cost_nano_usd,
        op.tokens,
        _content(op.kind, op.cost_nano_usd, op.tokens, static),
        _compact(rows.event_row(op.event)),
        "" if op.trace is None else _trace_text(op.trace),
        _sums(op.event),
    )


def _reserved(op: Reserve, static: _Static) -> tuple[Argument, ...]:
    trace = op.trace
    return (
        op.hold_id,
        op.now_ms,
        op.kind.value,
        op.cost_nano_usd,
        op.tokens,
        _content(op.kind, op.cost_nano_usd, op.tokens, static),
        op.expires_at_ms,
        # What is remembered if it is refused because it would go on with a loop.
        "" if trace is None else _trace_text(refused_trace(trace, hold_id=op.hold_id)),
    )


def _content(kind: CallKind, cost: int, tokens: int, static: _Static) -> bytes:
    return _digest(f"{kind.value} {cost} {tokens} {static.text}")


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def _number(number: int | None) -> Argument:
    return "" if number is None else number


def _sums(event: Event) -> bytes:
    """Writes what is added to each cell, and behind it what is added to the layers'."""
    sums = SUMS.pack(*amounts_of(event))
    if not event.layers:
        return sums
    parts = {part.layer: part for part in event.layers}
    numbers: list[int] = []
    for layer in LAYERS:
        part = parts.get(layer)
        numbers += (part.tokens, part.cost_nano_usd or 0) if part else (0, 0)
    return sums + LAYER_SUMS.pack(*numbers)


def _trace_text(trace: ToolTrace) -> str:
    cost = trace.cost_nano_usd
    return SEPARATOR.join(
        (
            trace.tool,
            trace.arguments_digest,
            trace.result_digest or "",
            trace.call_id or "",
            "" if cost is None else str(cost),
        )
    )


def stop_text(stop: Stop) -> str:
    """Writes a stop that a person sets."""
    measure = "" if stop.measure is None else str(SLOTS[stop.measure])
    return SEPARATOR.join(
        (
            stop.reason.value,
            str(stop.at_ms),
            measure,
            stop.scope or "",
            str(stop.used),
            str(stop.allowed),
            "" if stop.needed is None else str(stop.needed),
            *[""] * 5,
            stop.by or "",
            stop.note or "",
        )
    )


def limits_arguments(limits: Limits) -> list[Argument]:
    """Writes limits in the order of the scripts."""
    return [_number(limits.of(measure)) for measure in SLOTS]
