"""The history in Redis: sums and events. Only reads."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from guardrails.core.accounts import Account
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.lines import account_key
from guardrails.core.reporting.flat_events import FlatEvent, flat_event
from guardrails.core.reporting.groups import Every, Names, SpendQuery, grouped, in_order
from guardrails.core.reporting.rollups import (
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
from guardrails.stores.redis.codec import keys, replies
from guardrails.stores.redis.codec.scripts import Script
from guardrails.stores.redis.codec.wire import Fragment
from guardrails.stores.redis.connection.client import Client

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

_Cell = tuple[int, bytes, bytes]
"""An hour, a name and sums, as they are kept."""


class RedisHistory:
    """Reads sums and events."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sums = Script("sums")

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
            return in_order(self._by_layers(query))
        if query.dimension in (None, "session_id"):
            return self._by_mixes(query)
        return self._by(query, query.dimension)

    def _by(self, query: SpendQuery, dimension: str) -> list[Spend]:
        """Reads the cells of one dimension, and derives those that are not written."""
        if dimension in ("agent", "model", "tool"):
            return self._grouped(query, self._raw_cells(query, dimension))
        # Every call has an agent, if only no name of one.
        cells = self._cells_with(query, dimension, "agent")
        everything = _by_step(self._grouped(query, cells["agent"]))
        if dimension == "project_id":
            steps = everything.values()
            return in_order(replace(step, name=query.project_id) for step in steps)
        found = self._grouped(query, cells[dimension])
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

    def _by_layers(self, query: SpendQuery) -> list[Spend]:
        """Reads the cells of layers, of which each hour has one."""
        cells = self._cells_with(query, LAYER, "model")
        layers = added_up(
            spend
            for _, _, value in cells[LAYER]
            for spend in replies.layer_spends_from(value)
        )
        return by_layer(layers, self._grouped(query, cells["model"]))

    def _grouped(self, query: SpendQuery, cells: Iterable[_Cell]) -> list[Spend]:
        """Sums cells by the names that they have."""
        read = (
            (hour, field.decode(), replies.amounts_from(value))
            for hour, field, value in cells
        )
        return grouped(query, read, lambda name: (name or None,))

    def _cells_with(
        self, query: SpendQuery, dimension: str, whole: str
    ) -> dict[str, list[_Cell]]:
        """Reads the cells of a dimension together with those of a whole.

        Apart, what is booked in between would be in the one and not in the other.
        """
        cells: dict[str, list[_Cell]] = {dimension: [], whole: []}
        for found, cell in self._read(query, dimension, whole):
            cells[found].append(cell)
        return cells

    def _raw_cells(self, query: SpendQuery, dimension: str) -> Iterator[_Cell]:
        """Yields the cells of a dimension. What is noted of a name comes apart."""
        return (cell for _, cell in self._read(query, dimension))

    def _read(self, query: SpendQuery, *dimensions: str) -> Iterator[tuple[str, _Cell]]:
        """Yields the cells of each hour, all its dimensions as of one instant."""
        prefix = keys.project_prefix(query.project_id)
        size = MIX_HOURS_MAX if MIX in dimensions else HOURS_MAX
        for start in range(0, len(query.hours), size):
            hours = query.hours[start : start + size]
            asked = [self._asked(prefix, hour, dimensions) for hour in hours]
            answers = self._client.call_all(self._sums, prefix, asked)
            for hour, (notes, *found) in zip(hours, answers, strict=True):
                for dimension, cells in zip(dimensions, found, strict=True):
                    for field, value in zip(cells[::2], cells[1::2], strict=True):
                        yield dimension, (hour, field, value)
                for dimension, field, value in replies.noted_cells(notes):
                    if dimension in dimensions:
                        yield dimension, (hour, field, value)

    def _asked(
        self, prefix: str, hour: int, dimensions: Sequence[str]
    ) -> tuple[Fragment, Fragment]:
        names = [keys.rollup(prefix, hour, dimension) for dimension in dimensions]
        return Fragment.of([keys.notes(prefix), *names]), Fragment.of([hour])

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
