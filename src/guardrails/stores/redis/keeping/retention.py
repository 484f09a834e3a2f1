"""Retention in Redis: deletes what is old, and what belongs to one customer.

Agents go on meanwhile, and what is kept expires by itself. So everything is looked at
in pages, and changed by small scripts that do all that belongs together: what is broken
off is completed by doing it again.
"""

import json
from collections.abc import Iterator

from guardrails.core.calls import CallKind
from guardrails.core.reporting.rollups import (
    HOUR_MS,
    LAYER,
    MIX,
    ROLLUP_DIMENSIONS,
    Mix,
)
from guardrails.core.retention import Forgotten, Pruned
from guardrails.stores.redis.codec import keys, replies
from guardrails.stores.redis.connection.client import Client
from guardrails.stores.redis.keeping.forgetting import Forgetting
from guardrails.stores.redis.keeping.rewriting import Keeping
from guardrails.stores.redis.keeping.walks import entries_in, fields_in, keys_in
from guardrails.stores.rows import EVENT_COLUMNS

__all__ = ["RedisRetention"]

_TIME = EVENT_COLUMNS.index("time_ms")


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
        prefix = keys.project_prefix(project_id)
        pruned = Pruned()
        if events_before_ms is not None:
            prune_events = self._count_events if is_dry_run else self._delete_events
            pruned.events = prune_events(prefix, events_before_ms)
        if rollups_before_ms is not None:
            Keeping(self._client, prefix).add_notes()
            for hour in self._hours(prefix, rollups_before_ms // HOUR_MS):
                pruned.rollups += self._count_cells(prefix, hour)
                if not is_dry_run:
                    self._delete_cells(prefix, hour)
        return pruned

    def forget(
        self, *, project_id: str, customer_id: str, now_ms: int, is_dry_run: bool
    ) -> Forgotten:
        """Makes what was recorded of a customer anonymous, as the port says."""
        keeping = Keeping(self._client, keys.project_prefix(project_id))
        keeping.add_notes()
        forgetting = Forgetting(keeping, customer_id, now_ms=now_ms)
        found = forgetting.found()
        return found.counts() if is_dry_run else forgetting.forget(found)

    # --- events -------------------------------------------------------------

    def _count_events(self, prefix: str, before_ms: int) -> int:
        return sum(len(ids) for ids in self._old_events(prefix, before_ms))

    def _delete_events(self, prefix: str, before_ms: int) -> int:
        count = 0
        with Keeping(self._client, prefix).turn() as turn:
            for ids in self._old_events(prefix, before_ms):
                turn.delete(ids)
                count += len(ids)
        return count

    def _old_events(self, prefix: str, before_ms: int) -> Iterator[list[bytes]]:
        """Yields ids. A journal books late, so that old ones are anywhere."""
        for page in entries_in(self._client, prefix, keys.events(prefix)):
            ids = [one for one, text in page if json.loads(text)[_TIME] < before_ms]
            if ids:
                yield ids

    # --- sums ---------------------------------------------------------------

    def _hours(self, prefix: str, first: int) -> list[int]:
        """Returns the hours before one of which there is anything."""
        hours: set[int] = set()
        for page in keys_in(self._client, prefix, "hour/*"):
            hours |= {int(name.split("/")[1]) for name in page}
        return sorted(hour for hour in hours if hour < first)

    def _count_cells(self, prefix: str, hour: int) -> int:
        """Counts the cells of an hour: written ones, and those that are derived."""
        names = {dimension: set[object]() for dimension in ROLLUP_DIMENSIONS}
        mixes: set[bytes] = set()
        for page in fields_in(self._client, prefix, keys.rollup(prefix, hour, MIX)):
            mixes |= {text for text, _ in page}
        for mix in Mix.unpack_all(mixes):
            tool = f"{mix.server}/{mix.tool}" if mix.server else mix.tool
            values = {**mix._asdict(), "tool": tool}
            del values["model" if mix.kind == CallKind.TOOL else "tool"]
            for dimension in ROLLUP_DIMENSIONS:
                if dimension in values:
                    names[dimension].add(values[dimension])
        names["project_id"] = {prefix} if mixes else set()
        layers = keys.rollup(prefix, hour, LAYER)
        [text] = self._client.query(prefix, [("HGET", layers, "")])
        parts = replies.layer_spends_from(text or b"")
        return len(mixes) + len(parts) + sum(map(len, names.values()))

    def _delete_cells(self, prefix: str, hour: int) -> None:
        dimensions = (*ROLLUP_DIMENSIONS, MIX, LAYER)
        every = [keys.rollup(prefix, hour, dimension) for dimension in dimensions]
        self._client.query(prefix, [("UNLINK", *every)])
