"""Executing operations against stores that fail: in threads, and on event loops."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def again(store: Store, op: Operation[object]) -> object:
    """Executes it until the store says that it is done."""
    for _ in range(TRIES_MAX):
        try:
            return store.execute(op)
        except StoreUnavailable as error:
            last = error
    raise last


async def aagain(store: Store, op: Operation[object]) -> object:
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
