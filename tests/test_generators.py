"""Sessions that generators have open, wherever these are read on.

Web servers read a plain generator in threads, and each time in another copy of a
context. Nothing of what the generator has set in one of them is left in the next.
"""

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from guardrails import BudgetExceeded, Guard, Session, carried, layer

T = TypeVar("T")

STEPS_MAX = 5


@pytest.fixture
def guard() -> Guard:
    return Guard({}, store="memory://", max_steps=STEPS_MAX)


def step(guard: Guard) -> None:
    with guard.call(tool="t"):
        pass


def steps_of(guard: Guard) -> int:
    account = guard.account("s-1")
    assert account is not None
    return account.steps


def assert_limit_held(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    """In the session, which is over, and nobody had to be told of it."""
    assert steps_of(guard) == STEPS_MAX
    assert guard.enclosing_session() is None
    assert "another context" not in caplog.text


def directly(guard: Guard) -> Session:
    return guard.session(session_id="s-1")


@contextlib.contextmanager
def of_own(guard: Guard) -> Iterator[Session]:
    with guard.session(session_id="s-1") as session:
        yield session


@contextlib.contextmanager
def of_stack(guard: Guard) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(of_own(guard))
        yield


def read_in_threads(reading: Generator[T]) -> list[T]:
    """Reads a generator to its end as Starlette does."""
    read: list[T] = []
    with ThreadPoolExecutor(2) as pool:
        while True:
            context = contextvars.copy_context()
            answer = pool.submit(context.run, next, reading, None).result()
            if answer is None:
                return read
            read.append(answer)


@pytest.mark.parametrize("around", [directly, of_own, of_stack])
def test_a_generator_that_is_read_in_threads_spends_within_its_session(
    around: Callable[[Guard], contextlib.AbstractContextManager[object]],
    guard: Guard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its calls count, and its limit holds, as if one thread had read it.

    Also where a function enters it that is a generator, and is not read on meanwhile.
    """

    def answers() -> Generator[int]:
        with around(guard):
            for number in range(2 * STEPS_MAX):
                step(guard)
                yield number

    with pytest.raises(BudgetExceeded):
        read_in_threads(answers())

    assert_limit_held(guard, caplog)


def test_what_a_generator_calls_is_in_its_session_too(guard: Guard) -> None:
    """Also a function in a thread, and a generator that it reads itself."""

    def parts() -> Generator[int]:
        for number in range(2):
            step(guard)
            yield number

    def answers(pool: ThreadPoolExecutor) -> Generator[int]:
        with guard.session(session_id="s-1"):
            yield from parts()
            pool.submit(carried(step), guard).result()

    with ThreadPoolExecutor(1) as pool:
        read_in_threads(answers(pool))

    assert steps_of(guard) == 3


def test_sessions_inside_a_generator_are_inside_its_session(guard: Guard) -> None:
    """One that is opened later, and in another thread, is charged to both."""

    def answers() -> Generator[int]:
        with guard.session("main", session_id="s-1"):
            yield 1
            with guard.session("helper", session_id="s-2"):
                step(guard)
                yield 2
                step(guard)
            step(guard)

    assert read_in_threads(answers()) == [1, 2]

    steps = [
        account and account.steps for account in map(guard.account, ("s-1", "s-2"))
    ]
    assert steps == [3, 2]


def test_a_generator_that_is_read_inside_a_session_keeps_its_own(guard: Guard) -> None:
    """The session around the reader is around that of the generator."""

    def answers() -> Generator[int]:
        with guard.session("helper", session_id="inner"):
            for number in range(2):
                step(guard)
                yield number

    with guard.session("main", session_id="outer"):
        read_in_threads(answers())
        step(guard)

    steps = [
        account and account.steps for account in map(guard.account, ("inner", "outer"))
    ]
    assert steps == [2, 3]


def test_the_readers_of_generators_do_not_spend_for_them(guard: Guard) -> None:
    """Nor for one that was thrown away, whose frame may be another's by now."""

    def answers() -> Generator[Session]:
        with guard.session() as session:
            yield session
            step(guard)

    def entered_by_hand() -> Generator[Session]:
        session = guard.session()
        session.__enter__()
        yield session

    around = contextvars.copy_context().run
    readings = [around(iter, answers()), around(iter, entered_by_hand())]
    sessions = [around(next, reading) for reading in readings]
    step(guard)
    assert guard.enclosing_session() is None
    del readings
    gc.collect()
    step(guard)

    assert [session.steps for session in sessions] == [0, 0]


def test_a_thread_that_began_a_generator_is_free_of_its_session(guard: Guard) -> None:
    """Once that is left, wherever: the thread of a pool has one context for all."""

    def answers() -> Generator[int]:
        with guard.session(session_id="s-1"):
            for number in range(2):
                step(guard)
                yield number

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        reading = answers()
        one.submit(next, reading).result()
        late = one.submit(carried, step).result()
        other.submit(list, reading).result()
        for pool in (one, other):
            assert pool.submit(guard.enclosing_session).result() is None
        other.submit(late, guard).result()

    assert steps_of(guard) == 3


def test_a_thread_that_comes_later_is_not_the_one_that_began_a_generator(
    guard: Guard,
) -> None:
    """Although the system gives it the same number."""

    def answers() -> Generator[Callable[[Guard], None]]:
        with guard.session(session_id="s-1"):
            yield carried(step)

    reading, late = answers(), list[Callable[[Guard], None]]()
    in_thread(lambda: late.append(next(reading)))
    assert next(reading, None) is None
    for _ in range(STEPS_MAX):
        in_thread(lambda: late[0](guard))

    assert steps_of(guard) == STEPS_MAX


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_layer_that_is_left_in_another_context_breaks_nothing(guard: Guard) -> None:
    """What it was said of is over there."""

    def answers() -> Generator[int]:
        with guard.session(), layer("memory.summary"):
            yield 1
            step(guard)

    assert read_in_threads(answers()) == [1]


async def test_an_asynchronous_generator_may_be_read_by_many_tasks(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    """As where each answer is waited for with a time limit."""

    async def answers() -> AsyncGenerator[int]:
        async with guard.session(session_id="s-1"):
            for number in range(2 * STEPS_MAX):
                async with guard.call(tool="t"):
                    pass
                yield number

    reading = answers()
    with pytest.raises(BudgetExceeded):
        while True:
            await asyncio.create_task(anext(reading))  # pyright: ignore[reportArgumentType]

    assert_limit_held(guard, caplog)


async def test_an_asynchronous_generator_may_enter_a_session_by_a_stack(
    guard: Guard,
) -> None:
    """Or by a function of its own."""

    @contextlib.asynccontextmanager
    async def around() -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(guard.session(session_id="s-1"))
            yield

    async def answers() -> AsyncGenerator[int]:
        async with around():
            for number in range(2 * STEPS_MAX):
                step(guard)
                yield number

    reading = answers()
    with pytest.raises(BudgetExceeded):
        while True:
            await asyncio.create_task(anext(reading))  # pyright: ignore[reportArgumentType]

    assert steps_of(guard) == STEPS_MAX


def test_a_generator_keeps_its_session_when_the_one_around_it_is_left(
    guard: Guard,
) -> None:
    """Also where another one is around both, as one for the whole program may be."""

    def answers() -> Generator[int]:
        with guard.session(session_id="inner"):
            for number in range(2):
                step(guard)
                yield number

    reading = answers()
    with guard.session(session_id="program"):
        with guard.session(session_id="request"):
            contextvars.copy_context().run(next, reading)
        contextvars.copy_context().run(next, reading)

    account = guard.account("inner")
    assert account is not None
    assert account.steps == 2


def test_a_generator_keeps_its_session_when_it_leaves_one_inside(
    guard: Guard,
) -> None:
    """The session around the reader is around both."""

    def answers() -> Generator[int]:
        with guard.session(session_id="main"):
            with guard.session(session_id="helper"):
                yield 1
            step(guard)
            yield 2

    with guard.session(session_id="program"):
        assert read_in_threads(answers()) == [1, 2]

    account = guard.account("main")
    assert account is not None
    assert account.steps == 1


def test_an_object_may_be_entered_again_inside_a_generator_that_it_was_around(
    guard: Guard,
) -> None:
    """Then it is inside; it is not around itself."""
    other = Guard({}, store="memory://")
    again = guard.session(session_id="again")

    def answers() -> Generator[int]:
        with guard.session(session_id="s-1"):
            yield 1
            with again:
                step(guard)
                step(other)
                yield 2

    reading = answers()
    with again:
        contextvars.copy_context().run(next, reading)
    contextvars.copy_context().run(next, reading)

    assert again.steps == 1


def test_generators_that_overlap_for_ever_break_nothing(guard: Guard) -> None:
    """Each begins in the context of the one before it, which is left later."""

    def answers() -> Generator[Session]:
        with guard.session(session_id="s-1") as session:
            yield session

    reading = answers()
    next(reading)
    for _ in range(sys.getrecursionlimit()):
        before, reading = reading, answers()
        next(reading)
        assert next(before, None) is None
    step(guard)
    reading.close()

    assert steps_of(guard) == 1
