"""Rows: ledger values to SQL columns and back. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from guardrails.core.accounts import (
    Account,
    Hold,
    HoldState,
    SessionState,
    Stop,
    StopReason,
)
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.layers import Layer, LayerPart
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.policy import Limits, Measure
from guardrails.core.reporting.rollups import (
    HOUR_MS,
    LAYER,
    SUM_NAMES,
    amounts_of,
    cells_of,
    layer_amounts,
)
from guardrails.core.usage import Charge, PriceStatus, TokenUsage

__all__ = [
    "ACCOUNT_COLUMNS",
    "EVENT_COLUMNS",
    "HOLD_COLUMNS",
    "ROLLUP_COLUMNS",
    "SESSION_COLUMNS",
]

Column = int | str | None

ACCOUNT_COLUMNS = (
    "key",
    "posted_nano_usd",
    "held_nano_usd",
    "unconfirmed_nano_usd",
    "posted_tokens",
    "held_tokens",
    "unconfirmed_tokens",
    "steps",
    "model_calls",
    "tool_calls",
    "alerted",
    "raised",
    "stop",
    "expires_at_ms",
    "started_at_ms",
    "last_active_at_ms",
    "active_ms",
    "ended_at_ms",
)
SESSION_COLUMNS = ("key", "project_id", "session_id", "attribution")
HOLD_COLUMNS = (
    "hold_id",
    "state",
    "kind",
    "accounts",
    "cost_nano_usd",
    "tokens",
    "expires_at_ms",
)
EVENT_COLUMNS = (
    "project_id",
    "session_id",
    "event_id",
    "time_ms",
    "kind",
    "agent",
    "agent_path",
    "customer_id",
    "user_id",
    "feature",
    "agent_run_id",
    "prompt_version",
    "tags",
    "provider",
    "model",
    "server",
    "tool",
    "status",
    "error_type",
    "latency_ms",
    "bytes_in",
    "bytes_out",
    "usage",
    "cost_nano_usd",
    "price_status",
    "price_source",
    "reserved_nano_usd",
    "attempt",
    "is_repeat",
    "refused_by",
    "layers",
)
ROLLUP_COLUMNS = ("project_id", "hour", *SUM_NAMES, "dimension", "name")
_USAGE = tuple(field.name for field in fields(TokenUsage))


def account_row(account: Account) -> tuple[Column, ...]:
    """Returns `ACCOUNT_COLUMNS` of an account."""
    session = account.session
    return (
        account.key,
        account.posted_nano_usd,
        account.held_nano_usd,
        account.unconfirmed_nano_usd,
        account.posted_tokens,
        account.held_tokens,
        account.unconfirmed_tokens,
        account.steps,
        account.model_calls,
        account.tool_calls,
        json.dumps(account.alerted) if account.alerted else None,
        json.dumps(asdict(account.raised)) if account.raised else None,
        json.dumps(asdict(account.stop)) if account.stop else None,
        account.expires_at_ms,
        session.started_at_ms if session else None,
        session.last_active_at_ms if session else None,
        session.active_ms if session else None,
        session.ended_at_ms if session else None,
    )


def account_from(row: Sequence[Any], attribution: Attribution) -> Account:
    """Rebuilds an account from `ACCOUNT_COLUMNS`.

    Args:
        row: The columns.
        attribution: Of the session, if the account is a session's.
    """
    (
        key,
        posted_nano_usd,
        held_nano_usd,
        unconfirmed_nano_usd,
        posted_tokens,
        held_tokens,
        unconfirmed_tokens,
        steps,
        model_calls,
        tool_calls,
        alerted,
        raised,
        stop,
        expires_at_ms,
        started_at_ms,
        last_active_at_ms,
        active_ms,
        ended_at_ms,
    ) = row
    session: SessionState | None = None
    if started_at_ms is not None:
        session = SessionState(
            attribution=attribution,
            started_at_ms=started_at_ms,
            last_active_at_ms=last_active_at_ms,
            active_ms=active_ms,
            ended_at_ms=ended_at_ms,
        )
    return Account(
        key=key,
        posted_nano_usd=posted_nano_usd,
        held_nano_usd=held_nano_usd,
        unconfirmed_nano_usd=unconfirmed_nano_usd,
        posted_tokens=posted_tokens,
        held_tokens=held_tokens,
        unconfirmed_tokens=unconfirmed_tokens,
        steps=steps,
        model_calls=model_calls,
        tool_calls=tool_calls,
        alerted=tuple(json.loads(alerted)) if alerted else (),
        raised=Limits(**json.loads(raised)) if raised else None,
        stop=_stop_from(json.loads(stop)) if stop else None,
        expires_at_ms=expires_at_ms,
        session=session,
    )


def session_row(account: Account) -> tuple[Column, ...]:
    """Returns `SESSION_COLUMNS` of the session that an account belongs to."""
    assert account.session is not None
    who = account.session.attribution
    return (account.key, who.project_id, who.session_id, json.dumps(asdict(who)))


def attribution_from(text: str) -> Attribution:
    """Rebuilds an attribution from its JSON."""
    values = json.loads(text)
    path = tuple(values.pop("agent_path"))
    tags = tuple((name, value) for name, value in values.pop("tags"))
    return Attribution(**values, agent_path=path, tags=tags)


def hold_row(hold: Hold) -> tuple[Column, ...]:
    """Returns the columns of a hold. Account keys have no line breaks."""
    return (
        hold.hold_id,
        hold.state.value,
        hold.kind.value,
        "\n".join(hold.accounts),
        hold.cost_nano_usd,
        hold.tokens,
        hold.expires_at_ms,
    )


def hold_from(row: Sequence[Any]) -> Hold:
    """Rebuilds a hold from `HOLD_COLUMNS`."""
    hold_id, state, kind, accounts, cost_nano_usd, tokens, expires_at_ms = row
    return Hold(
        hold_id=hold_id,
        state=HoldState(state),
        kind=CallKind(kind),
        accounts=tuple(accounts.split("\n")),
        cost_nano_usd=cost_nano_usd,
        tokens=tokens,
        expires_at_ms=expires_at_ms,
    )


def event_row(event: Event) -> tuple[Column, ...]:
    """Returns the columns of an event."""
    who = event.attribution
    return (
        who.project_id,
        who.session_id or "",
        event.event_id,
        event.time_ms,
        event.kind.value,
        who.agent,
        json.dumps(who.agent_path) if len(who.agent_path) > 1 else None,
        who.customer_id,
        who.user_id,
        who.feature,
        who.agent_run_id,
        who.prompt_version,
        json.dumps(who.tags) if who.tags else None,
        event.provider,
        event.model,
        event.server,
        event.tool,
        event.status.value,
        event.error_type,
        event.latency_ms,
        event.bytes_in,
        event.bytes_out,
        _usage_text(event.usage) if event.usage else None,
        event.charge.cost_nano_usd,
        event.charge.status.value,
        event.charge.source,
        event.reserved_nano_usd,
        event.attempt,
        int(event.is_repeat),
        event.refused_by,
        layers_text(event.layers) if event.layers else None,
    )


def event_from(row: Sequence[Any]) -> Event:
    """Rebuilds an event from `EVENT_COLUMNS`, the last of which may be missing."""
    values = dict(zip(EVENT_COLUMNS, row, strict=False))
    agent, path, tags = values["agent"], values["agent_path"], values["tags"]
    usage = values["usage"]
    return Event(
        event_id=values["event_id"],
        time_ms=values["time_ms"],
        attribution=Attribution(
            project_id=values["project_id"],
            customer_id=values["customer_id"],
            user_id=values["user_id"],
            feature=values["feature"],
            agent=agent,
            agent_path=tuple(json.loads(path)) if path else (agent,) if agent else (),
            session_id=values["session_id"] or None,
            agent_run_id=values["agent_run_id"],
            prompt_version=values["prompt_version"],
            tags=tuple((k, v) for k, v in json.loads(tags)) if tags else (),
        ),
        kind=CallKind(values["kind"]),
        provider=values["provider"],
        model=values["model"],
        server=values["server"],
        tool=values["tool"],
        status=CallStatus(values["status"]),
        error_type=values["error_type"],
        latency_ms=values["latency_ms"],
        bytes_in=values["bytes_in"],
        bytes_out=values["bytes_out"],
        usage=TokenUsage(**json.loads(usage)) if usage else None,
        charge=Charge(
            cost_nano_usd=values["cost_nano_usd"],
            status=PriceStatus(values["price_status"]),
            source=values["price_source"],
        ),
        reserved_nano_usd=values["reserved_nano_usd"],
        attempt=values.get("attempt") or 1,
        is_repeat=bool(values.get("is_repeat")),
        refused_by=values.get("refused_by"),
        layers=_layers_from(values.get("layers")),
    )


def cell_columns(event: Event) -> tuple[int, list[Column]]:
    """Returns to how many cells an event adds, and what: all sums, then each name.

    That is `ROLLUP_COLUMNS`, but for its last two, which are there for each cell.
    """
    cells, hour = cells_of(event), event.time_ms // HOUR_MS
    columns: list[Column] = [event.attribution.project_id, hour, *amounts_of(event)]
    for dimension, name in cells:
        columns += (dimension, name or "")
    return len(cells), columns


def layer_columns(event: Event, layers: Sequence[LayerPart]) -> list[Column]:
    """Returns what its layers add: `ROLLUP_COLUMNS` of one row per layer, in a row."""
    project_id, hour = event.attribution.project_id, event.time_ms // HOUR_MS
    columns: list[Column] = []
    for part in layers:
        amounts = layer_amounts(
            part.layer, tokens=part.tokens, cost_nano_usd=part.cost_nano_usd or 0
        )
        columns += (project_id, hour, *amounts, LAYER, part.layer.value)
    return columns


def layers_text(layers: Sequence[LayerPart]) -> str:
    """Writes the tokens and the cost of each layer: `{"prompt.user":[12,3600]}`."""
    return json.dumps(
        {part.layer.value: (part.tokens, part.cost_nano_usd) for part in layers},
        separators=(",", ":"),
    )


def _layers_from(text: str | None) -> tuple[LayerPart, ...] | None:
    if not text:
        return None
    return tuple(
        LayerPart(layer=Layer(layer), tokens=tokens, cost_nano_usd=cost)
        for layer, (tokens, cost) in json.loads(text).items()
    )


def _usage_text(usage: TokenUsage) -> str:
    """Writes what is not 0, so that an ordinary call is two numbers."""
    # By hand: `asdict` and a JSON encoder take three times as long.
    counts = [(name, getattr(usage, name)) for name in _USAGE]
    parts = [f'"{name}": {count}' for name, count in counts if count]
    return f"{{{', '.join(parts)}}}"


def _stop_from(values: dict[str, Any]) -> Stop:
    measure, finding = values.pop("measure"), values.pop("finding")
    values["reason"] = StopReason(values["reason"])
    values["measure"] = None if measure is None else Measure(measure)
    if finding is not None:
        finding["kind"] = LoopKind(finding["kind"])
        finding["tools"] = tuple(finding.get("tools", ()))
        values["finding"] = LoopFinding(**finding)
    return Stop(**values)
