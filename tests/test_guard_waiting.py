"""Waiting: a call that only open holds stand in the way of may wait for them."""

import asyncio
import threading
from decimal import Decimal

import pytest

from guardrails import BudgetExceeded, CallRefused, Guard, GuardedCall, TokenUsage
from guardrails.testing import FakeClock

SECONDS_MAX = 30
"""After this a worker that waits for another gives up, and the test fails."""


class AttendedClock(FakeClock):
    """A fake clock that says when somebody sleeps, and lets others go on then."""

    def __init__(self) -> None:
        super().__init__()
        self.is_slept = threading.Event()
        self.sleeps = 0

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.sleeps += 1
        self.is_slept.set()

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)


def patient_guard(clock: FakeClock, *, max_wait_s: int = 600) -> Guard:
    return Guard(
        {"defaults": {"max_wait_s": max_wait_s}},
        store="memory://",
        max_cost_usd="0.01",
        clock=clock,
    )


def one_cent(guard: Guard) -> GuardedCall:
    return guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    )


NOTHING = TokenUsage()


def test_a_call_is_refused_at_once_without_max_wait_s() -> None:
    guard = Guard({}, store="memory://", max_cost_usd="0.01")

    with (
        guard.session() as session,
        one_cent(guard),
        pytest.raises(CallRefused, match="max_wait_s"),
    ):
        one_cent(guard).__enter__()

    assert session.status == "completed", "it is no stop: the hold may settle lower"


def test_a_thread_waits_until_the_hold_in_its_way_settles_lower() -> None:
    clock = AttendedClock()
    guard = patient_guard(clock)
    waited: list[int] = []

    def work() -> None:
        with guard.session(session_id="shared"), one_cent(guard) as call:
            waited.append(clock.sleeps)
            call.settle(TokenUsage(input_tokens=4_000))

    waiting = threading.Thread(target=work)
    with guard.session(session_id="shared") as session:
        with one_cent(guard) as call:
            waiting.start()
            assert clock.is_slept.wait(SECONDS_MAX)
            assert not waited, "not before the other is done"
            call.settle(NOTHING)
        waiting.join(SECONDS_MAX)

    assert waited
    assert session.spent == Decimal("0.01")
    assert session.status == "completed"


async def test_a_task_waits_until_the_hold_in_its_way_settles_lower() -> None:
    clock = AttendedClock()
    guard = patient_guard(clock)
    waited: list[int] = []

    async def work() -> None:
        async with one_cent(guard):
            waited.append(clock.sleeps)

    async with guard.session(session_id="shared") as session:
        async with one_cent(guard) as call:
            task = asyncio.create_task(work())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not waited
            call.settle(NOTHING)
        await task

    assert waited > [0]
    assert session.spent == Decimal("0.01")


def test_a_call_that_waits_in_vain_is_refused_after_max_wait_s() -> None:
    clock = FakeClock()
    guard = patient_guard(clock, max_wait_s=5)
    started_ms = clock.monotonic_ms()

    with (
        guard.session() as session,
        one_cent(guard),
        pytest.raises(CallRefused),
    ):
        one_cent(guard).__enter__()

    assert 5_000 <= clock.monotonic_ms() - started_ms < 5_200
    assert session.status == "completed"


def test_a_call_does_not_wait_for_what_no_hold_can_free() -> None:
    clock = AttendedClock()
    guard = patient_guard(clock)

    with guard.session():
        with one_cent(guard):
            pass
        with pytest.raises(BudgetExceeded):
            one_cent(guard).__enter__()

    assert not clock.sleeps


def test_a_call_that_waits_sees_the_stop_of_its_session() -> None:
    clock = AttendedClock()
    guard = patient_guard(clock)
    refusals: list[Exception] = []

    def work() -> None:
        try:
            with guard.session(session_id="shared"), one_cent(guard):
                pass
        except BudgetExceeded as stop:
            refusals.append(stop)

    waiting = threading.Thread(target=work)
    with guard.session(session_id="shared"):
        with one_cent(guard):
            waiting.start()
            assert clock.is_slept.wait(SECONDS_MAX)
        waiting.join(SECONDS_MAX)

    assert len(refusals) == 1, "the hold settled at its bound, so nothing is left"
