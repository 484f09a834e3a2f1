"""What many threads use at the same time."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from guardrails.system.threads import THREAD, WeakList, Worker, new_lock


class Thing:
    """Something that is referred to."""


def test_a_weak_list_forgets_what_is_gone() -> None:
    things = WeakList[Thing]()
    kept, other = Thing(), Thing()
    things.add(kept)
    things.add(other)
    del other
    gc.collect()

    assert things.alive() == [kept]


def test_a_weak_list_is_gone_through_while_others_add_and_end() -> None:
    """Threads that switch as often as they can find every thing that lives."""
    things = WeakList[Thing]()
    kept = [Thing() for _ in range(50)]
    for thing in kept:
        things.add(thing)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            things.add(Thing())  # It is gone at once.

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=churn) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        found = [things.alive() for _ in range(2_000)]
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()

    assert all(set(kept) <= set(one) for one in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_lock_of_a_thread_that_a_child_does_not_have_is_free_there() -> None:
    """What the forking thread has itself stays its own, and is left by it."""
    theirs, mine, free = new_lock(), new_lock(), new_lock()
    has_locked, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with theirs:
            has_locked.set()
            may_go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    has_locked.wait()
    with mine:
        child = fork()
        if child == 0:
            mine.release()  # Which fails if it is not this thread's.
            is_free = theirs.acquire(timeout=1) and free.acquire(timeout=1)
            os._exit(0 if is_free else 1)
        is_theirs = not theirs.acquire(blocking=False)
    may_go.set()
    holder.join()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_theirs


def workers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith(THREAD)]


async def test_the_thread_of_a_worker_ends_with_it() -> None:
    worker = Worker()
    assert await worker.do(threading.get_ident) != threading.get_ident()
    mine = workers()

    worker.close()
    for thread in mine:
        thread.join(10)
    assert not workers()
    assert await worker.do(lambda: 1) == 1  # It begins another.
    worker.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_worker_works_in_a_forked_child() -> None:
    worker = Worker()
    assert asyncio.run(worker.do(lambda: 1)) == 1
    child = fork()
    if child == 0:
        os._exit(asyncio.run(worker.do(lambda: 7)))
    worker.close()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_worker_holds_no_exit_up() -> None:
    program = (
        "import asyncio; from guardrails.system.threads import Worker\n"
        "worker = Worker(); print(asyncio.run(worker.do(lambda: 1)))"
    )
    done = subprocess.check_output([sys.executable, "-c", program], timeout=60)

    assert done == b"1\n"


@pytest.mark.parametrize(
    "start",
    [
        "atexit.register(asyncio.run, main())",
        "threading.Thread(target=asyncio.run, args=(main(),)).start()",
    ],
)
def test_an_event_loop_calls_while_the_interpreter_ends(
    start: str, tmp_path: Path
) -> None:
    """No thread is given work then, not even by a loop that the exit waits for."""
    program = f"""
import asyncio, atexit, threading
from guardrails import Guard

async def main():
    if threading.current_thread() is not threading.main_thread():
        threading.main_thread().join()
    guard = Guard({{}}, store="sqlite:///{tmp_path}/g.sqlite3", max_steps=9)
    async with guard.session() as session, guard.call(tool="look"):
        pass
    print(session.steps, session.status)

{start}
"""
    done = subprocess.check_output([sys.executable, "-c", program], timeout=60)

    assert done == b"1 completed\n"


def fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of what these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(20)
    return child
