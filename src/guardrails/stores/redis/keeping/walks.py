"""Walks: everything of a kind in a project, page by page, while agents go on."""

from collections.abc import Iterator, Sequence

from guardrails.errors import StoreUnavailable
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.codec.wire import Argument
from guardrails.stores.redis.connection.client import Client

__all__ = ["PAGE", "entries_in", "fields_in", "keys_in"]

PAGE = 500
"""What is looked at in one step: less than a millisecond of a server's time."""

EVENTS_AT_ONCE = 200
"""The same of events, which are longer: copied by a script in a millisecond."""

BEGUN_AGAIN_MAX = 10
"""How often another server may take over during one walk."""

Pairs = Sequence[tuple[bytes, bytes]]


def keys_in(client: Client, prefix: str, pattern: str) -> Iterator[list[str]]:
    """Yields the keys of a project that a pattern matches, without its prefix.

    One may come twice. None is missing that was there all the time.
    """
    for found in _walk(client, prefix, ("SCAN",), ("MATCH", f"{prefix}{pattern}")):
        yield [name.decode().removeprefix(prefix) for name in found]


def fields_in(client: Client, prefix: str, key: str) -> Iterator[Pairs]:
    """Yields the fields of a hash and their values, as `keys_in` yields keys."""
    for found in _walk(client, prefix, ("HSCAN", key), ()):
        yield list(zip(found[::2], found[1::2], strict=True))


def entries_in(
    client: Client, prefix: str, key: str, *, after: bytes = b""
) -> Iterator[Pairs]:
    """Yields the ids and the texts of a stream's entries, oldest first."""
    last = after
    while True:
        start = b"(" + last if last else b"-"
        [found] = client.query(
            prefix, [("XRANGE", key, start, "+", "COUNT", EVENTS_AT_ONCE)]
        )
        if found:
            yield [(entry_id, fields[1]) for entry_id, fields in found]
        if len(found) < EVENTS_AT_ONCE:
            return
        last = found[-1][0]


def _walk(
    client: Client, prefix: str, head: Sequence[Argument], tail: Sequence[Argument]
) -> Iterator[Sequence[bytes]]:
    """Follows a cursor, which only the run of a server knows that has given it.

    When another one answers it begins again: after a failover, a restart, or when the
    project has moved to another node.
    """
    cursor, known, begun_again = 0, None, 0
    while True:
        # The first command has a key, so that a cluster says where the project is.
        _, (after, found), info = client.query(
            prefix,
            [
                ("GET", keys.version(prefix)),
                (*head, cursor, *tail, "COUNT", PAGE),
                ("INFO", "server"),
            ],
        )
        run = info.partition(b"run_id:")[2][:40]
        if known not in (None, run):
            cursor, known, begun_again = 0, None, begun_again + 1
            if begun_again > BEGUN_AGAIN_MAX:
                raise StoreUnavailable(
                    "store: redis: the server changes faster than it is read. Try "
                    "again when it is at rest."
                )
            continue
        known = run
        yield found
        cursor = int(after)
        if cursor == 0:
            return
