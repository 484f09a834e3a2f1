"""Judgement: what the answers of servers mean for a ledger that is kept there. Pure."""

import shlex
from collections.abc import Callable, Sequence

from guardrails.stores.diagnosis import Check, Status, worst_of
from guardrails.stores.redis.connection.topology import host_and_port
from guardrails.stores.redis.health.answers import (
    Answers,
    Refused,
    User,
    allowing,
    granting,
    lasting,
    setting,
    unknown,
)
from guardrails.stores.redis.health.losses import durability, replicas
from guardrails.stores.redis.health.rights import AGENTS, LEDGER, may_change, rules

__all__ = ["slots_check", "verdicts"]

REDIS_MIN = (6, 2)
VALKEY_MIN = (8, 0)

CLOCK_WARN_MS = 1_000
"""Holds live for minutes: a second changes nothing yet, and says that nobody
keeps the clocks."""
CLOCK_FAIL_MS = 60_000
"""Holds would expire while their calls run, and days turn at the wrong time."""

MEMORY_RATIO_MAX = 0.9
"""Of `maxmemory`. Above it a server that evicts nothing soon refuses writes."""

SLOTS = 16_384


def verdicts(servers: Sequence[Answers]) -> list[Check]:
    """Judges servers; each check is one for all of them, by the worst."""
    judges: Sequence[Callable[[Answers], Check]] = (
        _version,
        _role,
        _eviction,
        _memory,
        durability,
        replicas,
        _access,
        _clock,
    )
    return [_merged([judge(server) for server in servers], servers) for judge in judges]


def slots_check(covered: int, *, masters: int) -> Check:
    """Judges how much of a cluster is served."""
    text = f"{covered:,} of {SLOTS:,} slots are served by {masters} masters"
    if covered == SLOTS:
        return Check(name="cluster", status=Status.OK, text=text)
    return Check(
        name="cluster",
        status=Status.FAIL,
        text=f"{text}: projects in the others cannot be reached",
        commands=("redis-cli --cluster fix HOST:PORT",),
    )


def _merged(checks: Sequence[Check], servers: Sequence[Answers]) -> Check:
    """Says it once where servers agree, else which of them has the problem."""
    status = worst_of(checks)
    found = [
        (check, server)
        for check, server in zip(checks, servers, strict=True)
        if check.status is status
    ]
    first = found[0][0]
    if len(servers) == 1:
        return first
    texts = {check.text for check in checks}
    if len(texts) == 1:
        text = f"{first.text} (all {len(servers)} servers)"
    elif status is Status.OK:
        text = "; ".join(f"{server.name}: {check.text}" for check, server in found)
    else:
        names = ", ".join(server.name for _, server in found)
        text = f"{names}: {first.text}"
    commands = [command for check, _ in found for command in check.commands]
    return Check(
        name=first.name,
        status=status,
        text=text,
        commands=tuple(dict.fromkeys(commands)),
    )


# --- the server -------------------------------------------------------------


def _version(server: Answers) -> Check:
    if isinstance(server.info, Refused):
        return unknown("version", server.info, granting(server, server.info, "info"))
    product, least = "Redis", REDIS_MIN
    version = server.info.get("redis_version", "")
    if "valkey_version" in server.info:
        product, least = "Valkey", VALKEY_MIN
        version = server.info["valkey_version"]
    text = f"{product} {version}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if len(numbers) == 2 and numbers >= least:
        return Check(name="version", status=Status.OK, text=text)
    needed = ".".join(map(str, least))
    return Check(
        name="version",
        status=Status.FAIL,
        text=f"{text} is too old: {product} {needed} or newer is needed",
    )


def _role(server: Answers) -> Check:
    if isinstance(server.info, Refused):
        return unknown("role", server.info, granting(server, server.info, "info"))
    info = server.info
    if info.get("cluster_enabled") == "1" and server.kind != "cluster":
        return Check(
            name="role",
            status=Status.FAIL,
            text="a node of a cluster: most projects are elsewhere",
            commands=(f"export GUARDRAILS_STORE=redis+cluster://{server.name}",),
        )
    if info.get("role") == "slave":
        place = info.get("master_host", ""), info.get("master_port", "")
        master = host_and_port(*place)
        return Check(
            name="role",
            status=Status.FAIL,
            text="a replica, which refuses to write: name its master, or its Sentinels",
            commands=(f"export GUARDRAILS_STORE=redis://{master}/0",),
        )
    return Check(name="role", status=Status.OK, text="master")


def _eviction(server: Answers) -> Check:
    policy = setting(server, "maxmemory-policy", in_info="maxmemory_policy")
    if isinstance(policy, Refused):
        return unknown("eviction", policy, granting(server, policy, "info"))
    if policy == "noeviction":
        text = "maxmemory-policy noeviction"
        return Check(name="eviction", status=Status.OK, text=text)
    what = "keys that expire" if policy.startswith("volatile") else "any key"
    return Check(
        name="eviction",
        status=Status.FAIL,
        text=f"maxmemory-policy {policy}: a full server drops {what}, and a budget "
        "that was dropped starts again at 0, silently",
        commands=lasting(server, "maxmemory-policy noeviction"),
    )


def _memory(server: Answers) -> Check:
    if isinstance(server.info, Refused):
        return unknown("memory", server.info, granting(server, server.info, "info"))
    used = int(server.info.get("used_memory", "0"))
    most = int(server.info.get("maxmemory", "0"))
    if not most:
        text = f"{_megabytes(used)} used, no maxmemory"
        return Check(name="memory", status=Status.OK, text=text)
    text = f"{_megabytes(used)} of {_megabytes(most)} used"
    if used < most * MEMORY_RATIO_MAX:
        return Check(name="memory", status=Status.OK, text=text)
    return Check(
        name="memory",
        status=Status.WARN,
        text=f"{text}: once it is full, calls are refused or not counted",
        commands=lasting(server, f"maxmemory {most * 2}"),
    )


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:,.1f} MB"


# --- who asks, and when -----------------------------------------------------


def _access(server: Answers) -> Check:
    name = "access"
    if server.missing:
        names = " ".join(server.missing).upper()
        return Check(
            name=name,
            status=Status.FAIL,
            text=f"this server does not know {names}, which agents need: see "
            "rename-command in its configuration",
        )
    if isinstance(server.user, Refused):
        return unknown(name, server.user)
    user, commands = server.user.name, server.user.commands
    is_limited = commands is not None and not commands.startswith("+@all")
    if user != "default" or is_limited or server.user.lacks:
        return _rights(server, server.user)
    return Check(
        name=name,
        status=Status.WARN,
        text="user default, who may do all: its password also opens FLUSHALL, CONFIG "
        "and the keys of others",
        commands=(
            f"{server.cli} ACL SETUSER guardrails on '>PASSWORD' "
            + shlex.join(rules(LEDGER).split()),
        ),
    )


def _rights(server: Answers, user: User) -> Check:
    """Judges whether a user, or that of agents, has what agents need."""
    name, text = user.name, f"user {user.name}"
    lacks = user.lacks
    if lacks and not may_change(lacks):
        name, lacks = AGENTS, user.agents_lack
        text = f"{text}, who may only look; user {AGENTS}"
    if lacks is None:
        text = f"{text}: whether agents may do all they need as it is not known here"
        return Check(name="access", status=Status.UNKNOWN, text=text)
    if not lacks:
        return Check(name="access", status=Status.OK, text=f"{text} has all rights")
    return Check(
        name="access",
        status=Status.FAIL,
        text=f"{text} lacks {' '.join(lacks)}: calls of agents are refused or not "
        "counted",
        commands=(allowing(server, name, lacks),),
    )


def _clock(server: Answers) -> Check:
    name, ahead = "clock", server.clock_ahead_ms
    if isinstance(ahead, Refused):
        return unknown(name, ahead, granting(server, ahead, "time"))
    if abs(ahead) <= CLOCK_WARN_MS:
        text = f"within {max(10, abs(ahead)):,} ms of this machine's"
        return Check(name=name, status=Status.OK, text=text)
    way = "ahead of" if ahead > 0 else "behind"
    text = f"the server is {abs(ahead) / 1000:,.1f} s {way} this machine"
    if abs(ahead) > CLOCK_FAIL_MS:
        return Check(
            name=name,
            status=Status.FAIL,
            text=f"{text}: holds expire at the wrong time, and days turn with them",
            commands=("timedatectl set-ntp true",),
        )
    return Check(
        name=name,
        status=Status.WARN,
        text=f"{text}: nobody keeps the clocks in step",
        commands=("timedatectl set-ntp true",),
    )
