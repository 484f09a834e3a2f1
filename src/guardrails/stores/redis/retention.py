"""Retention in Redis: deletes what is old, and what belongs to one customer.

Agents go on meanwhile, and what is kept expires by itself. So everything is looked at
in pages, and changed by small scripts that do all that belongs together: what is broken
off is completed by doing it again. Nothing here is ever looked for in a call, which is
why only a walk over all keys of a server finds the sessions of a customer.
"""

import json
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from guardrails.core.accounts import Account
from guardrails.core.calls import CallKind
from guardrails.core.retention import (
    IN_USE_MS,
    Forgotten,
    Pruned,
    is_about,
    nameless,
)
from guardrails.core.rollups import HOUR_MS, LAYER, MIX, ROLLUP_DIMENSIONS, Mix
from guardrails.ids import new_id
from guardrails.stores.alert_texts import kept_from
from guardrails.stores.redis import keys, replies
from guardrails.stores.redis.client import Client
from guardrails.stores.redis.layouts import SEPARATOR
from guardrails.stores.redis.rewriting import Keeping
from guardrails.stores.redis.walks import PAGE, entries_in, fields_in, keys_in
from guardrails.stores.redis.wire import Argument
from guardrails.stores.rows import EVENT_COLUMNS

__all__ = ["RedisRetention"]

AT_ONCE = 100
"""Sums, sessions, holds or alerts that one script changes: about a millisecond."""

DIGESTS_BYTES = 12
"""In front of the accounts of a hold."""

_TIME = EVENT_COLUMNS.index("time_ms")
_SESSION = EVENT_COLUMNS.index("session_id")
_CUSTOMER = EVENT_COLUMNS.index("customer_id")
_GONE = [
    EVENT_COLUMNS.index(name)
    for name in ("customer_id", "user_id", "agent_run_id", "tags")
]

T = TypeVar("T")


class RedisRetention:
    """Deletes what a server holds of a project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def prune(
        self,
        *,
        project_id: str,
        events_before_ms: int | None,
        rollups_before_ms: int | None,
        is_dry_run: bool,
    ) -> Pruned:
        """Deletes what is old, as the port says."""
        project = _Project(self._client, keys.project_prefix(project_id))
        pruned = Pruned()
        if events_before_ms is not None:
            pruned.events = project.prune_events(
                events_before_ms, is_dry_run=is_dry_run
            )
        if rollups_before_ms is not None:
            pruned.rollups = project.prune_sums(
                rollups_before_ms // HOUR_MS, is_dry_run=is_dry_run
            )
        return pruned

    def forget(
        self, *, project_id: str, customer_id: str, now_ms: int, is_dry_run: bool
    ) -> Forgotten:
        """Makes what was recorded of a customer anonymous, as the port says.

        Of a hold that was lost the deleted session goes, and what it holds in shared
        budgets stays: a settlement that comes late still corrects that.
        """
        project = _Project(self._client, keys.project_prefix(project_id))
        found = project.found(customer_id, in_use_since_ms=now_ms - IN_USE_MS)
        forgotten = Forgotten(
            rollups=sum(len(mixes) for mixes in found.mixes.values()),
            events=found.events,
            sessions=len(found.sessions),
            sessions_in_use=found.sessions_in_use,
            alerts=len(found.alerts),
        )
        if not is_dry_run:
            for hour, mixes in found.mixes.items():
                project.forget_sums(hour, mixes)
            if found.events:
                forgotten.events = project.forget_events(customer_id)
            project.forget_holds(found.sessions)
            kept = project.forget_sessions(
                found.sessions, in_use_since_ms=now_ms - IN_USE_MS
            )
            forgotten.sessions -= kept
            forgotten.sessions_in_use += kept
            project.forget_alerts(found.alerts)
        return forgotten


@dataclass(slots=True, kw_only=True)
class _Found:
    """What there is of a customer."""

    mixes: dict[int, list[bytes]] = field(default_factory=dict)
    """The names of its sums of each hour."""
    events: int = 0
    sessions: dict[str, list[str]] = field(default_factory=dict)
    """The accounts of its sessions that are over, and those of their parts."""
    sessions_in_use: int = 0
    alerts: list[bytes] = field(default_factory=list)


class _Project:
    """What is kept of a project, and how it is changed."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._keeping = Keeping(client, prefix)

    # --- what is old --------------------------------------------------------

    def prune_events(self, before_ms: int, *, is_dry_run: bool) -> int:
        """Deletes events; some were booked late, so that all are looked at."""
        if is_dry_run:
            return sum(len(ids) for ids in self._old_events(before_ms))
        count = 0
        with self._keeping.turn() as turn:
            for ids in self._old_events(before_ms):
                turn.delete(ids)
                count += len(ids)
        return count

    def _old_events(self, before_ms: int) -> Iterator[list[bytes]]:
        for page in self._events():
            ids = [one for one, text in page if json.loads(text)[_TIME] < before_ms]
            if ids:
                yield ids

    def _events(self) -> Iterator[Sequence[tuple[bytes, bytes]]]:
        return entries_in(self._client, self._prefix, keys.events(self._prefix))

    def prune_sums(self, first_hour: int, *, is_dry_run: bool) -> int:
        """Deletes hours, and returns how many cells there were."""
        hours: set[int] = set()
        for page in keys_in(self._client, self._prefix, "hour/*"):
            hours |= {int(name.split("/")[1]) for name in page}
        count = 0
        for hour in sorted(hour for hour in hours if hour < first_hour):
            count += self._cells(hour)
            if not is_dry_run:
                every = [
                    keys.rollup(self._prefix, hour, dimension)
                    for dimension in (*ROLLUP_DIMENSIONS, MIX, LAYER)
                ]
                self._client.query(self._prefix, [("UNLINK", *every)])
        return count

    def _cells(self, hour: int) -> int:
        """Counts the cells of an hour: those of names, and those that are derived."""
        names = {dimension: set[object]() for dimension in ROLLUP_DIMENSIONS}
        mixes: set[bytes] = set()
        for page in self._fields(keys.rollup(self._prefix, hour, MIX)):
            mixes |= {text for text, _ in page}
        for mix in Mix.unpack_all(mixes):
            called = "tool" if mix.kind == CallKind.TOOL else "model"
            values = {**mix._asdict(), "tool": (mix.server, mix.tool)}
            skipped = {"tool", "model"} - {called}
            for dimension in names.keys() - skipped:
                names[dimension].add(values.get(dimension))
        layers = keys.rollup(self._prefix, hour, LAYER)
        [text] = self._client.query(self._prefix, [("HGET", layers, "")])
        parts = replies.layer_spends_from(text or b"")
        return len(mixes) + len(parts) + sum(map(len, names.values()))

    def _fields(self, key: str) -> Iterator[Sequence[tuple[bytes, bytes]]]:
        return iter(fields_in(self._client, self._prefix, key))

    # --- what there is of a customer ----------------------------------------

    def found(self, customer_id: str, *, in_use_since_ms: int) -> _Found:
        """Looks for all that is of a customer."""
        found = _Found()
        hours: set[int] = set()
        in_use: set[str] = set()
        for page in keys_in(self._client, self._prefix, "hour/*/customer_id"):
            hours |= {int(name.split("/")[1]) for name in page}
        for hour in self._hours_of(customer_id, sorted(hours)):
            found.mixes[hour] = self._mixes_of(customer_id, hour)
        found.events = sum(
            _is_of(customer_id, text) for page in self._events() for _, text in page
        )
        for page in keys_in(self._client, self._prefix, "session/*"):
            for account in self._sessions_of(customer_id, page):
                assert account.session is not None
                is_active = account.session.last_active_at_ms > in_use_since_ms
                if is_active or account.held_nano_usd or account.held_tokens:
                    in_use.add(account.key)
                else:
                    found.sessions[account.key] = []
        found.sessions_in_use = len(in_use)
        self._find_parts(found.sessions)
        found.alerts = self._alerts_of(customer_id)
        return found

    def _hours_of(self, customer_id: str, hours: Sequence[int]) -> Iterator[int]:
        for page in _pages(hours, PAGE):
            names = [keys.rollup(self._prefix, hour, "customer_id") for hour in page]
            commands = [("HGET", name, customer_id) for name in names]
            sums = self._client.query(self._prefix, commands)
            yield from (
                hour for hour, one in zip(page, sums, strict=True) if one is not None
            )

    def _mixes_of(self, customer_id: str, hour: int) -> list[bytes]:
        found: set[bytes] = set()
        written = _written(customer_id)
        for page in self._fields(keys.rollup(self._prefix, hour, MIX)):
            found |= {
                text
                for text, _ in page
                if written in text
                and Mix.unpack(text.decode()).customer_id == customer_id
            }
        return sorted(found)

    def _sessions_of(self, customer_id: str, page: Sequence[str]) -> Iterator[Account]:
        names = [
            f"{self._prefix}{name}" for name in page if name.count("/") == 1
        ]  # Others are of parts of a session.
        if not names:
            return
        commands = [("HGETALL", name) for name in names]
        answers = self._client.query(self._prefix, commands)
        for name, reply in zip(names, answers, strict=True):
            fields = dict(zip(reply[::2], reply[1::2], strict=True))
            account = replies.account_from(name, fields)
            if account is None or account.session is None:
                continue
            if account.session.attribution.customer_id == customer_id:
                yield account

    def _find_parts(self, sessions: dict[str, list[str]]) -> None:
        """Looks for the accounts of parts of sessions."""
        if not sessions:
            return
        for page in keys_in(self._client, self._prefix, "session/*/*"):
            for name in page:
                key = f"{self._prefix}{name}"
                parts = sessions.get(_session_in(key))
                if parts is not None and key not in parts:
                    parts.append(key)

    def _alerts_of(self, customer_id: str) -> list[bytes]:
        found: set[bytes] = set()
        written = json.dumps(customer_id).encode()  # ASCII only, as they are.
        for page in self._fields(keys.outbox(self._prefix)):
            for alert_id, text in page:
                if written in text:
                    kept = kept_from(alert_id.decode(), text.decode())
                    if is_about(kept.alert, customer_id):
                        found.add(alert_id)
        return sorted(found)

    # --- what is done to it -------------------------------------------------

    def forget_sums(self, hour: int, mixes: Sequence[bytes]) -> None:
        """Moves the sums of an hour to what is not attributed."""
        for page in _pages(mixes, AT_ONCE):
            arguments: list[Argument] = []
            for text in page:
                mix = Mix.unpack(text.decode())
                names = (mix.customer_id, mix.user_id, mix.session_id)
                arguments += [text, nameless(mix).pack(), *(one or "" for one in names)]
            self._keeping.step("sums", hour, *arguments)

    def forget_events(self, customer_id: str) -> int:
        """Takes the names from events, each session's by another random one."""
        names = defaultdict[object, str](lambda: new_id("forgotten"))

        def changed(text: bytes) -> bytes | None:
            if not _is_of(customer_id, text):
                return None
            row = json.loads(text)
            row[_SESSION] = names[row[_SESSION]]
            for index in _GONE:
                row[index] = None
            return json.dumps(row, ensure_ascii=False).encode()

        with self._keeping.turn() as turn:
            return turn.rewrite(changed)

    def forget_holds(self, sessions: dict[str, list[str]]) -> None:
        """Takes sessions from unconfirmed holds, before they are deleted."""
        changes: dict[bytes, tuple[bytes, bytes]] = {}
        for page in self._fields(keys.lost(self._prefix)) if sessions else ():
            for hold_id, text in page:
                left = _without(text, sessions)
                if left != text:
                    changes[hold_id] = (text, left)
        for some in _pages(list(changes.items()), AT_ONCE):
            arguments = [one for hold_id, texts in some for one in (hold_id, *texts)]
            self._keeping.step("holds", *arguments)

    def forget_sessions(
        self, sessions: dict[str, list[str]], *, in_use_since_ms: int
    ) -> int:
        """Deletes sessions, and returns how many have become active meanwhile."""
        kept = 0
        for some in _pages(list(sessions.items()), AT_ONCE):
            arguments: list[Argument] = []
            for key, parts in some:
                traces = f"{self._prefix}traces/{key.removeprefix(self._prefix)}"
                arguments += [key, traces, len(parts), *parts]
            kept += self._keeping.step("sessions", in_use_since_ms, *arguments)
        return kept

    def forget_alerts(self, alerts: Sequence[bytes]) -> None:
        """Deletes alerts, and what has become of them."""
        for page in _pages(alerts, AT_ONCE):
            self._keeping.step("alerts", *page)


def _written(customer_id: str) -> bytes:
    """Returns how a name stands in what is kept: a quick look, before it is read."""
    return json.dumps(customer_id, ensure_ascii=False).encode()


def _is_of(customer_id: str, text: bytes) -> bool:
    """Whether an event is of a customer."""
    return _written(customer_id) in text and json.loads(text)[_CUSTOMER] == customer_id


def _session_in(key: str) -> str:
    """Returns the account of the session that an account is of, or of a part of."""
    return "/".join(key.split("/")[:2])


def _without(text: bytes, sessions: Container[str]) -> bytes:
    """Returns a hold without the accounts of sessions; empty if none is left."""
    *head, rest = text.split(SEPARATOR.encode(), 4)
    digests, accounts = rest[:DIGESTS_BYTES], rest[DIGESTS_BYTES:].split(b"\n")
    left = [key for key in accounts if _session_in(key.decode()) not in sessions]
    if not left:
        return b""
    return SEPARATOR.encode().join((*head, digests + b"\n".join(left)))


def _pages(found: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(found), size):
        yield found[start : start + size]
