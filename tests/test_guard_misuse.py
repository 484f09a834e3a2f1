"""Sessions, calls and tools that are used in the wrong order, or in the wrong place.

Either the mistake is refused in words that mend it, or its result is defined; in
neither case is a call lost that was made.
"""

import asyncio
import contextvars
import copy
import pickle
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from decimal import Decimal
from typing import Any

import pytest

from guardrails import (
    BudgetExceeded,
    ConfigurationError,
    Guard,
    GuardedCall,
    PriceStatus,
    Session,
    TokenUsage,
)
from guardrails.core.calls import Outcome
from guardrails.errors import ReservationConflict
from guardrails.testing import FakeClock


@pytest.fixture
def guard() -> Guard:
    return Guard({}, store="memory://", max_cost_usd="1.00")


def one_cent(guard: Guard, **options: Any) -> GuardedCall:
    return guard.call(
        model="gpt-4o",
        provider="openai",
        input_tokens=2_000,
        max_output_tokens=500,
        **options,
    )


def held_usd(session: Session) -> Decimal:
    assert session.remaining is not None
    return Decimal("1.00") - session.remaining - session.spent


# --- in other hands ---------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_thing_itself_and_counts_once(
    guard: Guard, copied: Callable[[Any], Any]
) -> None:
    """A second one beside it would share half of what it is."""
    with copied({"guard": guard})["guard"].session() as session:
        with one_cent(guard) as call:
            copied(call).settle(cost_usd="0.01")
        copied([session])[0].begin(call.call).finish(Outcome())

    assert copied(guard) is guard
    assert copied(session).steps == 2
    assert session.spent == Decimal("0.02")
    assert held_usd(session) == 0


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_cannot_be_pickled_says_what_to_do_instead(
    guard: Guard, protocol: int
) -> None:
    """As the error that Python raises for a lock: some look for it and go on."""
    session = guard.session()
    instead = {
        guard: r"Guard.child_env\(\)",
        session: "session_id",
        one_cent(guard): "Make",
    }

    for thing, words in instead.items():
        with pytest.raises(TypeError, match=f"{type(thing).__name__} belongs.*{words}"):
            pickle.dumps([thing], protocol)


# --- sessions ---------------------------------------------------------------


def test_a_session_is_not_entered_twice(guard: Guard) -> None:
    with (
        guard.session() as session,
        pytest.raises(ConfigurationError, match="same session_id"),
    ):
        session.__enter__()


def test_an_async_call_without_asyncio_is_refused_and_its_session_left(
    guard: Guard,
) -> None:
    """Under trio, say; `with` works there."""
    ran: list[str] = []

    @guard.tool(cost_usd="0.01")
    async def search() -> None:
        ran.append("search")

    async def work(session: Session) -> None:
        async with session:
            with one_cent(guard):
                ran.append("with")
            with pytest.raises(ConfigurationError, match="need asyncio"):
                async with one_cent(guard):
                    ran.append("async with")
            with pytest.raises(ConfigurationError, match="need asyncio"):
                await search()

    session = guard.session()
    with pytest.raises(StopIteration):
        work(session).send(None)

    assert ran == ["with"]
    assert session.spent == Decimal("0.01")
    assert held_usd(session) == 0
    assert session.status == "completed"
    assert guard.current_session() is not session


async def test_a_session_is_not_entered_by_two_tasks(guard: Guard) -> None:
    async with guard.session() as session:
        with pytest.raises(ConfigurationError, match="same session_id"):
            await session.__aenter__()


def test_a_session_is_entered_again_once_it_was_left(guard: Guard) -> None:
    session = guard.session()
    for _ in range(2):
        with session, one_cent(guard):
            pass

    assert session.steps == 2


def test_a_session_without_calls_is_completed_when_it_is_left(guard: Guard) -> None:
    session = guard.session()
    assert session.status == "active"

    with session:
        pass

    assert session.status == "completed"


def test_a_session_may_be_left_in_another_context(guard: Guard) -> None:
    """As when a generator is closed by somebody else than who started it."""
    session = guard.session()
    contextvars.copy_context().run(session.__enter__)

    session.__exit__(None, None, None)

    assert session.status == "completed"
    assert guard.current_session() is not session


def test_sessions_may_be_left_in_another_order_than_they_were_entered(
    guard: Guard,
) -> None:
    """As when generators with a session each take turns."""
    first, second, third = (guard.session() for _ in range(3))
    for session in (first, second, third):
        session.__enter__()

    second.__exit__(None, None, None)
    assert guard.current_session() is third
    first.__exit__(None, None, None)
    assert guard.current_session() is third
    third.__exit__(None, None, None)

    assert guard.enclosing_session() is None


def test_sessions_that_were_left_elsewhere_are_entered_again(guard: Guard) -> None:
    """This context still has them, and must not go round in them for ever."""
    first, second, other = (
        guard.session(),
        guard.session(),
        Guard({}, store="memory://"),
    )
    for session in (first, second):
        session.__enter__()
    for session in (second, first):
        contextvars.Context().run(session.__exit__, None, None, None)

    with first, second:
        assert guard.current_session() is second
        assert other.enclosing_session() is None

    assert guard.enclosing_session() is None


async def test_a_task_outlives_a_session_and_leaves_its_own(guard: Guard) -> None:
    """It stays in the session that it was made in."""
    left = asyncio.Event()

    async def work() -> None:
        with guard.session():
            await left.wait()
        assert guard.current_session() is outer

    with guard.session() as outer:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    left.set()
    await task


async def test_a_session_of_a_generator_that_nobody_reads_on_is_over(
    guard: Guard,
) -> None:
    """The event loop closes it in a task of its own; here it counts no more."""

    async def answers() -> AsyncGenerator[int]:
        async with guard.session(session_id="acme"):
            for number in range(3):
                yield number

    with guard.session() as around:
        reading = answers()
        async for _ in reading:
            break
        await asyncio.create_task(reading.aclose())
        with one_cent(guard):
            pass
        assert guard.current_session() is around

    assert around.steps == 1
    assert guard.account("acme") is None
    assert guard.enclosing_session() is None


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="tasks do not tell their context yet"
)
async def test_a_session_is_over_in_all_tasks_of_the_context_that_entered_it(
    guard: Guard,
) -> None:
    """As in a notebook: cells share a context, and one that awaits has a copy."""
    shared = contextvars.copy_context()
    session = guard.session(session_id="acme")

    async def enter() -> None:
        session.__enter__()

    async def leave() -> None:
        session.__exit__(None, None, None)

    async def work() -> Session | None:
        with one_cent(guard):
            return guard.enclosing_session()

    await asyncio.create_task(enter(), context=shared)
    outliving = shared.copy()
    await asyncio.create_task(leave(), context=shared.copy())
    assert await asyncio.create_task(work(), context=shared) is None
    assert session.steps == 0
    assert await asyncio.create_task(work(), context=outliving) is session


def test_a_session_of_another_guard_hides_none_of_ours(guard: Guard) -> None:
    other = Guard({}, store="memory://")

    with guard.session() as ours, other.session() as theirs:
        with one_cent(guard):
            pass
        with one_cent(other):
            pass

    assert ours.steps == 1
    assert theirs.steps == 1


def test_the_session_of_the_process_has_the_id_that_the_environment_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GUARDRAILS_SESSION_ID", "ticket-4711")
    guard = Guard({}, store="memory://")

    with one_cent(guard):
        pass

    assert guard.current_session().session_id == "ticket-4711"


# --- calls ------------------------------------------------------------------


def test_a_call_guards_once(guard: Guard) -> None:
    with guard.session() as session, one_cent(guard) as call:
        pass

    with session, pytest.raises(ConfigurationError, match="used before"), call:
        pytest.fail("this would be made unguarded")
    assert session.steps == 1


def test_a_call_that_was_refused_may_be_tried_again() -> None:
    guard = Guard({}, store="memory://", max_cost_usd="0.01")
    with guard.session() as session:
        call = guard.call(tool="t", cost_usd="0.02")
        with pytest.raises(Exception, match="stopped"):
            call.__enter__()

        guard.raise_limit(session.session_id, max_cost_usd="0.02")
        with call:
            pass

    assert session.spent == Decimal("0.02")


def test_settling_what_was_never_reserved_is_refused(guard: Guard) -> None:
    with pytest.raises(ConfigurationError, match="with guard"):
        one_cent(guard).settle(TokenUsage(input_tokens=1))


@pytest.mark.parametrize("kind", ["sync", "async"])
class TestSettling:
    """The same calls, in the sync and in the async form."""

    @pytest.fixture
    def use(self, guard: Guard, kind: str) -> Callable[..., Session]:
        """Opens a call, does something with it, and returns its session."""

        async def use_async(work: Callable[[GuardedCall], object]) -> Session:
            async with (
                guard.session(session_id="s") as session,
                one_cent(guard) as call,
            ):
                work(call)
            return session

        def use_call(work: Callable[[GuardedCall], object]) -> Session:
            if kind == "async":
                return asyncio.run(use_async(work))
            with guard.session(session_id="s") as session, one_cent(guard) as call:
                work(call)
            return session

        return use_call

    def test_the_first_settling_counts(self, use: Callable[..., Session]) -> None:
        def work(call: GuardedCall) -> None:
            call.settle(TokenUsage(input_tokens=1_000))
            call.settle(TokenUsage(input_tokens=9_000))

        session = use(work)

        assert session.spent == Decimal("0.0025")
        assert (len(session.events()), held_usd(session)) == (1, 0)

    def test_releasing_after_settling_gives_nothing_back(
        self, use: Callable[..., Session]
    ) -> None:
        def work(call: GuardedCall) -> None:
            call.settle(TokenUsage(input_tokens=1_000))
            call.release()

        session = use(work)

        assert session.spent == Decimal("0.0025")
        assert (session.steps, held_usd(session)) == (1, 0)

    def test_releasing_twice_gives_back_once(self, use: Callable[..., Session]) -> None:
        def work(call: GuardedCall) -> None:
            call.release()
            call.release()

        session = use(work)

        assert (session.spent, session.steps, held_usd(session)) == (0, 0, 0)
        assert not session.events()

    def test_settling_after_releasing_books_the_truth(
        self, use: Callable[..., Session]
    ) -> None:
        def work(call: GuardedCall) -> None:
            call.release()
            call.settle(TokenUsage(input_tokens=1_000))

        session = use(work)

        assert session.spent == Decimal("0.0025")
        assert (session.steps, len(session.events()), held_usd(session)) == (1, 1, 0)

    @pytest.mark.parametrize(
        ("settling", "key"),
        [
            ({"cost_usd": "free"}, "cost_usd: 'free'"),
            ({"cost_usd": -1}, "cost_usd: -1"),
            ({"usage": {"input_tokens": 1}}, "usage: a dict is no TokenUsage"),
            ({"usage": 7}, "usage: a int is no TokenUsage"),
        ],
    )
    def test_a_settling_that_cannot_be_read_books_what_was_held(
        self, use: Callable[..., Session], settling: dict[str, Any], key: str
    ) -> None:
        def work(call: GuardedCall) -> None:
            with pytest.raises(ConfigurationError, match=key):
                call.settle(**settling)

        session = use(work)

        (event,) = session.events()
        assert session.spent == Decimal("0.01")
        assert event.charge.status is PriceStatus.ESTIMATED

    def test_a_settling_that_cannot_be_read_and_ends_the_block_books_what_was_held(
        self, use: Callable[..., Session], guard: Guard
    ) -> None:
        """The call was made: it is not charged like one that failed."""
        with pytest.raises(ConfigurationError, match="cost_usd"):
            use(lambda call: call.settle(cost_usd="free"))

        assert guard.session(session_id="s").spent == Decimal("0.01")

    def test_a_settling_that_cannot_be_read_may_be_mended(
        self, use: Callable[..., Session]
    ) -> None:
        def work(call: GuardedCall) -> None:
            with pytest.raises(ConfigurationError):
                call.settle(cost_usd="free")
            call.settle(cost_usd="0.004")

        session = use(work)

        assert session.spent == Decimal("0.004")

    @pytest.mark.parametrize("model", ["gpt-4o\x00\n", "m" * 10**6, "", 7])
    def test_a_model_that_answers_under_a_bad_name_is_booked(
        self, use: Callable[..., Session], model: Any
    ) -> None:
        session = use(
            lambda call: call.settle(TokenUsage(input_tokens=1_000), model=model)
        )

        (event,) = session.events()
        assert event.model is not None
        assert event.model.isprintable() or "\ufffd" in event.model
        assert len(event.model.encode()) <= 256
        assert session.spent == Decimal("0.0025")


def test_settling_after_the_block_changes_nothing(guard: Guard) -> None:
    with guard.session() as session:
        with one_cent(guard) as call:
            pass
        call.settle(TokenUsage(input_tokens=1))

    assert session.spent == Decimal("0.01")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_settling_after_the_block_books_what_was_given_back_in_it(
    guard: Guard, kind: str
) -> None:
    async def give_back(call: GuardedCall) -> None:
        async with call:
            call.release()

    with guard.session() as session:
        call = one_cent(guard)
        if kind == "async":
            asyncio.run(give_back(call))
        else:
            with call:
                call.release()
        assert (session.spent, session.steps) == (0, 0)
        call.settle(TokenUsage(input_tokens=1_000))

    assert (session.spent, session.steps) == (Decimal("0.0025"), 1)


def test_one_reservation_id_counts_once(guard: Guard) -> None:
    with guard.session() as session:
        for _ in range(3):
            with one_cent(guard, reservation_id="order-7"):
                pass

    assert (session.spent, session.steps) == (Decimal("0.01"), 1)


def test_one_reservation_id_for_two_contents_is_refused(guard: Guard) -> None:
    with guard.session():
        with one_cent(guard, reservation_id="order-7"):
            pass
        with (
            pytest.raises(ReservationConflict, match="order-7"),
            guard.call(tool="t", reservation_id="order-7"),
        ):
            pytest.fail("this would be made unguarded")


def test_a_reservation_id_that_was_given_back_admits_no_call(guard: Guard) -> None:
    with guard.session() as session:
        with one_cent(guard, reservation_id="order-7") as call:
            call.release()
        with (
            pytest.raises(ReservationConflict, match=r"order-7.*given back.*new id"),
            one_cent(guard, reservation_id="order-7"),
        ):
            pytest.fail("this would be made unguarded")

    assert (session.spent, session.steps) == (0, 0)


@pytest.mark.parametrize("call_id", ["a\x00b", "x" * 10**6, "", 7, b"id"])
def test_a_call_id_that_a_model_wrote_badly_breaks_nothing(
    guard: Guard, call_id: Any
) -> None:
    with (
        guard.session() as session,
        guard.call(tool="t", arguments={"a": 1}, call_id=call_id),
    ):
        pass

    assert session.steps == 1


def test_a_session_of_another_project_inside_is_refused() -> None:
    """Both are charged in one step, which no cluster does over two projects."""
    guard = Guard({}, store="memory://", project_id="shop")
    with guard.session("outer"):
        with pytest.raises(ConfigurationError, match="inside a session of project"):
            guard.session("inner", project_id="other")
        assert guard.session("inner", project_id="shop").attribution.agent == "inner"


def test_a_clock_that_is_set_back_turns_the_windows_back() -> None:
    """A machine that has begun in the future charges today once it knows better."""
    clock = FakeClock()
    day = {"name": "day", "per": ["customer_id"], "every": "day", "max_steps": 2}
    guard = Guard({"budgets": [day]}, store="memory://", clock=clock)
    today_ms = clock.now_ms()
    with guard.session("today", customer_id="acme"):
        for _ in range(2):
            with guard.call(tool="t"):
                pass

    clock.set(today_ms + 40 * 86_400_000)
    with guard.session("future", customer_id="acme"):
        with guard.call(tool="t"):
            pass
        clock.set(today_ms)
        with pytest.raises(BudgetExceeded), guard.call(tool="t"):
            pass


def test_a_session_that_is_left_elsewhere_says_so_once(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a plain dependency of FastAPI, which is entered in a thread."""
    for _ in range(2):
        session = guard.session("support", session_id="s-1")
        contextvars.copy_context().run(session.__enter__)
        with one_cent(guard):
            pass
        session.__exit__(None, None, None)

    (record,) = caplog.records
    assert "session s-1 was left in another context" in record.getMessage()
    assert session.spent == 0


async def test_a_session_that_is_left_where_it_is_open_says_nothing(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    def reads() -> Generator[None]:
        with guard.session():
            yield

    list(reads())
    thrown_away = reads()
    next(thrown_away)
    contextvars.copy_context().run(thrown_away.close)
    first, second = guard.session(), guard.session()
    first.__enter__()
    await second.__aenter__()
    first.__exit__(None, None, None)
    await second.__aexit__(None, None, None)

    assert not caplog.records
