"""Executing operations against stores that fail: in threads, and on event loops."""

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

from guardrails.core.accounts import Account
from guardrails.core.operations import Operation, ReadAccount
from guardrails.errors import StoreUnavailable
from guardrails.ports import Store

SESSION = "default/session/session_id=s"
SHARED = "default/total/customer_id=acme"
"""The accounts that `charging()` names."""

TRIES_MAX = 100
"""More than any fault of these tests lasts."""

Run = Callable[[Store, Operation[object]], object]


def in_thread(store: Store, op: Operation[object]) -> object:
    return store.execute(op)


def on_loop(store: Store, op: Operation[object]) -> object:
    return asyncio.run(store.aexecute(op))


@contextmanager
def runner(*, is_async: bool) -> Iterator[Run]:
    """Executes in this thread, or on one event loop."""
    if not is_async:
        yield in_thread
        return
    with asyncio.Runner() as loop:
        yield lambda store, op: loop.run(store.aexecute(op))


def insist(store: Store, op: Operation[object]) -> object:
    """Executes it until the store says that it is done."""
    for _ in range(TRIES_MAX):
        try:
            return store.execute(op)
        except StoreUnavailable as error:
            last = error
    raise last


async def ainsist(store: Store, op: Operation[object]) -> object:
    for _ in range(TRIES_MAX):
        try:
            return await store.aexecute(op)
        except StoreUnavailable as error:
            last = error
    raise last


def account(store: Store, key: str = SESSION) -> Account:
    found = store.execute(ReadAccount(account=key))
    assert found is not None
    return found


# --- Many processes ---------------------------------------------------------

CONTEXT = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)
"""Spawned processes would import everything again: half a second each."""

Work = Callable[[str, int, Barrier], object]


def together(work: Work, place: str, *, processes: int) -> list:
    """Runs `work` in new processes, which share a barrier; returns their results."""
    barrier = CONTEXT.Barrier(processes, timeout=60)
    results = CONTEXT.SimpleQueue()
    members = [
        CONTEXT.Process(
            target=_member, args=(work, place, number, barrier, results), daemon=True
        )
        for number in range(processes)
    ]
    for member in members:
        member.start()
    found = [results.get() for _ in members]
    for member in members:
        member.join()
        member.close()
    results.close()
    failed = [error for error, _ in found if error]
    assert not failed
    return [result for _, result in found]


def _member(
    work: Work,
    place: str,
    number: int,
    barrier: Barrier,
    results: "SimpleQueue[tuple[str | None, object]]",
) -> None:
    try:
        results.put((None, work(place, number, barrier)))
    except BaseException as error:
        barrier.abort()
        results.put((f"process {number}: {error!r}", None))
        raise
