"""Forgetting: finds all that a project keeps of a customer, and makes it anonymous.

Calls never look for what is of a customer, so there is no index: hours, sessions and
alerts are walked over. Each script changes what belongs together, and what it finds
changed already it leaves.
"""

import json
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from guardrails.core.accounts import Account
from guardrails.core.reporting.rollups import MIX, Mix
from guardrails.core.retention import IN_USE_MS, Forgotten, is_about, nameless
from guardrails.stores.alert_texts import kept_from
from guardrails.stores.redis.codec import keys, replies
from guardrails.stores.redis.codec.layouts import DIGESTS_BYTES, SEPARATOR
from guardrails.stores.redis.codec.wire import Argument
from guardrails.stores.redis.keeping.rewriting import Keeping
from guardrails.stores.redis.keeping.walks import entries_in, fields_in, keys_in
from guardrails.stores.rows import EVENT_COLUMNS
from guardrails.system.ids import new_id

__all__ = ["Belongings", "Forgetting"]

AT_ONCE = 100
"""Sums, sessions, holds or alerts that one script changes: about a millisecond."""

_SESSION = EVENT_COLUMNS.index("session_id")
_CUSTOMER = EVENT_COLUMNS.index("customer_id")
_GONE = [
    EVENT_COLUMNS.index(name)
    for name in ("customer_id", "user_id", "agent_run_id", "tags")
]

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Belongings:
    """What there is of a customer."""

    mixes: dict[int, list[bytes]] = field(default_factory=dict)
    """The names of its sums, by hour."""
    events: int = 0
    sessions: dict[str, list[str]] = field(default_factory=dict)
    """The accounts of its sessions that are over, with those of their parts."""
    sessions_in_use: int = 0
    alerts: list[bytes] = field(default_factory=list)
    """Their ids."""

    def counts(self) -> Forgotten:
        """Returns what there is to forget."""
        return Forgotten(
            events=self.events,
            rollups=sum(map(len, self.mixes.values())),
            sessions=len(self.sessions),
            sessions_in_use=self.sessions_in_use,
            alerts=len(self.alerts),
        )


class Forgetting:
    """Forgets one customer of a project.

    Args:
        keeping: Changes the project.
        customer_id: The customer.
        now_ms: The time.
    """

    def __init__(self, keeping: Keeping, customer_id: str, *, now_ms: int) -> None:
        self._keeping = keeping
        self._client = keeping.client
        self._prefix = keeping.prefix
        self._customer_id = customer_id
        self._in_use_since_ms = now_ms - IN_USE_MS
        # How the name stands in what is kept: a quick look, before it is read.
        self._written = json.dumps(customer_id, ensure_ascii=False).encode()
        self._escaped = json.dumps(customer_id).encode()

    def found(self) -> Belongings:
        """Looks for all that is of the customer, and changes nothing."""
        found = Belongings(
            mixes={hour: self._mixes(hour) for hour in self._hours()},
            events=self._count_events(),
            alerts=self._alerts(),
        )
        in_use: set[str] = set()
        for account in self._sessions():
            if self._is_in_use(account):
                in_use.add(account.key)
            else:
                found.sessions[account.key] = []
        found.sessions_in_use = len(in_use)
        self._find_parts(found.sessions)
        return found

    def forget(self, found: Belongings) -> Forgotten:
        """Forgets what was found, and returns what it was in the end."""
        forgotten = found.counts()
        for hour, mixes in found.mixes.items():
            self._forget_sums(hour, mixes)
        if found.events:
            forgotten.events = self._forget_events()
        # Before the sessions: without them nobody knows whose a hold is.
        self._forget_holds(found.sessions)
        kept = self._forget_sessions(found.sessions)
        forgotten.sessions -= kept
        forgotten.sessions_in_use += kept
        self._forget_alerts(found.alerts)
        return forgotten

    # --- what there is ------------------------------------------------------

    def _hours(self) -> list[int]:
        """Returns the hours in which the customer spent anything."""
        hours: set[int] = set()
        for page in keys_in(self._client, self._prefix, "hour/*/customer_id"):
            sums = self._client.query(
                self._prefix,
                [("HGET", f"{self._prefix}{name}", self._customer_id) for name in page],
            )
            hours |= {
                int(name.split("/")[1])
                for name, text in zip(page, sums, strict=True)
                if text is not None
            }
        return sorted(hours)

    def _mixes(self, hour: int) -> list[bytes]:
        found: set[bytes] = set()
        for page in self._fields(keys.rollup(self._prefix, hour, MIX)):
            found |= {text for text, _ in page if self._is_mine(text)}
        return sorted(found)

    def _is_mine(self, mix: bytes) -> bool:
        if self._written not in mix:
            return False
        return Mix.unpack(mix.decode()).customer_id == self._customer_id

    def _count_events(self) -> int:
        pages = entries_in(self._client, self._prefix, keys.events(self._prefix))
        return sum(self._row_of(text) is not None for page in pages for _, text in page)

    def _row_of(self, text: bytes) -> list[object] | None:
        """Reads an event; `None` if it is not the customer's."""
        if self._written not in text:
            return None
        row: list[object] = json.loads(text)
        return row if row[_CUSTOMER] == self._customer_id else None

    def _sessions(self) -> Iterator[Account]:
        """Yields the sessions of the customer; one may come twice."""
        for page in keys_in(self._client, self._prefix, "session/*"):
            # Those with another slash are of parts of a session.
            names = [f"{self._prefix}{one}" for one in page if one.count("/") == 1]
            commands = [("HGETALL", name) for name in names]
            answers = self._client.query(self._prefix, commands) if names else []
            for name, reply in zip(names, answers, strict=True):
                fields = dict(zip(reply[::2], reply[1::2], strict=True))
                account = replies.account_from(name, fields)
                session = None if account is None else account.session
                if session and session.attribution.customer_id == self._customer_id:
                    assert account is not None
                    yield account

    def _is_in_use(self, account: Account) -> bool:
        assert account.session is not None
        is_active = account.session.last_active_at_ms > self._in_use_since_ms
        return is_active or account.held_nano_usd > 0 or account.held_tokens > 0

    def _find_parts(self, sessions: dict[str, list[str]]) -> None:
        """Adds the accounts of the parts of sessions to them."""
        pages = keys_in(self._client, self._prefix, "session/*/*") if sessions else ()
        for page in pages:
            for name in page:
                key = f"{self._prefix}{name}"
                parts = sessions.get(_session_in(key))
                if parts is not None and key not in parts:
                    parts.append(key)

    def _alerts(self) -> list[bytes]:
        found: set[bytes] = set()
        for page in self._fields(keys.outbox(self._prefix)):
            for alert_id, text in page:
                if self._escaped in text:
                    kept = kept_from(alert_id.decode(), text.decode())
                    if is_about(kept.alert, self._customer_id):
                        found.add(alert_id)
        return sorted(found)

    def _fields(self, key: str) -> Iterator[Sequence[tuple[bytes, bytes]]]:
        return fields_in(self._client, self._prefix, key)

    # --- what is done -------------------------------------------------------

    def _forget_sums(self, hour: int, mixes: Sequence[bytes]) -> None:
        """Moves the sums of an hour to what is not attributed."""
        for page in _pages(mixes):
            arguments: list[Argument] = []
            for text in page:
                mix = Mix.unpack(text.decode())
                names = (mix.customer_id, mix.user_id)
                arguments += [text, nameless(mix).pack(), *[one or "" for one in names]]
            self._keeping.step("sums", hour, *arguments)

    def _forget_events(self) -> int:
        """Takes the names from events, each session's by another random one."""
        names = defaultdict[object, str](lambda: new_id("forgotten"))

        def changed(text: bytes) -> bytes | None:
            row = self._row_of(text)
            if row is None:
                return None
            row[_SESSION] = names[row[_SESSION]]
            for index in _GONE:
                row[index] = None
            return json.dumps(row, ensure_ascii=False).encode()

        with self._keeping.turn() as turn:
            return turn.rewrite(changed)

    def _forget_holds(self, sessions: Container[str]) -> None:
        """Takes sessions from unconfirmed holds.

        What they hold in shared budgets stays, and a settlement that comes late still
        corrects it.
        """
        changes: dict[bytes, tuple[bytes, bytes]] = {}
        for page in self._fields(keys.lost(self._prefix)):
            for hold_id, text in page:
                left = _without(text, sessions)
                if left != text:
                    changes[hold_id] = (text, left)
        for some in _pages(list(changes.items())):
            arguments = [one for hold_id, texts in some for one in (hold_id, *texts)]
            self._keeping.step("holds", *arguments)

    def _forget_sessions(self, sessions: dict[str, list[str]]) -> int:
        """Deletes sessions, and returns how many have become active meanwhile."""
        kept = 0
        for some in _pages(list(sessions.items())):
            arguments: list[Argument] = []
            for key, parts in some:
                traces = f"{self._prefix}traces/{key.removeprefix(self._prefix)}"
                arguments += [key, traces, len(parts), *parts]
            kept += self._keeping.step("sessions", self._in_use_since_ms, *arguments)
        return kept

    def _forget_alerts(self, alerts: Sequence[bytes]) -> None:
        for page in _pages(alerts):
            self._keeping.step("alerts", *page)


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


def _pages(found: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(found), AT_ONCE):
        yield found[start : start + AT_ONCE]
