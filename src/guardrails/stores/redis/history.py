"""The history in Redis: sums and events. Only reads."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from guardrails.core.accounts import Account
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.flat_events import FlatEvent, flat_event
from guardrails.core.groups import Every, Names, SpendQuery, grouped, in_order
from guardrails.core.lines import account_key
from guardrails.core.rollups import (
    HOUR_MS,
    LAYER,
    MIX,
    Mix,
    Spend,
    added_up,
    by_layer,
)
from guardrails.core.windows import Window
from guardrails.ports import FOREVER_MS
from guardrails.stores.redis import keys, replies
from guardrails.stores.redis.client import Client

__all__ = ["RedisHistory"]

PAGE = 1_000
"""Events read at once: about 200 kB."""

CLOCKS_APART_MS_MAX = HOUR_MS
"""Between a process and the server; doctor complains from far less."""

HOURS_MAX = 500
"""Hours read in one round trip."""

MIX_HOURS_MAX = 24
"""The same of mixes, of which each session has several."""


MIXES_AT_ONCE = 4_096
"""Their names are read together: 1 MB."""


class RedisHistory:
    """Reads sums and events."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def spend(
        self,
        *,
        project_id: str,
        by: str | Sequence[str],
        since_ms: int,
        until_ms: int,
        where: Mapping[str, Sequence[str]] | None = None,
        every: Every | None = None,
    ) -> Sequence[Spend]:
        """Sums whole hours, as the port says."""
        query = SpendQuery.of(
            project_id=project_id,
            by=by,
            since_ms=since_ms,
            until_ms=until_ms,
            where=where,
            every=every,
        )
        if query.dimension == LAYER:
            models = self._by(query, "model")
            return in_order(by_layer(self._layers(query), models))
        if query.dimension in (None, "session_id"):
            return self._by_mixes(query)
        return self._by(query, query.dimension)

    def _by(self, query: SpendQuery, dimension: str) -> list[Spend]:
        """Reads the cells of one dimension, and derives those that are not written."""

        def by(dimension: str) -> list[Spend]:
            cells = self._cells(query, dimension)
            return grouped(query, cells, lambda name: (name or None,))

        if dimension in ("agent", "model", "tool"):
            return by(dimension)
        everything = _by_step(by("agent"))  # Every call has one, if only no agent.
        if dimension == "project_id":
            steps = everything.values()
            return in_order(replace(step, name=query.project_id) for step in steps)
        found = by(dimension)
        for step in found:
            everything[step.since_ms] = everything[step.since_ms].minus(step)
        rest = [step for step in everything.values() if step.steps]
        return in_order([*found, *rest])

    def _by_mixes(self, query: SpendQuery) -> list[Spend]:
        """Reads cells of all names together."""
        names: dict[bytes, Names | None] = {}
        return grouped(query, self._taken(query, names), names.__getitem__)

    def _taken(
        self, query: SpendQuery, names: dict[bytes, Names | None]
    ) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
        """Yields the mixes that a query takes, and notes their names in its groups."""
        cells = self._raw_cells(query, MIX)
        while some := list(islice(cells, MIXES_AT_ONCE)):
            new = list({text for _, text, _ in some} - names.keys())
            mixes = Mix.unpack_all(new)
            names.update(zip(new, map(query.names_of, mixes), strict=True))
            for hour, text, sums in some:
                if names[text] is not None:  # The others are not unpacked.
                    yield hour, text, replies.amounts_from(sums)

    def _layers(self, query: SpendQuery) -> list[Spend]:
        """Reads the cells of layers, of which each hour has one."""
        return added_up(
            spend
            for _, _, value in self._raw_cells(query, LAYER)
            for spend in replies.layer_spends_from(value)
        )

    def _cells(
        self, query: SpendQuery, dimension: str
    ) -> Iterator[tuple[int, str, tuple[int, ...]]]:
        """Yields the hour, the name and the sums of each cell."""
        for hour, field, value in self._raw_cells(query, dimension):
            yield hour, field.decode(), replies.amounts_from(value)

    def _raw_cells(
        self, query: SpendQuery, dimension: str
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """Yields the hour, the name and the sums of each cell, as they are kept."""
        prefix = keys.project_prefix(query.project_id)
        size = MIX_HOURS_MAX if dimension == MIX else HOURS_MAX
        for start in range(0, len(query.hours), size):
            hours = query.hours[start : start + size]
            commands = [
                ("HGETALL", keys.rollup(prefix, hour, dimension)) for hour in hours
            ]
            answers = self._client.query(prefix, commands)
            for hour, found in zip(hours, answers, strict=True):
                for field, value in zip(found[::2], found[1::2], strict=True):
                    yield hour, field, value

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
        # Most events of the stream are of other sessions. Those without the name, in
        # either way to write it, are not read: that takes a tenth of the time.
        names = [
            json.dumps(session_id, ensure_ascii=is_ascii).encode()
            for is_ascii in (False, True)
        ]
        found: list[Event] = []
        for text in self._newest_first(project_id):
            if any(name in text for name in names):
                event = replies.event_from(text)
                if event.attribution.session_id == session_id:
                    found.append(event)
                    if len(found) == limit:
                        break
        return found[::-1]

    def timeline(
        self, *, project_id: str, since_ms: int, until_ms: int
    ) -> Iterator[Event]:
        """Yields the events of a project in a span, as they were booked."""
        for page in self._oldest_first(project_id, since_ms=since_ms):
            for event in page:
                if since_ms <= event.time_ms <= until_ms:
                    yield event

    def event_pages(
        self,
        *,
        project_id: str,
        since_ms: int = 0,
        until_ms: int = FOREVER_MS,
        session_id: str | None = None,
    ) -> Iterator[Sequence[FlatEvent]]:
        """Yields events as flat rows, as they were booked, page by page."""
        for page in self._oldest_first(project_id, since_ms=since_ms):
            found = [
                flat_event(event)
                for event in page
                if since_ms <= event.time_ms <= until_ms
                and session_id in (None, event.attribution.session_id)
            ]
            if found:
                yield found

    def _oldest_first(self, project_id: str, *, since_ms: int) -> Iterator[list[Event]]:
        """Yields pages of the stream, from shortly before an instant."""
        prefix = keys.project_prefix(project_id)
        # An entry is numbered by the server's clock when it is booked, which is not
        # before the call ended but for the difference of two clocks.
        start = f"{max(0, since_ms - CLOCKS_APART_MS_MAX)}".encode()
        while True:
            command = ("XRANGE", keys.events(prefix), start, "+", "COUNT", PAGE)
            [entries] = self._client.query(prefix, [command])
            yield [replies.event_from(fields[1]) for _, fields in entries]
            if len(entries) < PAGE:
                return
            start = b"(" + entries[-1][0]

    def _newest_first(self, project_id: str) -> Iterator[bytes]:
        """Yields the events of the stream as they are kept."""
        prefix = keys.project_prefix(project_id)
        last = b"+"
        while True:
            command = ("XREVRANGE", keys.events(prefix), last, "-", "COUNT", PAGE)
            [entries] = self._client.query(prefix, [command])
            for entry_id, fields in entries:
                yield fields[1]
                last = b"(" + entry_id
            if len(entries) < PAGE:
                return


def _by_step(spends: Iterable[Spend]) -> dict[int | None, Spend]:
    """Adds up what was spent in each step, under no name."""
    sums: dict[int | None, Spend] = {}
    for spend in spends:
        known = sums.get(spend.since_ms) or Spend(name=None, since_ms=spend.since_ms)
        sums[spend.since_ms] = known.plus(spend)
    return sums


def _session_key(project_id: str, session_id: str) -> str:
    who = Attribution(project_id=project_id, session_id=session_id)
    return account_key(who, per=("session_id",), every=Window.SESSION, now_ms=0)
