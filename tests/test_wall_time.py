"""Wall time of sessions that several objects and processes work in at once."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guardrails import BudgetExceeded, Guard
from guardrails.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(shared_url: str, clock: FakeClock, tmp_path: Path) -> Iterator[Guard]:
    project_id = f"wall-time-{tmp_path.name}"
    guard = Guard(
        store=shared_url, project_id=project_id, clock=clock, max_wall_time_s=100
    )
    yield guard
    guard.close()


def ask(guard: Guard) -> None:
    with guard.call(tool="search"):
        pass


def test_a_session_that_is_joined_inside_itself_loses_no_time(
    guard: Guard, clock: FakeClock
) -> None:
    with guard.session(session_id="s-1") as session:
        ask(guard)
        clock.advance(seconds=60)
        with guard.session(session_id="s-1"):
            ask(guard)
        clock.advance(seconds=40)
        with guard.session(session_id="s-1"):
            pass
        with pytest.raises(BudgetExceeded, match="max_wall_time_s"):
            ask(guard)

    assert session.wall_time_s == 100


def test_a_session_is_active_while_another_process_works_inside_it(
    guard: Guard, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's calls are charged to it, too, and must not hide its time."""
    with guard.session("router") as outer:
        with guard.session("researcher"):
            for name, value in guard.child_env().items():
                monkeypatch.setenv(name, value)
            child = Guard(clock=clock)
            with child.session():
                for _ in range(10):
                    ask(child)
                    clock.advance(seconds=10)
                with pytest.raises(BudgetExceeded, match="max_wall_time_s"):
                    ask(child)
            child.close()

        assert outer.wall_time_s == 100


async def test_a_task_that_is_cancelled_closes_its_session_although_no_thread_is_free(
    guard: Guard, clock: FakeClock
) -> None:
    """As in a web service whose requests are broken off while its threads work."""
    is_inside, is_free = asyncio.Event(), threading.Event()

    async def request() -> None:
        async with guard.session(session_id="s-1"):
            ask(guard)
            clock.advance(seconds=60)
            is_inside.set()
            await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        task = asyncio.create_task(request())
        await is_inside.wait()
        busy = pool.submit(is_free.wait)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        is_free.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert busy.result()

    session = guard.session(session_id="s-1")
    assert session.status == "completed"
    assert session.wall_time_s == 60
