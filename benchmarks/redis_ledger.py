"""Settle and reserve in Redis over a session and four shared accounts.

One turn is what a guarded call costs: the booking of the last one and the
reservation of the next, in one round trip over a unix socket. Beside it stand a PING
by the ordinary clients, an INCRBY, a naive check-then-charge in two round trips, and
the floor: the same commands in a script without any logic.
"""

import asyncio
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import redis
import redis.asyncio

from benchmarks.measuring import interleaved_us, line
from guardrails.core.accounts import Charging
from guardrails.core.admission import (
    Reservation,
    plan_reserve,
    plan_settle,
)
from guardrails.core.attribution import Attribution
from guardrails.core.calls import ModelCall, Outcome
from guardrails.core.lines import session_line, shared_lines
from guardrails.core.operations import Turn
from guardrails.core.policy import Budget, Limits
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from guardrails.core.windows import Window
from guardrails.stores.redis import RedisStore
from guardrails.system.ids import new_id
from tests.servers.processes import Server, binaries

__all__ = ["measure_redis"]

NOW_MS = time.time_ns() // 1_000_000
"""Not a fixed day: the server deletes at once what ends in its past."""

PLENTY = Limits(cost_nano_usd=10**15)
CALL = ModelCall(model="gpt-4o", provider="openai", input_tokens_max=1_000)
CHARGE = Charge(cost_nano_usd=1_000, status=PriceStatus.PRICED, source="bench")
USAGE = TokenUsage(input_tokens=500, output_tokens=20)
OUTCOME = Outcome(usage=USAGE, latency_ms=1)

PLANNED = 20_000
"""Turns that are planned before they are timed."""

PROCESSES = 4
SECONDS = 2.0
ASYNC_CALLS = 2_000
TASKS = 64

FLOOR = """
local c, K = redis.call, KEYS
local last, next, event, row, times, hold, note = unpack(ARGV)
c('GET', K[1])
c('HMGET', K[12], 'n', 'x', 't')
for i = 13, 16 do c('HMGET', K[i], 'n', 'x') end
c('HGET', K[2], last); c('ZREM', K[3], last)
c('HSET', K[5], last, 'sxxxxxxyyyyyy'); c('EXPIRE', K[5], '99000')
c('HDEL', K[2], last)
if c('RPUSH', K[17], note) == 8 then c('LTRIM', K[17], '8', '-1') end
c('HGET', K[2], next); c('HGET', K[4], next)
for i = 5, 8 do c('HGET', K[i], next) end
c('HMGET', K[10], 'everything', 'customer_id', 'agent', 'session')
c('ZADD', K[3], '1', next); c('HSET', K[2], next, hold)
c('INCR', K[1])
c('XADD', K[9], 'MAXLEN', '~', '100000', '*', 'e', event)
c('HSET', K[12], 'n', row, 't', times)
for i = 13, 16 do c('HSET', K[i], 'n', row) end
return row
"""
"""What a turn makes the server do: of a session and four accounts."""


def measure_redis() -> Iterator[str]:
    """Measures each server of this machine."""
    for name, binary in binaries().items():
        with Server(binary) as server:
            yield from _sync(name, server)
            yield from _async(name, server)
            yield _fleet(name, server)


def _sync(name: str, server: Server) -> Iterator[str]:
    client = redis.Redis(unix_socket_path=str(server.socket))
    floor = client.register_script(FLOOR)
    keys = [f"{{bench}}{number}" for number in range(17)]
    texts = [b"e" * 400, b"\0" * 60, b"\0" * 32, b"h" * 300, b"n" * 400]
    holds = iter(range(10**9))

    def naive() -> None:
        if int(client.get("naive") or 0) < 10**15:
            client.incrby("naive", 1)

    def floored() -> None:
        hold = next(holds)
        floor(keys, [f"{hold}", f"{hold + 1}", *texts])

    with closing(RedisStore(server.unix_url)) as store:
        # Planned beforehand: what is measured is the store.
        turn = iter(list(islice(turns(), PLANNED)))
        for _ in range(300):
            store.execute(next(turn))
        works: list[Callable[[], object]] = [
            lambda: store.execute(next(turn)),
            client.ping,
            lambda: client.incrby("n", 1),
            naive,
            floored,
        ]
        measured, ping, *others = interleaved_us(*works)
        cpu = _server_cpu_us(server, lambda: store.execute(next(turn)))
        ping_cpu = _server_cpu_us(server, client.ping)
    titles = ("INCRBY", "naive check-then-charge", "floor: same commands")
    yield line(
        f"{name}: settle + reserve",
        f"{measured:.0f} us",
        f"{ping:.0f} us",
        measured / ping,
        "<= 2 x a redis-py PING",
    )
    for title, other in zip(titles, others, strict=True):
        yield line(f"{name}: {title}", f"{other:.0f} us", "", other / ping, "")
    yield line(
        f"{name}: server CPU per turn",
        f"{cpu:.1f} us",
        f"{ping_cpu:.1f} us",
        cpu / ping_cpu,
        "<= 30 us, beside that of a PING",
    )


def _async(name: str, server: Server) -> Iterator[str]:
    mine, theirs, crowd, theirs_crowd = asyncio.run(_async_us(server))
    yield line(
        f"{name}: asyncio, settle + reserve",
        f"{mine:.0f} us",
        f"{theirs:.0f} us",
        mine / theirs,
        "<= 1 x a redis.asyncio PING",
    )
    yield line(
        f"{name}: asyncio, {TASKS} tasks, each",
        f"{crowd:.0f} us",
        f"{theirs_crowd:.0f} us",
        crowd / theirs_crowd,
        "",
    )


async def _async_us(server: Server) -> tuple[float, float, float, float]:
    store = RedisStore(server.unix_url)
    client = redis.asyncio.Redis(unix_socket_path=str(server.socket))
    turn = iter(list(islice(turns(), PLANNED)))

    async def one() -> None:
        await store.aexecute(next(turn))

    async def ping() -> None:
        await client.ping()

    async def crowd(work: Callable[[], object], count: int) -> float:
        async def several(each: int) -> None:
            for _ in range(each):
                await work()  # type: ignore[misc]

        start = time.perf_counter()
        await asyncio.gather(*(several(count // TASKS) for _ in range(TASKS)))
        return (time.perf_counter() - start) / count * 1e6

    samples: dict[str, list[float]] = {"one": [], "ping": []}
    for _ in range(15):
        for title, work in (("one", one), ("ping", ping)):
            times = []
            for _ in range(ASYNC_CALLS // 15):
                start = time.perf_counter_ns()
                await work()
                times.append((time.perf_counter_ns() - start) / 1000)
            samples[title].append(statistics.median(times))
    crowds = [(await crowd(one, 1_280), await crowd(ping, 1_280)) for _ in range(5)]
    await client.aclose()
    store.close()
    return (
        statistics.median(samples["one"]),
        statistics.median(samples["ping"]),
        statistics.median([mine for mine, _ in crowds]),
        statistics.median([theirs for _, theirs in crowds]),
    )


def _fleet(name: str, server: Server) -> str:
    """Returns how many turns several processes get out of one core of the server."""
    context = multiprocessing.get_context("fork")
    counts = context.SimpleQueue()
    before = _cpu_ns(server)
    workers = [
        context.Process(target=_work, args=(server.unix_url, counts))
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    total = sum(counts.get() for _ in workers)
    for worker in workers:
        worker.join()
    per_core = total / ((_cpu_ns(server) - before) / 1e9)
    return line(
        f"{name}: turns per second and core, {PROCESSES} processes",
        f"{per_core:,.0f}",
        "",
        None,
        ">= 25,000",
    )


def _work(url: str, counts: "multiprocessing.SimpleQueue[int]") -> None:
    count, until = 0, time.perf_counter() + SECONDS
    with closing(RedisStore(url)) as store:
        turn = turns()
        while time.perf_counter() < until:
            store.execute(next(turn))
            count += 1
    counts.put(count)


def _server_cpu_us(server: Server, work: Callable[[], object]) -> float:
    """Returns the least CPU time of the server per call, of some rounds."""
    rounds = []
    for _ in range(10):
        before = _cpu_ns(server)
        for _ in range(500):
            work()
        rounds.append((_cpu_ns(server) - before) / 500 / 1000)
    return min(rounds)


def _cpu_ns(server: Server) -> int:
    assert server.process is not None
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks)


def turns(
    *, session_id: str | None = None, hold_id: str | None = None
) -> Iterator[Turn]:
    """Yields what one session does: it books a call and reserves the next."""
    session_id = session_id or f"s{os.getpid()}"
    who = Attribution.of(agent="a", customer_id="acme", session_id=session_id)
    session = Budget(
        name="session", per=("session_id",), every=Window.SESSION, limits=PLENTY
    )
    shared = tuple(
        Budget(name=f"{per}-{every}", per=per, every=every, limits=PLENTY)
        for per in ((), ("customer_id",))
        for every in (Window.MONTH, Window.DAY)
    )
    charging = Charging(
        attribution=who,
        lines=(session_line(session, who), *shared_lines(shared, who, now_ms=NOW_MS)),
    )
    last = _planned(charging, hold_id)
    while True:
        settle = plan_settle(
            last,
            outcome=OUTCOME,
            usage=USAGE,
            charge=CHARGE,
            now_ms=NOW_MS,
            active_ms=(5,),
        )
        last = _planned(charging, None)
        yield Turn(settle=settle, reserve=last.op)


def _planned(charging: Charging, hold_id: str | None) -> Reservation:
    return plan_reserve(
        CALL,
        hold_id=hold_id or new_id(),
        charging=charging,
        charge=CHARGE,
        output_tokens=100,
        now_ms=NOW_MS,
        ttl_ms=1_000_000,
        active_ms=(5,),
    )
