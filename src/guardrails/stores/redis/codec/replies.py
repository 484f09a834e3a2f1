"""Replies: what a script answers as ledger values. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from guardrails.core.accounts import Account, Charging, SessionState, Stop, StopReason
from guardrails.core.events import Event
from guardrails.core.layers import LAYERS
from guardrails.core.limits import effective_limits
from guardrails.core.loops import ToolTrace
from guardrails.core.operations import (
    Conflict,
    Crossing,
    Refusal,
    Reserve,
    Reserved,
    Settle,
    Settled,
    Verdict,
)
from guardrails.core.reporting.rollups import LAYER, Spend, spend_of_layer
from guardrails.stores import rows
from guardrails.stores.alert_texts import finding_from, who_from
from guardrails.stores.redis.codec.layouts import (
    LAYER_SUMS,
    MEASURES,
    NUMBERS,
    SEPARATOR,
    SUMS,
    TIMES,
    raised_from,
)
from guardrails.stores.redis.codec.orders import order_from

__all__ = [
    "account_from",
    "amounts_from",
    "event_from",
    "layer_spends_from",
    "noted_cells",
    "reserved_from",
    "settled_from",
    "totals_from",
]

_PLAIN_RESERVED = Reserved(verdict=Verdict.ALLOW)
_PLAIN_SETTLED = Settled()


def settled_from(
    reply: Any, op: Settle, raised: Mapping[str, str]
) -> Settled | Conflict:
    """Reads what became of a settlement."""
    if reply == 1:
        return _PLAIN_SETTLED
    if reply[0] == -1:
        return Conflict(hold_id=op.hold_id)
    if reply[0] == 0:
        return Settled(is_applied=False)
    _, late, crossed, stop, finding = reply
    return Settled(
        is_late=late == 1,
        crossings=_crossings(crossed, op.charging, raised),
        new_stop=_stop_from(stop),
        finding=finding_from(finding.decode().split(SEPARATOR)) if finding else None,
    )


def reserved_from(
    reply: Any, op: Reserve, raised: Mapping[str, str]
) -> Reserved | Conflict:
    """Reads the answer to a reservation."""
    if reply == 1:
        return _PLAIN_RESERVED
    crossed: Sequence[Any] = ()
    answer = reply
    if isinstance(reply[0], list):
        answer, crossed = reply
    verdict = answer[0].decode()
    if verdict == "conflict":
        return Conflict(hold_id=op.hold_id)
    refusal, new_stop = None, None
    if len(answer) > 1:
        refusal, new_stop = _refusal(answer, op)
    return Reserved(
        verdict=Verdict(verdict),
        refusal=refusal,
        new_stop=new_stop,
        crossings=_crossings(crossed, op.charging, raised),
    )


def _refusal(answer: Sequence[Any], op: Reserve) -> tuple[Refusal, Stop | None]:
    steps = int(answer[4])
    if answer[3] == 3:
        order = order_from(op.charging.stop_keys[answer[1] - 1], answer[2])
        return Refusal(line=op.charging.lines[0], steps=steps, order=order), None
    line = op.charging.lines[answer[1] - 1]
    match answer[3]:
        case 2:
            finding = finding_from(answer[2].decode().split(SEPARATOR))
            return Refusal(line=line, steps=steps, finding=finding), None
        case 0 if not answer[2]:
            measure = MEASURES[str(answer[5])]
            used, allowed, needed = (int(number) for number in answer[6:9])
            return Refusal(
                line=line,
                measure=measure,
                used=used,
                allowed=allowed,
                needed=needed,
                steps=steps,
            ), None
        case is_new:
            stop = _stop_from(answer[2])
            assert stop is not None
            refusal = Refusal(
                line=line,
                used=stop.used,
                allowed=stop.allowed,
                needed=stop.needed or 0,
                steps=steps,
                stop=stop,
            )
            return refusal, stop if is_new else None


def _crossings(
    crossed: Sequence[Any], charging: Charging, raised: Mapping[str, str]
) -> tuple[Crossing, ...]:
    found: list[Crossing] = []
    points = [(line, point) for line in charging.lines for point in line.thresholds]
    for number, posted in crossed:
        line, point = points[number - 1]
        known = raised_from(raised.get(line.account, ""))
        limits = effective_limits(line.limits, known)
        found.append(
            Crossing(
                line=line,
                threshold=point,
                posted=int(posted),
                limit=limits.of(point.measure),
            )
        )
    return tuple(found)


def _stop_from(text: bytes) -> Stop | None:
    if not text:
        return None
    reason, at, measure, scope, used, allowed, needed, *rest = text.decode().split(
        SEPARATOR
    )
    return Stop(
        reason=StopReason(reason),
        at_ms=int(at),
        measure=MEASURES[measure] if measure else None,
        scope=scope or None,
        used=int(used),
        allowed=int(allowed),
        needed=int(needed) if needed else None,
        finding=finding_from(rest[:5]) if rest[0] else None,
        by=rest[5] or None,
        note=rest[6] or None,
    )


def account_from(
    key: str, found: Mapping[bytes, bytes], traces: Sequence[bytes] = ()
) -> Account | None:
    """Rebuilds an account from its fields; `None` if there are none."""
    if not found:
        return None
    # Before its first call an account may have a raised limit, and no numbers.
    numbers = NUMBERS.unpack(found.get(b"n", bytes(NUMBERS.size)))
    stop, raised, alerted = found.get(b"x", b"\x1e\x1e").split(b"\x1e")
    session: SessionState | None = None
    if b"t" in found:
        started, last_active, active, ended = TIMES.unpack(found[b"t"])
        session = SessionState(
            attribution=who_from(_whole(found)),
            started_at_ms=started,
            last_active_at_ms=last_active,
            active_ms=active,
            ended_at_ms=None if ended < 0 else ended,
            traces=tuple(_trace_from(text.decode()) for text in traces),
        )
    names = (field.name for field in fields(Account))
    next(names)  # The key.
    return Account(
        key=key,
        **dict(zip(names, numbers, strict=False)),
        alerted=tuple(alerted.decode().split(SEPARATOR)) if alerted else (),
        raised=raised_from(raised.decode()),
        stop=_stop_from(stop),
        expires_at_ms=int(found[b"e"]) if b"e" in found else None,
        session=session,
    )


def totals_from(key: str, rows: bytes, index: int) -> Account:
    """Reads the numbers of one of the rows that a call has changed."""
    names = (field.name for field in fields(Account))
    next(names)  # The key.
    numbers = NUMBERS.unpack_from(rows, index * NUMBERS.size)
    return Account(key=key, **dict(zip(names, numbers, strict=False)))


def _whole(found: Mapping[bytes, bytes]) -> bytes:
    """Returns whose session it is, from the pieces that it is kept in."""
    pieces: list[bytes] = []
    while (piece := found.get(b"w%d" % len(pieces))) is not None:
        pieces.append(piece)
    return b"".join(pieces)


def _trace_from(text: str) -> ToolTrace:
    tool, arguments, result, call_id, cost = text.split(SEPARATOR)
    return ToolTrace(
        tool=tool,
        arguments_digest=arguments,
        result_digest=result or None,
        call_id=call_id or None,
        cost_nano_usd=int(cost) if cost else None,
    )


def event_from(payload: bytes) -> Event:
    """Rebuilds an event from the stream."""
    return rows.event_from(json.loads(payload))


def layer_spends_from(numbers: bytes) -> list[Spend]:
    """Reads what an hour has of each layer."""
    found = LAYER_SUMS.unpack(numbers.ljust(LAYER_SUMS.size, b"\0"))
    pairs = zip(LAYERS, found[::2], found[1::2], strict=True)
    return [
        spend_of_layer(layer, tokens=tokens, cost_nano_usd=cost)
        for layer, tokens, cost in pairs
        if tokens
    ]


def amounts_from(sums: bytes) -> tuple[int, ...]:
    """Reads the sums of a cell.

    What an earlier version wrote is shorter: it did not know the last sums.
    """
    return SUMS.unpack(sums.ljust(SUMS.size, b"\0"))


def noted_cells(notes: Iterable[bytes]) -> Iterator[tuple[str, bytes, bytes]]:
    """Yields what is noted to be added to sums: dimension, name and sums.

    The notes are those of one hour, see `notes.lua`.
    """
    for note in notes:
        text, _, numbers = note.partition(b"\0")
        _, *names = text.split(SEPARATOR.encode())
        for dimension, name in zip(names[::2], names[1::2], strict=True):
            yield dimension.decode(), name, numbers[: SUMS.size]
        if len(numbers) > SUMS.size:
            yield LAYER, b"", numbers[SUMS.size :]
