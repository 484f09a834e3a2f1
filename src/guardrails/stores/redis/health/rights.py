"""Rights: the commands that a user of the server needs, and what for. Pure.

The rules are valid for Redis 6.2 too, which knows no selectors and takes a
subcommand away from nobody: so all is taken first, and then given one by one.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

__all__ = [
    "AGENTS",
    "ARGUMENTS",
    "DIAGNOSIS",
    "KEYS",
    "LEDGER",
    "RETENTION",
    "SCRIPTS",
    "lacking",
    "may_change",
    "rules",
]

AGENTS = "guardrails"
"""The user of agents, by the access list of examples/redis."""

KEYS = "~gr:*"
"""The keys of ours."""

LEDGER: Mapping[str, str] = {
    "evalsha": "runs the ledger's scripts",
    "script|load": "brings a script to a server that does not have it",
    "get": "reads the version of a project, the fingerprint key, and what repeats",
    "set": "makes the fingerprint key and the first version; notes what alerts repeat",
    "incr": "counts the version of a project up",
    "hget": "reads holds, accounts, finished calls and sums",
    "hmget": "reads accounts, and what people have stopped",
    "hgetall": "reads an account, the sums of an hour or all stops as a whole",
    "hset": "writes holds, accounts, finished calls and sums",
    "hdel": "removes a hold that has ended",
    "hlen": "tells a new key, which needs an expiry, and counts what is held",
    "hvals": "reads all holds, for the balance",
    "expire": "lets sessions, days, months, finished calls, sums and stops end",
    "persist": "keeps the account of a total raised first, and stops without an end",
    "del": "forgets the tool calls of a session that goes on after a loop",
    "lrange": "reads the last tool calls of a session, what people did, and notes",
    "rpush": "remembers a tool call, what people did, and what a call came to",
    "ltrim": "forgets the oldest of these",
    "zadd": "notes when a hold expires, and when an alert is to be sent",
    "zrem": "forgets when a hold would have expired, and what was sent",
    "zrangebyscore": "finds expired holds, and alerts that are to be sent",
    "zrevrange": "reads the last alerts",
    "xadd": "writes an event",
    "xrange": "reads the events of a span",
    "xrevrange": "reads events, newest first",
    "select": "uses another database than 0",
    "ping": "asks whether the server is there",
    "info": "sees which server it is, and that it was restarted",
    "time": "compares clocks, and begins a version lower than the last one",
    "acl|whoami": "knows its own name",
    "wait": "waits until a replica has what a person stopped",
    "asking": "follows a slot that is being moved, in a cluster",
    "cluster|slots": "finds the masters of a cluster",
}
"""What guards and reports need."""

SCRIPTS = ("script|load", "evalsha")
"""The commands of `LEDGER` that run scripts."""

ARGUMENTS: Mapping[str, int] = {
    **dict.fromkeys(("get", "incr", "hgetall", "hlen", "hvals", "persist", "del"), 0),
    **dict.fromkeys(("set", "hget", "hmget", "hdel", "expire"), 1),
    **dict.fromkeys(("rpush", "zrem"), 1),
    **dict.fromkeys(("hset", "lrange", "ltrim", "zadd", "zrangebyscore"), 2),
    **dict.fromkeys(("zrevrange", "xrange", "xrevrange"), 2),
    "xadd": 3,
    "ping": 0,
}
"""The commands of `LEDGER` without which it is not kept: how many arguments each takes
after the key, at least. The last one takes any word, and asyncio sends it with all."""

_READING = (
    *("evalsha", "script|load", "get", "hget", "hvals", "select"),
    *("ping", "info", "time", "acl|whoami", "cluster|slots"),
)

DIAGNOSIS: Mapping[str, str] = {
    **{name: LEDGER[name] for name in _READING},
    "scan": "finds every project and account; shows the names of all keys",
    "config|get": "reads durability; shows the passwords of the configuration",
    "acl|getuser": "sees the rights of a user",
}
"""What `guardrails doctor` needs to answer everything. It changes nothing."""

_CHANGING = (
    *("evalsha", "script|load", "get", "set", "incr", "hget", "hmget", "hgetall"),
    *("hset", "hdel", "hlen", "expire", "persist", "lrange", "ltrim", "zrem"),
    *(
        "xadd",
        "xrange",
        "xrevrange",
        "select",
        "ping",
        "info",
        "acl|whoami",
        "asking",
        "cluster|slots",
    ),
)

RETENTION: Mapping[str, str] = {
    **{name: LEDGER[name] for name in _CHANGING},
    "scan": DIAGNOSIS["scan"],
    "hscan": "looks through the sums of an hour, and through alerts",
    "xdel": "deletes old events",
    "rename": "puts the stream of events in place that has no names any more",
    "unlink": "deletes old sums, and sessions, without blocking the server",
}
"""What `guardrails prune` and `guardrails forget` need. Agents need none of it."""


def rules(commands: Mapping[str, str]) -> str:
    """Writes rules of an access list: all keys of ours, and these commands."""
    return " ".join((KEYS, "-@all", *(f"+{command}" for command in commands)))


def lacking(
    commands: str, patterns: Sequence[str], *, keys: Sequence[str]
) -> tuple[str, ...] | None:
    """Returns the rules that agents need and a user has not.

    Args:
        commands: The rules of its commands, as the server says them.
        patterns: The keys that it may reach.
        keys: Some that agents have to reach.

    Returns:
        None if the rules name categories: only the server knows what is in them.
    """
    is_all, said = False, dict[str, bool]()
    for rule in commands.lower().split():
        is_given, name = rule[0] == "+", rule[1:]
        if name == "@all":
            is_all, said = is_given, {}
        elif name.startswith("@"):
            return None
        else:
            said[name] = is_given
    missing = [
        f"+{name}"
        for name in (*SCRIPTS, *ARGUMENTS)
        if not said.get(name, said.get(name.partition("|")[0], is_all))
    ]
    if not all(any(fnmatchcase(key, one) for one in patterns) for key in keys):
        missing.insert(0, KEYS)
    return tuple(missing)


def may_change(lacks: Sequence[str]) -> bool:
    """Whether a user has any right by which agents change the ledger."""
    changing = {f"+{name}" for name in ARGUMENTS if name not in DIAGNOSIS}
    return not changing.issubset(lacks)
