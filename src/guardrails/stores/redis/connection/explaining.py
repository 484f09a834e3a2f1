"""Explaining: says in words what is wrong with a server, and how to mend it. Pure."""

import re

from guardrails.stores.redis.connection.topology import SENTINELS_REFUSE, masked

__all__ = ["explain", "missing_right"]

_NO_SENTINEL = "It is no Sentinel: name their hosts and ports, or use redis://."

_FIXES: tuple[tuple[str, str], ...] = (
    (
        "DENIED",
        (
            "It is in protected mode, and lets only its own machine in: give it a "
            "password (requirepass, or users)."
        ),
    ),
    # redis-py has a class for most codes, and takes the code out of the text.
    ("OutOfMemoryError", "Raise maxmemory; keep maxmemory-policy noeviction."),
    ("ReadOnlyError", "It is a replica: name the master, or use redis+sentinel://."),
    (
        SENTINELS_REFUSE,
        (
            "They have a password of their own: add ?sentinel_password=... to the URL, "
            "and sentinel_username if they have users."
        ),
    ),
    (
        "MasterNotFoundError",
        (
            "Does a Sentinel answer (by TLS: rediss+sentinel://), and know a master of "
            "this name that is up?"
        ),
    ),
    ("SlowConnection", "It is far away or busy; the next call need not connect."),
    ("AuthenticationError", "User or password are wrong: redis://user:password@host."),
    ("NoPermissionError", "The user lacks a right: see the ACL in examples/redis/."),
    ("ClusterCrossSlotError", "Use redis+cluster:// for a cluster."),
    ("ClusterDownError", "The cluster misses slots: look at CLUSTER INFO."),
    ("BusyLoadingError", "It is reading its data from disk; it will be back."),
    ("MISCONF", "It cannot write to its disk: free some space, then see its log."),
    ("WRONGTYPE", "A key of ours holds something else: use a database of its own."),
    ("NOREPLICAS", "Too few replicas are connected (min-replicas-to-write)."),
    ("TryAgainError", "A slot of the cluster is being moved; it will be back."),
    ("MasterDownError", "It is a replica whose master is down; see its log."),
    ("max number of clients", "Raise maxclients, or see CLIENT LIST for who has them."),
    ("DB index is out of range", "Use a database that it has: /0 in the URL."),
    ("SELECT is not allowed", "A cluster has database 0 only: use redis+cluster://."),
    ("This instance has cluster support disabled", "It is no cluster: use redis://."),
    ("unknown command 'SENTINEL'", _NO_SENTINEL),
    ("unknown command `SENTINEL`", _NO_SENTINEL),  # As Redis 6.2 writes it.
    (
        "unknown command",
        "It was renamed, is missing, or this is a Sentinel: see examples/redis/.",
    ),
    ("BUSY", "A script of somebody blocks it: SCRIPT KILL ends one."),
)


_NO_KEY = "can't access at least one of the keys"
_IN_SCRIPTS = {
    "ACL failure": "NoPermissionError",
    "can't run this command": "NoPermissionError",
    _NO_KEY: "NoPermissionError",
    "access a non local key": "TryAgainError",
    "command while the cluster is down": "ClusterDownError",
}
"""What scripts meet, which every version words differently, and what that is."""
_REFUSED_COMMAND = re.compile(r"permissions to run the '([a-z]+(?:\|[a-z]+)?)' command")
_CLOSED_WORDS = ("closed", "reset", "Reset", "pipe", "Pipe", "EOF", "SSL")
_UNVERIFIED = re.compile(r"certificate verify failed: (.+?)\.?(?: \(_ssl|$)")


def explain(url: str, error: BaseException) -> str:
    """Says what is wrong with the server, and how to mend it."""
    fix = "Is it running, and reachable from here?" + _advice(url, str(error))
    reason = type(error).__name__
    for words, kind in _IN_SCRIPTS.items():
        reason = kind if words in str(error) else reason
    if (found := _UNVERIFIED.search(str(error))) is not None:
        # What OpenSSL says names the host at most.
        reason, fix = found[1], "See its certificate, and ssl_ca_certs in the URL."
    for word, how in _FIXES:
        # Only the code of a refusal is shown: its text may hold arguments.
        if word == reason or str(error).startswith(word):
            reason, fix = word, how
            break
    if reason == "NoPermissionError":
        lacks = missing_right(str(error))
        if lacks is not None:
            fix = f"The user lacks the right {lacks}: see the ACL in examples/redis/."
    return f"store: redis {masked(url)!r}: {reason}. {fix}"


def missing_right(text: str) -> str | None:
    """Returns the rule of an access list that is missing, where the server says it."""
    if (found := _REFUSED_COMMAND.search(text)) is not None:
        return f"+{found[1]}"
    return "~gr:*" if "to access" in text or _NO_KEY in text else None


def _advice(url: str, text: str) -> str:
    """Says what else may be wrong where one side speaks TLS and is not understood."""
    is_tls = url.startswith("rediss")
    is_closed = any(word in text for word in _CLOSED_WORDS)
    if is_tls and text.startswith("Timeout connecting"):
        return " If it does not speak TLS, use redis://."
    if is_tls and is_closed and "ssl_certfile" not in url:
        return " If it asks for a certificate, give ssl_certfile and ssl_keyfile."
    if is_closed and url.startswith("redis"):
        return " If it wants TLS, use rediss://."
    return ""
