"""A cancelled task leaves nothing held: what was not sent is given back, and what
was sent is booked, however far the call had come."""

import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from guardrails import CallRefused, Guard, GuardedCall, TokenUsage
from guardrails.core.calls import CallStatus
from guardrails.core.operations import Operation, Release, Reserve, Settle
from guardrails.ports import History, Store
from guardrails.stores import open_store
from guardrails.stores.memory import MemoryStore
from guardrails.testing import FakeClock

R = TypeVar("R")

TASKS = 200

TURNS_MAX = 25
"""More turns of the event loop than a call takes from its start to its end."""


EAGER = pytest.param(
    True,
    marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="no task is eager"),
)
"""Whether a task runs at once up to where it first waits, not in the next turn."""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    urls = {"memory": "memory://", "sqlite": tmp_path / "ledger.sqlite3"}
    store = open_store(urls[request.param])
    yield store
    store.close()


class SlowStore:
    """A memory store whose answers to one kind of operation wait to be let go.

    Args:
        slow: The kind of operation.
        applies_first: Whether an operation is applied before the wait, like one
            whose reply is on its way, or after it, like one still on its way there.
    """

    def __init__(self, slow: type[object], *, applies_first: bool) -> None:
        self._inner = MemoryStore()
        self._slow = slow
        self._applies_first = applies_first
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    @property
    def history(self) -> History:
        return self._inner.history

    def execute(self, operation: Operation[R]) -> R:
        return self._inner.execute(operation)

    async def aexecute(self, operation: Operation[R]) -> R:
        if not isinstance(operation, self._slow):
            return self._inner.execute(operation)
        if self._applies_first:
            reply = self._inner.execute(operation)
        self.asked.set()
        await self.answer.wait()
        return reply if self._applies_first else self._inner.execute(operation)

    def secret(self) -> bytes:
        return self._inner.secret()

    def close(self) -> None:
        self._inner.close()


def one_cent(guard: Guard) -> GuardedCall:
    return guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    )


def held(guard: Guard) -> int:
    account = guard.account("shared")
    return account.held_nano_usd if account else 0


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_tasks_that_are_cancelled_anywhere_leave_nothing_held(
    store: Store,
) -> None:
    guard = Guard({}, store=store)
    never = asyncio.Event()
    is_inside = asyncio.Semaphore(0)
    entered = 0

    async def work(turns_inside: int) -> None:
        nonlocal entered
        async with guard.session(session_id="shared"), one_cent(guard) as call:
            entered += 1
            is_inside.release()
            await turns(turns_inside)
            call.settle(TokenUsage(input_tokens=1_000))
            if turns_inside % 2:
                await never.wait()

    tasks = [asyncio.create_task(work(index % 7)) for index in range(TASKS)]
    for index, task in enumerate(tasks):
        await turns(index % TURNS_MAX)
        if index < TASKS // 2 and index % 10 == 0:
            await is_inside.acquire()  # Some get that far, however slow the disk.
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert held(guard) == 0
    account = guard.account("shared")
    assert account is not None
    assert account.steps == entered
    assert account.posted_nano_usd > 0
    assert {type(end) for end in ended} <= {asyncio.CancelledError, type(None)}
    assert not guard.engine.failures


def test_a_call_that_is_thrown_away_after_its_loop_is_booked(store: Store) -> None:
    """Its coroutine cannot wait for anything; what was not sent is given back."""
    guard = Guard({}, store=store)
    seen: list[BaseException] = []

    async def work(inside: asyncio.Event, *, releases: bool) -> None:
        try:
            async with guard.session(session_id="shared"), one_cent(guard) as call:
                if releases:
                    call.release()
                inside.set()
                await asyncio.Event().wait()
        except BaseException as error:
            seen.append(error)
            raise

    async def begin() -> list[Coroutine[Any, Any, None]]:
        works: list[Coroutine[Any, Any, None]] = []
        for releases in (True, False, False):
            inside = asyncio.Event()
            works.append(work(inside, releases=releases))
            tasks.append(asyncio.create_task(works[-1]))
            await inside.wait()
        return works

    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # It says that tasks are pending.
    works = loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    for thrown_away in works:
        thrown_away.close()

    assert [type(error) for error in seen] == [GeneratorExit] * 3
    account = guard.account("shared")
    assert account is not None
    assert account.held_nano_usd == 0
    assert account.steps == 2
    assert not guard.engine.failures


@pytest.mark.parametrize("applies_first", [True, False])
async def test_a_task_that_is_cancelled_while_it_reserves_gives_back(
    applies_first: bool,
) -> None:
    store = SlowStore(Reserve, applies_first=applies_first)
    guard = Guard({}, store=store, max_cost_usd="0.01")

    async def work() -> None:
        async with guard.session(session_id="shared"), one_cent(guard):
            pytest.fail("cancelled before this")

    task = asyncio.create_task(work())
    await store.asked.wait()
    task.cancel()
    await turns(3)
    store.answer.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    account = guard.account("shared")
    assert account is not None
    assert (account.used_nano_usd, account.steps) == (0, 0)
    async with guard.session(session_id="shared"), one_cent(guard):
        pass  # The budget is for others to use again, at once.


@pytest.mark.parametrize("applies_first", [True, False])
async def test_a_task_that_is_cancelled_while_it_settles_books(
    applies_first: bool,
) -> None:
    store = SlowStore(Settle, applies_first=applies_first)
    guard = Guard({}, store=store)

    async def work() -> None:
        async with guard.session(session_id="shared"), one_cent(guard) as call:
            call.settle(TokenUsage(input_tokens=2_000))

    task = asyncio.create_task(work())
    await store.asked.wait()
    task.cancel()
    await turns(3)
    store.answer.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert held(guard) == 0
    assert guard.session(session_id="shared").spent == Decimal("0.005")


class InterruptedStore(SlowStore):
    """A memory store in which Ctrl-C comes with the answer to one kind of operation."""

    async def aexecute(self, operation: Operation[R]) -> R:
        if isinstance(operation, self._slow):
            if self._applies_first:
                self._inner.execute(operation)
            raise KeyboardInterrupt
        return self._inner.execute(operation)


@pytest.mark.parametrize("applies_first", [True, False])
@pytest.mark.parametrize("kind", [Reserve, Settle, Release])
@pytest.mark.parametrize("is_eager", [False, EAGER])
def test_an_interrupt_of_the_loop_while_the_store_answers_loses_nothing(
    kind: type[object], applies_first: bool, is_eager: bool
) -> None:
    """It comes into whichever task runs, which may be the one that asks the store."""
    guard = Guard({}, store=InterruptedStore(kind, applies_first=applies_first))
    made: list[str] = []

    async def main() -> None:
        async with guard.session(session_id="shared"), one_cent(guard) as call:
            if kind is Release:
                call.release()
            else:
                made.append("call")

    with pytest.raises(KeyboardInterrupt), asyncio.Runner() as runner:
        if is_eager:
            runner.get_loop().set_task_factory(asyncio.eager_task_factory)
        runner.run(main())

    assert held(guard) == 0
    assert len(guard.session(session_id="shared").events()) == len(made)
    assert guard.engine.failures == 0
    guard.close()


async def test_a_scope_of_anyio_waits_for_the_store_without_asking_again() -> None:
    """It would ask in every turn of the loop, and keep a processor busy with that."""
    store = SlowStore(Settle, applies_first=False)
    guard, turns_of_the_store, asked = Guard({}, store=store), 100, 0

    async def request() -> None:
        nonlocal asked
        try:
            async with guard.session(session_id="shared"), one_cent(guard):
                scope.cancel()
                await asyncio.sleep(0)
        finally:
            task = asyncio.current_task()
            assert task is not None
            asked = task.cancelling()

    async def answer() -> None:
        await store.asked.wait()
        await turns(turns_of_the_store)
        store.answer.set()

    answering = asyncio.create_task(answer())
    with anyio.CancelScope() as scope:
        await request()
    await answering

    assert scope.cancelled_caught
    assert held(guard) == 0
    assert guard.session(session_id="shared").spent == Decimal("0.01")
    assert 0 < asked < turns_of_the_store // 10


async def test_a_refusal_is_not_lost_in_a_cancellation() -> None:
    store = SlowStore(Reserve, applies_first=True)
    guard = Guard({}, store=store, max_steps=0)

    async def work() -> None:
        async with guard.session(session_id="shared"), one_cent(guard):
            pytest.fail("there is no step to make")

    task = asyncio.create_task(work())
    await store.asked.wait()
    task.cancel()
    store.answer.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert guard.session(session_id="shared").status == "budget_exceeded"


async def test_a_call_that_is_cancelled_in_its_body_is_booked_as_broken_off(
    store: Store,
) -> None:
    guard = Guard({}, store=store)
    inside = asyncio.Event()

    async def work() -> None:
        async with guard.session(session_id="shared"), one_cent(guard):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    session = guard.session(session_id="shared")
    (event,) = session.events()
    assert event.status is CallStatus.BROKEN_OFF
    assert session.spent == Decimal("0.01")


async def test_a_time_out_ends_a_call_as_it_ends_any_other_code(store: Store) -> None:
    guard = Guard({}, store=store)

    async def work() -> None:
        async with guard.session(session_id="shared"), one_cent(guard):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), timeout=0.01)

    assert held(guard) == 0


def test_a_program_that_ends_in_the_middle_books_what_was_sent(store: Store) -> None:
    guard = Guard({}, store=store)

    async def program() -> None:
        sent = asyncio.Semaphore(0)

        async def work() -> None:
            async with guard.session(session_id="shared"), one_cent(guard):
                sent.release()
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(work()) for _ in range(TASKS)]
        for _ in range(TASKS // 2):
            await sent.acquire()
        assert not any(task.done() for task in tasks)
        # The end of `asyncio.run` cancels them, and all that they have begun.

    asyncio.run(program())

    account = guard.account("shared")
    assert account is not None
    assert account.held_nano_usd == 0
    assert account.steps >= TASKS // 2
    assert account.posted_nano_usd == account.steps * 10_000_000


@pytest.mark.parametrize("applies_first", [True, False])
@pytest.mark.parametrize(("slow", "usd"), [(Reserve, "0"), (Settle, "0.01")])
def test_a_program_that_ends_while_the_store_answers_leaves_nothing_held(
    slow: type[object], usd: str, applies_first: bool
) -> None:
    async def program() -> Guard:
        store = SlowStore(slow, applies_first=applies_first)
        guard = Guard({}, store=store)

        async def work() -> None:
            async with guard.session(session_id="shared"), one_cent(guard):
                pass

        task = asyncio.create_task(work())
        await store.asked.wait()
        assert not task.done()
        return guard  # The task is cancelled, and what it waits for as well.

    guard = asyncio.run(program())

    assert held(guard) == 0
    assert guard.session(session_id="shared").spent == Decimal(usd)


@pytest.mark.parametrize("applies_first", [True, False])
@pytest.mark.parametrize(
    ("slow", "releases", "usd"),
    [(Reserve, False, "0"), (Release, True, "0"), (Settle, False, "0.01")],
)
async def test_a_coroutine_that_is_closed_while_the_store_answers_leaves_nothing_held(
    slow: type[object], releases: bool, usd: str, applies_first: bool
) -> None:
    """What it asked is answered nevertheless, but nobody waits for that any more."""
    store = SlowStore(slow, applies_first=applies_first)
    guard = Guard({}, store=store)

    async def work() -> None:
        async with guard.session(session_id="shared"), one_cent(guard) as call:
            if releases:
                call.release()

    thrown_away = work()
    waits_for = thrown_away.send(None)
    while not store.asked.is_set():
        await turns(1)
        if waits_for.done():
            waits_for = thrown_away.send(None)
    thrown_away.close()
    held_at_once = held(guard)
    store.answer.set()
    await turns(TURNS_MAX)

    assert (held_at_once, held(guard)) == (0, 0)
    assert guard.session(session_id="shared").spent == Decimal(usd)


class YieldingClock(FakeClock):
    """A fake clock that lets other tasks run while one waits."""

    async def asleep(self, seconds: float) -> None:
        await super().asleep(seconds)
        await asyncio.sleep(0)


async def test_a_task_that_is_cancelled_while_it_waits_for_room_holds_nothing(
    store: Store,
) -> None:
    config = {"defaults": {"max_wait_s": 600}}
    clock = YieldingClock()
    guard = Guard(config, store=store, max_cost_usd="0.01", clock=clock)

    async def work() -> None:
        with contextlib.suppress(CallRefused):
            async with guard.session(session_id="shared"), one_cent(guard):
                pytest.fail("there is no room")

    async with guard.session(session_id="shared"), one_cent(guard):
        task = asyncio.create_task(work())
        await turns(TURNS_MAX)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert held(guard) == 0
    assert guard.session(session_id="shared").steps == 1
