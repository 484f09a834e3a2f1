"""Requests: ledger operations as the arguments of a script. Pure."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

from guardrails.core.accounts import Charging, Line, Stop
from guardrails.core.calls import CallKind
from guardrails.core.events import Event
from guardrails.core.layers import LAYERS
from guardrails.core.limits import effective_limits, threshold_at
from guardrails.core.loops import LoopRule, ToolTrace, refused_trace
from guardrails.core.operations import Reserve, Settle
from guardrails.core.policy import Limits, Measure
from guardrails.core.reporting.rollups import HOUR_MS, amounts_of, cells_of
from guardrails.stores import rows
from guardrails.stores.alert_texts import who_text
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.codec.layouts import (
    ACTIVE,
    CALL,
    DERIVED,
    LAYER_SUMS,
    LINE,
    NO_LIMIT,
    SEPARATOR,
    SLOTS,
    SUMS,
    THRESHOLD,
    raised_from,
)
from guardrails.stores.redis.codec.outbox import telling_text
from guardrails.stores.redis.codec.wire import Argument, Fragment

__all__ = ["call_arguments", "limits_arguments", "stop_text"]

DIGEST_BYTES = 6
"""Tells two contents of one id apart: 2^48 of them."""

NAMES_MAX = 4_096
"""Names of the sums of calls that are kept written out."""

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: making one takes as long as what it does."""

_NO_SETTLE: tuple[Argument, ...] = ("",) * 5
_NO_RESERVE: tuple[Argument, ...] = ("",) * 4
_NO_AMOUNTS = (0, 0, 0, 0)


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
    arguments = Fragment.of(
        (
            _numbers(settle, reserve, static, version),
            *(_NO_SETTLE if settle is None else _settled(settle, static)),
            *(_NO_RESERVE if reserve is None else _reserved(reserve, static)),
            events_max,
        )
    )
    names = _shared_keys(static.prefix, period).then(static.keys)
    return names, arguments.then(static.rules)


def _numbers(
    settle: Settle | None, reserve: Reserve | None, static: "_Static", version: int
) -> bytes:
    sessions = static.sessions
    numbers = CALL.pack(
        static.count,
        sessions,
        version,
        *(_NO_AMOUNTS if settle is None else _amounts(settle)),
        *(_NO_AMOUNTS if reserve is None else _amounts(reserve)),
    )
    for i in range(sessions):
        numbers += ACTIVE.pack(
            0 if settle is None else settle.active_ms[i],
            0 if reserve is None else reserve.active_ms[i],
        )
    return numbers


def _amounts(op: Settle | Reserve) -> tuple[int, int, int, int]:
    return op.now_ms, op.cost_nano_usd, op.tokens, _KINDS[op.kind]


_KINDS = {
    CallKind.MODEL: SLOTS[Measure.MODEL_CALLS],
    CallKind.TOOL: SLOTS[Measure.TOOL_CALLS],
}


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
        self.count = len(charging.lines)
        rule, action = "", ""
        if charging.loop is not None:
            rule, action = _rule_text(charging.loop), charging.loop.action.value
        limits = [
            effective_limits(line.limits, raised_from(text))
            for line, text in zip(charging.lines, raised, strict=True)
        ]
        pairs = list(zip(charging.lines, limits, strict=True))
        self.rules = Fragment.of(
            [
                b"".join([_limits_packed(line, limit) for line, limit in pairs]),
                _strings(*raised) if any(raised) else "",
                _digest(self.text) + self.text.encode(),
                _thresholds(pairs, raised),
                b"".join([_about(line, charging) for line in charging.lines]),
                action,
                rule,
                f"{charging.is_enforced:d}{telling_text(charging)}",
                *[keys.field_of(key) for key in charging.stop_keys],
            ]
        )


@lru_cache(maxsize=64)
def _shared_keys(prefix: str, period: int) -> Fragment:
    """Returns the keys that all calls of a project name."""
    return Fragment.of(
        [
            *keys.holding(prefix),
            *keys.finished(prefix, period * keys.FINISHED_PERIOD_MS),
            keys.events(prefix),
            keys.stops(prefix),
            keys.notes(prefix),
            keys.nothing(prefix),
        ]
    )


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


def _limits_packed(line: Line, limits: Limits) -> bytes:
    numbers = [limits.of(measure) for measure in SLOTS]
    return LINE.pack(
        line.is_binding,
        *[NO_LIMIT if number is None else number for number in numbers],
    )


def _thresholds(pairs: Sequence[tuple[Line, Limits]], raised: Sequence[str]) -> bytes:
    """Writes the thresholds of all lines; replies name them by their number there."""
    found = b""
    for i, (line, limits) in enumerate(pairs):
        for point in line.thresholds:
            value, limit = point.value, limits.of(point.measure)
            if raised[i] and point.ratio is not None and limit is not None:
                value = threshold_at(limit, point.ratio)
            value = min(value, NO_LIMIT)  # An amount of money has no bound.
            found += THRESHOLD.pack(i + 1, SLOTS[point.measure], value)
            found += _strings(point.label)
    return found


def _about(line: Line, charging: Charging) -> bytes:
    """Writes what few calls ask of a line."""
    who = ""
    if line.is_session:
        who = who_text(line.attribution or charging.attribution)
    return _strings(line.scope, str(_number(line.expires_at_ms)), who)


def _rule_text(rule: LoopRule) -> str:
    numbers = (
        rule.repeats,
        rule.cycle_repeats,
        rule.error_repeats,
        rule.polling_repeats,
        rule.within,
        rule.refusals,
    )
    return ",".join(map(str, numbers))


def _strings(*texts: str) -> bytes:
    """Writes texts as the scripts read `s`. Names hold no control characters."""
    return b"".join([text.encode() + b"\0" for text in texts])


def _settled(op: Settle, static: _Static) -> tuple[Argument, ...]:
    return (
        op.hold_id,
        _content(op, static),
        _compact(rows.event_row(op.event)),
        "" if op.trace is None else _trace_text(op.trace),
        _note(op.event),
    )


def _reserved(op: Reserve, static: _Static) -> tuple[Argument, ...]:
    trace = op.trace
    hold = b"%b\x1f%d\x1f%d\x1f%d\x1f%b" % (
        op.kind.value.encode(),
        op.cost_nano_usd,
        op.tokens,
        op.expires_at_ms,
        _content(op, static),
    )
    return (
        op.hold_id,
        hold,
        op.expires_at_ms,
        # What is remembered if it is refused because it would go on with a loop.
        "" if trace is None else _trace_text(refused_trace(trace, hold_id=op.hold_id)),
    )


def _content(op: Settle | Reserve, static: _Static) -> bytes:
    return _digest(f"{op.kind.value} {op.cost_nano_usd} {op.tokens} {static.text}")


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def _number(number: int | None) -> Argument:
    return "" if number is None else number


def _note(event: Event) -> bytes:
    """Writes what is added to the sums of a call's hour, see `notes.lua`."""
    note = _names(event.time_ms // HOUR_MS, cells_of(event))
    note += SUMS.pack(*amounts_of(event))
    if not event.layers:
        return note
    parts = {part.layer: part for part in event.layers}
    numbers: list[int] = []
    for layer in LAYERS:
        part = parts.get(layer)
        numbers += (part.tokens, part.cost_nano_usd or 0) if part else (0, 0)
    return note + LAYER_SUMS.pack(*numbers)


@lru_cache(maxsize=NAMES_MAX)
def _names(hour: int, cells: tuple[tuple[str, str | None], ...]) -> bytes:
    """Writes the names of the sums that are kept; the history derives the others.

    Every call has one by agent, so they come to those of the project; what is missing
    there in another dimension has no name in it. A session has few mixes in an hour.
    """
    names = [str(hour)]
    for dimension, name in cells:
        if dimension not in DERIVED and (name is not None or dimension in _COMPLETE):
            names += dimension, name or ""
    return _strings(SEPARATOR.join(names))


_COMPLETE = ("agent", "model", "tool")


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
