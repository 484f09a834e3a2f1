"""Judgement: what the answers of servers mean for a ledger that is kept there. Pure."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from guardrails.stores.diagnosis import Check, Status, worst_of
from guardrails.stores.redis.rights import LEDGER, rules

__all__ = ["Answers", "Refused", "User", "slots_check", "verdicts"]

REDIS_MIN = (6, 2)
VALKEY_MIN = (8, 0)

CLOCK_WARN_MS = 1_000
"""Holds live for minutes: a second changes nothing yet, and says that nobody
keeps the clocks."""
CLOCK_FAIL_MS = 60_000
"""Holds would expire while their calls run, and days turn at the wrong time."""

MEMORY_RATIO_MAX = 0.9
"""Of `maxmemory`. Above it a server that evicts nothing soon refuses writes."""

LAG_SECONDS_MAX = 10
"""As Redis counts replicas for `min-replicas-to-write` by default."""

SLOTS = 16_384


@dataclass(frozen=True, slots=True)
class Refused:
    """What a server answered instead of what it was asked for."""

    reason: str
    """Half a sentence, without the text of the server: that may hold arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom a server takes us for."""

    name: str
    commands: str | None
    """The rules of its commands; `None` if they are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one server said about itself."""

    name: str
    cli: str
    """The start of a command for it."""
    kind: str
    """Of the topology: `server`, `sentinel` or `cluster`."""
    info: Mapping[str, str] | Refused
    config: Mapping[str, str] | Refused
    """The parameters that were asked for, as far as this server has them."""
    user: User | Refused
    round_trip_ms: float
    clock_ahead_ms: int | Refused
    """How far the server's clock is ahead of this machine's."""


def verdicts(servers: Sequence[Answers]) -> list[Check]:
    """Judges servers; each check is one for all of them, by the worst."""
    judges: Sequence[Callable[[Answers], Check]] = (
        _version,
        _role,
        _eviction,
        _memory,
        _durability,
        _replicas,
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


def _unknown(name: str, refused: Refused, commands: tuple[str, ...] = ()) -> Check:
    return Check(
        name=name, status=Status.UNKNOWN, text=refused.reason, commands=commands
    )


def _granting(server: Answers, command: str) -> tuple[str, ...]:
    """Returns what gives our user a right, if its name is known."""
    if isinstance(server.user, Refused):
        return ()
    return (f"{server.cli} ACL SETUSER {server.user.name} +{command}",)


def _lasting(server: Answers, *settings: str) -> tuple[str, ...]:
    """Returns what changes settings, and keeps them over a restart."""
    changes = (f"{server.cli} CONFIG SET {setting}" for setting in settings)
    return (*changes, f"{server.cli} CONFIG REWRITE")


# --- the server -------------------------------------------------------------


def _version(server: Answers) -> Check:
    if isinstance(server.info, Refused):
        return _unknown("version", server.info, _granting(server, "info"))
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
        return _unknown("role", server.info, _granting(server, "info"))
    info = server.info
    if info.get("cluster_enabled") == "1" and server.kind != "cluster":
        return Check(
            name="role",
            status=Status.FAIL,
            text="a node of a cluster: most projects are elsewhere",
            commands=(f"export GUARDRAILS_STORE=redis+cluster://{server.name}",),
        )
    if info.get("role") == "slave":
        master = f"{info.get('master_host', '')}:{info.get('master_port', '')}"
        return Check(
            name="role",
            status=Status.FAIL,
            text="a replica, which refuses to write: name its master, or its Sentinels",
            commands=(f"export GUARDRAILS_STORE=redis://{master}/0",),
        )
    return Check(name="role", status=Status.OK, text="master")


def _eviction(server: Answers) -> Check:
    policy = _setting(server, "maxmemory-policy", in_info="maxmemory_policy")
    if isinstance(policy, Refused):
        return _unknown("eviction", policy, _granting(server, "info"))
    if policy == "noeviction":
        text = "maxmemory-policy noeviction"
        return Check(name="eviction", status=Status.OK, text=text)
    what = "keys that expire" if policy.startswith("volatile") else "any key"
    return Check(
        name="eviction",
        status=Status.FAIL,
        text=f"maxmemory-policy {policy}: a full server drops {what}, and a budget "
        "that was dropped starts again at 0, silently",
        commands=_lasting(server, "maxmemory-policy noeviction"),
    )


def _memory(server: Answers) -> Check:
    if isinstance(server.info, Refused):
        return _unknown("memory", server.info, _granting(server, "info"))
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
        commands=_lasting(server, f"maxmemory {most * 2}"),
    )


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:,.1f} MB"


def _setting(server: Answers, name: str, *, in_info: str | None) -> str | Refused:
    """Returns a parameter, from wherever it may be read."""
    if not isinstance(server.config, Refused) and name in server.config:
        return server.config[name]
    if in_info and not isinstance(server.info, Refused) and in_info in server.info:
        return server.info[in_info]
    if isinstance(server.config, Refused):
        return server.config
    return Refused(f"this server does not say {name}")


# --- what outlives a failure ------------------------------------------------


def _durability(server: Answers) -> Check:
    name = "durability"
    aof = _setting(server, "appendonly", in_info="aof_enabled")
    if isinstance(aof, Refused):
        return _unknown(name, aof, _granting(server, "config|get"))
    failed = _write_failure(server)
    if failed is not None:
        return failed
    if aof in ("no", "0"):
        return Check(
            name=name,
            status=Status.WARN,
            text=f"no append-only file: a restart loses {_since_snapshot(server)}, so "
            "budgets start again from there",
            commands=_lasting(server, "appendonly yes", "appendfsync everysec"),
        )
    match _setting(server, "appendfsync", in_info=None):
        case Refused() as refused:
            text = f"append-only file is on, appendfsync is not known: {refused.reason}"
            commands = _granting(server, "config|get")
            return Check(name=name, status=Status.UNKNOWN, text=text, commands=commands)
        case "always":
            text = "append-only file, synced always: a power cut loses nothing"
            return Check(name=name, status=Status.OK, text=text)
        case "everysec":
            text = "append-only file, synced every second: a crash loses nothing, a "
            text += "power cut the last second or two"
            return Check(name=name, status=Status.OK, text=text)
        case other:
            return Check(
                name=name,
                status=Status.WARN,
                text=f"append-only file with appendfsync {other}: a power cut loses "
                "what the system has not written yet, up to half a minute",
                commands=_lasting(server, "appendfsync everysec"),
            )


def _write_failure(server: Answers) -> Check | None:
    if isinstance(server.info, Refused):
        return None
    for key, what in (
        ("aof_last_write_status", "append-only file"),
        ("rdb_last_bgsave_status", "snapshot"),
    ):
        if server.info.get(key, "ok") != "ok":
            return Check(
                name="durability",
                status=Status.FAIL,
                text=f"the last write of the {what} has failed, so the server "
                "refuses changes: is its disk full?",
                commands=(f"{server.cli} INFO persistence", "df -h"),
            )
    return None


def _since_snapshot(server: Answers) -> str:
    saves = _setting(server, "save", in_info=None)
    if isinstance(saves, Refused) or saves:
        return "all since the last snapshot, minutes or hours"
    return "the whole ledger"


def _replicas(server: Answers) -> Check:
    name = "replicas"
    if isinstance(server.info, Refused):
        return _unknown(name, server.info, _granting(server, "info"))
    count = int(server.info.get("connected_slaves", "0"))
    if not count:
        if server.kind == "sentinel":
            text = "none is connected: Sentinel has nothing to fail over to"
            command = f"{server.cli} INFO replication"
            return Check(name=name, status=Status.WARN, text=text, commands=(command,))
        text = "none: the ledger is as safe as this server's disk"
        return Check(name=name, status=Status.OK, text=text)
    replicas = f"{count} replica{'' if count == 1 else 's'}"
    behind = [text for text in _replica_lines(server.info) if _is_behind(text)]
    if behind:
        text = f"{len(behind)} of {replicas} not in step: a failover would lose calls"
        command = f"{server.cli} INFO replication"
        return Check(name=name, status=Status.WARN, text=text, commands=(command,))
    least = _setting(server, "min-replicas-to-write", in_info=None)
    if isinstance(least, Refused):
        text = f"{replicas}; min-replicas-to-write is not known: {least.reason}"
        commands = _granting(server, "config|get")
        return Check(name=name, status=Status.UNKNOWN, text=text, commands=commands)
    if least == "0":
        return Check(
            name=name,
            status=Status.WARN,
            text=f"{replicas}, min-replicas-to-write 0: a master that is cut off goes "
            "on booking, and a failover loses that",
            commands=_lasting(
                server,
                "min-replicas-to-write 1",
                f"min-replicas-max-lag {LAG_SECONDS_MAX}",
            ),
        )
    text = f"{replicas}, min-replicas-to-write {least}"
    return Check(name=name, status=Status.OK, text=text)


def _replica_lines(info: Mapping[str, str]) -> list[str]:
    names = (f"slave{index}" for index in range(len(info)))
    return [info[name] for name in names if name in info]


def _is_behind(line: str) -> bool:
    """Reads `ip=...,port=...,state=online,offset=...,lag=0`."""
    pairs = (part.partition("=") for part in line.split(","))
    fields = {name: value for name, _, value in pairs}
    return (
        fields.get("state") != "online" or int(fields.get("lag", "0")) > LAG_SECONDS_MAX
    )


# --- who asks, and when -----------------------------------------------------


def _access(server: Answers) -> Check:
    name = "access"
    if isinstance(server.user, Refused):
        return _unknown(name, server.user)
    user, commands = server.user.name, server.user.commands
    if user != "default":
        return Check(name=name, status=Status.OK, text=f"user {user}")
    if commands is not None and not commands.startswith("+@all"):
        text = "user default, whose rights are limited"
        return Check(name=name, status=Status.OK, text=text)
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


def _clock(server: Answers) -> Check:
    name, ahead = "clock", server.clock_ahead_ms
    if isinstance(ahead, Refused):
        return _unknown(name, ahead, _granting(server, "time"))
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
