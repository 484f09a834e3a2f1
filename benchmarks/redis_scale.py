"""A million sessions with one event each: their memory, and asking what they spent."""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import redis
from redis.connection import UnixDomainSocketConnection

from benchmarks.measuring import line
from benchmarks.redis_ledger import NOW_MS, turns
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.codec import requests
from guardrails.stores.redis.codec.scripts import Script
from guardrails.stores.redis.codec.wire import evalsha
from tests.servers.processes import Server, binaries

__all__ = ["measure_redis_scale"]

SESSIONS = 1_000_000
BATCH = 500

DAY_MS = 24 * HOUR_MS


def measure_redis_scale() -> Iterator[str]:
    """Measures the first server of this machine."""
    name, binary = next(iter(binaries().items()))
    with Server(binary) as server, closing(RedisStore(server.unix_url)) as store:
        empty = _memory(server)
        _fill(server)
        times: list[float] = []
        for _ in range(5):
            start = time.perf_counter()
            found = store.history.spend(
                project_id="default",
                by="agent",
                since_ms=NOW_MS - DAY_MS,
                until_ms=NOW_MS,
            )
            times.append(time.perf_counter() - start)
        assert [one.steps for one in found] == [SESSIONS]
        everything = _memory(server) - empty
        client = redis.Redis(unix_socket_path=str(server.socket), socket_timeout=600)
        for key in client.scan_iter("gr:{default}:*", count=10_000):
            if b":session/" not in key:
                client.unlink(key)
        sessions = _memory(server) - empty
    yield line(
        f"{name}: memory per idle session, {SESSIONS:,}",
        f"{sessions / SESSIONS:.0f} B",
        "",
        None,
        "<= 350 B",
    )
    yield line(
        f"{name}: the same with event, sums and id",
        f"{everything / SESSIONS:.0f} B",
        "",
        None,
        "",
    )
    yield line(
        f"{name}: spend by agent over {SESSIONS:,} events",
        f"{sorted(times)[2] * 1000:.1f} ms",
        "",
        None,
        "<= 10 ms",
    )


def _fill(server: Server) -> None:
    """Books one call in each session, by commands that differ in their names."""
    script = Script("call")
    connection = UnixDomainSocketConnection(
        path=str(server.socket), socket_timeout=60.0
    )
    connection.connect()
    connection.send_command("SCRIPT", "LOAD", script.text)
    connection.read_response()
    (turn,) = islice(turns(session_id="s0000000", hold_id="h0000000"), 1)
    template = evalsha(
        script.sha,
        *requests.call_arguments(
            turn.settle, None, raised={}, version=0, events_max=2 * SESSIONS
        ),
    )
    for start in range(0, SESSIONS, BATCH):
        commands = [
            template.replace(b"s0000000", b"s%07d" % n).replace(
                b"h0000000", b"h%07d" % n
            )
            for n in range(start, start + BATCH)
        ]
        connection.send_packed_command([b"".join(commands)], check_health=False)
        for _ in commands:
            connection.read_response()
    connection.disconnect()


def _memory(server: Server) -> int:
    return int(server.ask("INFO", "memory")["used_memory"])
