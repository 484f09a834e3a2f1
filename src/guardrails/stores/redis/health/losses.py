"""Losses: what a server would lose in a crash, a power cut or a failover. Pure."""

from collections.abc import Mapping

from guardrails.stores.diagnosis import Check, Status
from guardrails.stores.redis.health.answers import (
    Answers,
    Refused,
    granting,
    lasting,
    setting,
    unknown,
)

__all__ = ["durability", "replicas"]

LAG_SECONDS_MAX = 10
"""As Redis counts replicas for `min-replicas-to-write` by default."""


def durability(server: Answers) -> Check:
    """Judges what a restart and a power cut would lose."""
    name = "durability"
    aof = setting(server, "appendonly", in_info="aof_enabled")
    if isinstance(aof, Refused):
        return unknown(name, aof, granting(server, aof, "config|get"))
    failed = _write_failure(server)
    if failed is not None:
        return failed
    if aof in ("no", "0"):
        return Check(
            name=name,
            status=Status.WARN,
            text=f"no append-only file: a restart loses {_since_snapshot(server)}, so "
            "budgets start again from there",
            commands=lasting(server, "appendonly yes", "appendfsync everysec"),
        )
    match setting(server, "appendfsync", in_info=None):
        case Refused() as refused:
            text = f"append-only file is on, appendfsync is not known: {refused.reason}"
            commands = granting(server, refused, "config|get")
            return Check(name=name, status=Status.UNKNOWN, text=text, commands=commands)
        case "always":
            text = "append-only file, synced always: a power cut loses nothing"
            return Check(name=name, status=Status.OK, text=text)
        case "everysec":
            text = "append-only file, synced every second: a crash loses nothing "
            text += "unless the disk is slow, a power cut the last second or two"
            return Check(name=name, status=Status.OK, text=text)
        case other:
            return Check(
                name=name,
                status=Status.WARN,
                text=f"append-only file with appendfsync {other}: a power cut loses "
                "what the system has not written yet, up to half a minute",
                commands=lasting(server, "appendfsync everysec"),
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
    saves = setting(server, "save", in_info=None)
    if isinstance(saves, Refused) or saves:
        return "all since the last snapshot, minutes or hours"
    return "the whole ledger"


def replicas(server: Answers) -> Check:
    """Judges what a failover would lose."""
    name = "replicas"
    if isinstance(server.info, Refused):
        return unknown(name, server.info, granting(server, server.info, "info"))
    count = int(server.info.get("connected_slaves", "0"))
    if not count:
        if server.kind == "sentinel":
            text = "none is connected: Sentinel has nothing to fail over to"
            command = f"{server.cli} INFO replication"
            return Check(name=name, status=Status.WARN, text=text, commands=(command,))
        text = "none: the ledger is as safe as this server's disk"
        return Check(name=name, status=Status.OK, text=text)
    them = f"{count} replica{'' if count == 1 else 's'}"
    behind = [text for text in _replica_lines(server.info) if _is_behind(text)]
    if behind:
        text = f"{len(behind)} of {them} not in step: a failover would lose calls"
        command = f"{server.cli} INFO replication"
        return Check(name=name, status=Status.WARN, text=text, commands=(command,))
    least = setting(server, "min-replicas-to-write", in_info=None)
    if isinstance(least, Refused):
        text = f"{them}; min-replicas-to-write is not known: {least.reason}"
        commands = granting(server, least, "config|get")
        return Check(name=name, status=Status.UNKNOWN, text=text, commands=commands)
    if least == "0":
        return Check(
            name=name,
            status=Status.WARN,
            text=f"{them}, min-replicas-to-write 0: a master that is cut off goes "
            "on booking, and a failover loses that",
            commands=lasting(
                server,
                "min-replicas-to-write 1",
                f"min-replicas-max-lag {LAG_SECONDS_MAX}",
            ),
        )
    text = f"{them}, min-replicas-to-write {least}"
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
