"""Books: reads the holds and accounts of a server, and finds what does not add up.

Calls go on meanwhile. So a first pass compares what was read one after the
other, and whatever does not match is read again together with its project's
holds, at one instant: only that counts.
"""

import shlex
import struct
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardrails.core.windows import DAY_MS
from guardrails.stores.balance import Held, HeldBy, Imbalance, held_of, imbalance_of
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.codec.layouts import DIGESTS_BYTES, NUMBERS, SEPARATOR
from guardrails.stores.redis.health.answers import Refused
from guardrails.stores.redis.health.node import Node

__all__ = ["Books", "mending", "read_books"]

PAGE = 1_000
"""Keys asked for in one round trip."""

KEYS_MAX = 2_000_000
"""Keys that are looked at: half a minute. A server with more says so."""

TOGETHER_MAX = 500
"""Accounts read at one instant: well below a millisecond of the server's time."""

MEND_WIDTH = 56
"""Of the lines of a script that is shown."""

ACCOUNT_DAYS_MIN = 28
"""A session's account lives 30 days after its last active day, so that a hold
that was lost for good may outlive it. That is no damage."""

_NO_ACCOUNTS = (
    *("events", "holds", "due", "lost", "version"),
    *("stops", "audit", "outbox", "notes"),
)
_NO_ACCOUNTS_BELOW = ("events/", "finished/", "hour/", "traces/", "outbox/")


@dataclass(slots=True)
class Books:
    """What was read of one server."""

    accounts: int = 0
    holds: int = 0
    imbalances: list[Imbalance] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Keys whose content cannot be read."""
    is_cut: bool = False
    """Whether there are more keys than are looked at."""


def read_books(
    node: Node, *, now_ms: int, prefixes: Sequence[str] | None = None
) -> Books | Refused:
    """Reads what a server holds of the ledger.

    Args:
        node: The server.
        now_ms: The time.
        prefixes: Of the projects; `None` finds them, and every account. Else
            only accounts with a hold are looked at.

    Raises:
        redis.RedisError: If the server does not answer.
    """
    books = Books()
    found = prefixes
    if found is None:
        names = _scanned(node, books, match=keys.version(f"{keys.PREFIX}{{*}}:"))
        if isinstance(names, Refused):
            return names
        found = sorted({name.removesuffix("version") for name in names})
    suspects: dict[str, set[str]] = {prefix: set() for prefix in found}
    sums: dict[str, Held] = {}
    for prefix in found:
        reply = _together(node, prefix, [])
        if isinstance(reply, Refused):
            return reply
        holds = _holds(prefix, reply, books)
        books.holds += len(holds)
        sums |= held_of(holds)
    for account in sums:
        suspects[_prefix_of(account)].add(account)
    if prefixes is None:
        refused = _compare_all(node, books, sums, suspects)
        if refused is not None:
            return refused
    else:
        books.accounts = len(sums)
    return _compare_suspects(node, books, suspects, now_ms=now_ms) or books


def mending(cli: str, found: Imbalance) -> str:
    """Writes the command that adds what an account misses, also under traffic."""
    missing = found.missing
    amounts = (
        missing.held_nano_usd,
        missing.unconfirmed_nano_usd,
        missing.held_tokens,
        missing.unconfirmed_tokens,
    )
    # In lines: a shell keeps them apart inside the quotes, and Lua does not mind.
    script = "\n".join(["", *textwrap.wrap(_MEND, MEND_WIDTH, break_on_hyphens=False)])
    words = ["1", found.account, *map(str, amounts)]
    return f"{cli} EVAL {shlex.quote(script)} \\\n  {shlex.join(words)}"


_LAYOUT = "<i8i8i8i8i8i8i4i4i4"
_MEND = (
    f'local f, a = "{_LAYOUT}", KEYS[1] '
    'local n = {struct.unpack(f, redis.call("HGET", a, "n"))} '
    "n[2] = n[2] + ARGV[1] n[3] = n[3] + ARGV[2] "
    "n[5] = n[5] + ARGV[3] n[6] = n[6] + ARGV[4] "
    'return redis.call("HSET", a, "n", struct.pack(f, unpack(n, 1, 9)))'
)
"""Adds to held and unconfirmed money, then tokens. `layouts.NUMBERS`, in Lua."""


def _compare_all(
    node: Node, books: Books, sums: dict[str, Held], suspects: dict[str, set[str]]
) -> Refused | None:
    """Reads every account, and takes from the suspects those that match."""
    names = _scanned(node, books, match=f"{keys.PREFIX}{{*}}:*")
    if isinstance(names, Refused):
        return names
    page: list[str] = []
    for name in names:
        if _is_account(name):
            page.append(name)
        if len(page) == PAGE:
            _compare_page(node, books, page, sums, suspects)
            page = []
    _compare_page(node, books, page, sums, suspects)
    return None


def _compare_page(
    node: Node,
    books: Books,
    page: Sequence[str],
    sums: dict[str, Held],
    suspects: dict[str, set[str]],
) -> None:
    if not page:
        return
    replies = node.ask_all([("HGET", name, "n") for name in page])
    for name, reply in zip(page, replies, strict=True):
        if isinstance(reply, bytes):
            books.accounts += 1
            is_right = _booked(reply) == sums.get(name, Held())
            named = suspects.setdefault(_prefix_of(name), set())
            (named.discard if is_right else named.add)(name)


def _compare_suspects(
    node: Node, books: Books, suspects: dict[str, set[str]], *, now_ms: int
) -> Refused | None:
    """Reads what did not match again, with the holds and at one instant."""
    for prefix, accounts in suspects.items():
        names = sorted(accounts)
        for start in range(0, len(names), TOGETHER_MAX):
            page = names[start : start + TOGETHER_MAX]
            reply = _together(node, prefix, page)
            if isinstance(reply, Refused):
                return reply
            holds = _holds(prefix, reply, None)
            oldest_ms = now_ms - ACCOUNT_DAYS_MIN * DAY_MS
            recent = [hold for hold in holds if hold.expires_at_ms >= oldest_ms]
            sums, recent_sums = held_of(holds), held_of(recent)
            for account, numbers in zip(page, reply[2], strict=True):
                if not numbers and account not in recent_sums:
                    continue
                booked = _booked(numbers) if numbers else None
                if numbers and booked is None:
                    books.damaged.append(account)
                    continue
                expected = sums.get(account, Held())
                found = imbalance_of(account, booked=booked, holds=expected)
                if found is not None:
                    books.imbalances.append(found)
    return None


def _together(node: Node, prefix: str, accounts: Sequence[str]) -> Any:
    return node.run("balance", [keys.holds(prefix), keys.lost(prefix), *accounts])


def _holds(prefix: str, reply: Any, books: Books | None) -> list[HeldBy]:
    """Reads the holds of a reply; what cannot be read is noted in the books."""
    found: list[HeldBy] = []
    for texts, name, is_open in (
        (reply[0], keys.holds(prefix), True),
        (reply[1], keys.lost(prefix), False),
    ):
        for text in texts:
            try:
                found.append(_hold(text, is_open=is_open))
            except ValueError:
                if books is not None:
                    books.damaged.append(name)
    return found


def _hold(text: bytes, *, is_open: bool) -> HeldBy:
    _, cost, tokens, expiry, rest = text.split(SEPARATOR.encode(), 4)
    amounts = (
        Held(held_nano_usd=int(cost), held_tokens=int(tokens))
        if is_open
        else Held(unconfirmed_nano_usd=int(cost), unconfirmed_tokens=int(tokens))
    )
    accounts = tuple(rest[DIGESTS_BYTES:].decode().split("\n"))
    return HeldBy(accounts=accounts, amounts=amounts, expires_at_ms=int(expiry))


def _booked(numbers: bytes) -> Held | None:
    """Reads what an account holds; `None` if it is no account's row."""
    try:
        _, held, unconfirmed, _, held_tokens, unconfirmed_tokens, *_ = NUMBERS.unpack(
            numbers
        )
    except struct.error:
        return None
    return Held(
        held_nano_usd=held,
        unconfirmed_nano_usd=unconfirmed,
        held_tokens=held_tokens,
        unconfirmed_tokens=unconfirmed_tokens,
    )


def _scanned(node: Node, books: Books, *, match: str) -> Iterator[str] | Refused:
    """Finds keys. One may be found twice."""
    first = node.ask("SCAN", 0, "MATCH", match, "COUNT", PAGE)
    return first if isinstance(first, Refused) else _pages(node, books, match, first)


def _pages(node: Node, books: Books, match: str, reply: Any) -> Iterator[str]:
    for _ in range(KEYS_MAX // PAGE):
        cursor, names = reply
        for name in names:
            yield name.decode(errors="replace")
        if int(cursor) == 0:
            return
        reply = node.ask("SCAN", int(cursor), "MATCH", match, "COUNT", PAGE)
        if isinstance(reply, Refused):
            break
    books.is_cut = True


def _is_account(name: str) -> bool:
    rest = name.partition("}:")[2]
    return rest not in _NO_ACCOUNTS and not rest.startswith(_NO_ACCOUNTS_BELOW)


def _prefix_of(name: str) -> str:
    return f"{name.partition('}:')[0]}}}:"
