"""The history in Redis: sums and events. Only reads."""

from collections.abc import Iterator, Sequence

from guardrails.core.accounts import Account
from guardrails.core.admission import account_key
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.rollups import HOUR_MS, ROLLUP_DIMENSIONS, Spend
from guardrails.core.windows import Window
from guardrails.stores.redis import keys, replies
from guardrails.stores.redis.client import Client

__all__ = ["RedisHistory"]

PAGE = 1_000
"""Events read at once: about 200 kB."""

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
        prefix = keys.project_prefix(project_id)
        # Every call has an agent, if only the nameless one; agents are few.
        dimension = "agent" if by == "project_id" else by
        sums: dict[str | None, Spend] = {}
        first, last = since_ms // HOUR_MS, max(since_ms, until_ms) // HOUR_MS
        for start in range(first, last + 1, HOURS_MAX):
            hours = range(start, min(start + HOURS_MAX, last + 1))
            commands = [
                ("HGETALL", keys.rollup(prefix, hour, dimension)) for hour in hours
            ]
            for found in self._client.query(prefix, commands):
                for field, value in zip(found[::2], found[1::2], strict=True):
                    name = project_id if by == "project_id" else field.decode() or None
                    spend = replies.spend_from(name, value)
                    known = sums.get(name)
                    sums[name] = spend if known is None else known.plus(spend)
        return sorted(
            sums.values(), key=lambda s: (-s.total_nano_usd, -s.steps, s.name or "")
        )

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


def _session_key(project_id: str, session_id: str) -> str:
    who = Attribution(project_id=project_id, session_id=session_id)
    return account_key(who, per=("session_id",), every=Window.SESSION, now_ms=0)
