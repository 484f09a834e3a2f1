"""The history in Redis: sums and events. Only reads."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from guardrails.core.accounts import Account
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.lines import account_key
from guardrails.core.rollups import HOUR_MS, ROLLUP_DIMENSIONS, Spend
from guardrails.core.windows import Window
from guardrails.stores.redis import keys, replies
from guardrails.stores.redis.client import Client

__all__ = ["RedisHistory"]

PAGE = 1_000
"""Events read at once: about 200 kB."""

CLOCKS_APART_MS_MAX = HOUR_MS
"""Between a process and the server; doctor complains from far less."""

HOURS_MAX = 500
"""Hours read in one round trip."""


class RedisHistory:
    """Reads sums and events."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def spend(
        self, *, project_id: str, by: str, since_ms: int, until_ms: int
    ) -> Sequence[Spend]:
        """Sums whole hours per name, most expensive first."""
        assert by in ROLLUP_DIMENSIONS, by
        hours = range(since_ms // HOUR_MS, max(since_ms, until_ms) // HOUR_MS + 1)
        sums: dict[str | None, Spend] = {}
        # Every call has a cell by agent, if only that of no agent.
        if by in ("agent", "project_id"):
            sums = self._cells(project_id, "agent", hours)
            if by == "project_id" and sums:
                sums = {project_id: replace(_sum(sums.values()), name=project_id)}
        else:
            sums = self._cells(project_id, by, hours)
            if by not in ("model", "tool"):
                everything = _sum(self._cells(project_id, "agent", hours).values())
                rest = everything.minus(_sum(sums.values()))
                if rest.steps:
                    sums[None] = rest
        return sorted(
            sums.values(), key=lambda s: (-s.total_nano_usd, -s.steps, s.name or "")
        )

    def _cells(
        self, project_id: str, dimension: str, hours: range
    ) -> dict[str | None, Spend]:
        """Adds up the hours, per name."""
        prefix = keys.project_prefix(project_id)
        sums: dict[str | None, Spend] = {}
        for start in range(0, len(hours), HOURS_MAX):
            commands = [
                ("HGETALL", keys.rollup(prefix, hour, dimension))
                for hour in hours[start : start + HOURS_MAX]
            ]
            for found in self._client.query(prefix, commands):
                for field, value in zip(found[::2], found[1::2], strict=True):
                    name = field.decode() or None
                    spend = replies.spend_from(name, value)
                    known = sums.get(name)
                    sums[name] = spend if known is None else known.plus(spend)
        return sums

    def session_accounts(
        self, *, project_id: str, session_ids: Sequence[str]
    ) -> Sequence[Account]:
        """Returns the accounts of sessions that are known."""
        prefix = keys.project_prefix(project_id)
        accounts = [_session_key(project_id, one) for one in session_ids]
        found: list[Account] = []
        for start in range(0, len(accounts), PAGE):
            page = accounts[start : start + PAGE]
            commands = [("HGETALL", keys.account_of(account)) for account in page]
            answers = self._client.query(prefix, commands)
            for key, reply in zip(page, answers, strict=True):
                fields = dict(zip(reply[::2], reply[1::2], strict=True))
                account = replies.account_from(key, fields)
                if account is not None and account.session is not None:
                    found.append(account)
        return found

    def events(
        self, *, project_id: str, session_id: str, limit: int
    ) -> Sequence[Event]:
        """Returns the last events of a session, oldest first."""
        found: list[Event] = []
        for event in self._newest_first(project_id):
            if event.attribution.session_id == session_id:
                found.append(event)
                if len(found) == limit:
                    break
        return found[::-1]

    def timeline(
        self, *, project_id: str, since_ms: int, until_ms: int
    ) -> Iterator[Event]:
        """Yields the events of a project in a span, as they were booked."""
        prefix = keys.project_prefix(project_id)
        # An entry is numbered by the server's clock when it is booked, which is not
        # before the call ended but for the difference of two clocks.
        start = f"{max(0, since_ms - CLOCKS_APART_MS_MAX)}".encode()
        while True:
            command = ("XRANGE", keys.events(prefix), start, "+", "COUNT", PAGE)
            [entries] = self._client.query(prefix, [command])
            for entry_id, fields in entries:
                event = replies.event_from(fields[1])
                if since_ms <= event.time_ms <= until_ms:
                    yield event
                start = b"(" + entry_id
            if len(entries) < PAGE:
                return

    def _newest_first(self, project_id: str) -> Iterator[Event]:
        prefix = keys.project_prefix(project_id)
        last = b"+"
        while True:
            command = ("XREVRANGE", keys.events(prefix), last, "-", "COUNT", PAGE)
            [entries] = self._client.query(prefix, [command])
            for entry_id, fields in entries:
                yield replies.event_from(fields[1])
                last = b"(" + entry_id
            if len(entries) < PAGE:
                return


def _sum(spends: Iterable[Spend]) -> Spend:
    return functools.reduce(Spend.plus, spends, Spend(name=None))


def _session_key(project_id: str, session_id: str) -> str:
    who = Attribution(project_id=project_id, session_id=session_id)
    return account_key(who, per=("session_id",), every=Window.SESSION, now_ms=0)
