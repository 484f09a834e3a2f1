"""Tools: functions of all kinds, and arguments and results of any kind.

Whatever a tool is called with, and whatever comes back, it runs as it would
without a guard, and is counted.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from guardrails import ConfigurationError, Guard, LoopDetected
from guardrails.core.calls import CallStatus, Outcome, ToolCall


@pytest.fixture
def guard() -> Guard:
    return Guard({}, store="memory://", max_cost_usd="1.00")


def test_a_generator_is_refused_as_a_tool(guard: Guard) -> None:
    def lines() -> Iterator[str]:
        yield "one"

    async def alines() -> Any:
        yield "one"

    for function in (lines, alines):
        with pytest.raises(ConfigurationError, match=f"'{function.__name__}'.*list"):
            guard.tool()(function)


def test_what_has_no_name_needs_one_as_a_tool(guard: Guard) -> None:
    add_one = functools.partial(max, 1)

    with pytest.raises(ConfigurationError, match=r"tool\.name"):
        guard.tool()(add_one)
    with guard.session() as session:
        assert guard.tool(name="at_least_one")(add_one)(0) == 1
    assert session.steps == 1


def test_a_tool_that_is_called_wrongly_says_so_itself(guard: Guard) -> None:
    @guard.tool()
    def add(a: int, b: int) -> int:
        return a + b

    with guard.session(), pytest.raises(TypeError, match=r"add\(\).*'b'"):
        add(*[1])


def test_a_tool_that_calls_itself_counts_each_time(guard: Guard) -> None:
    @guard.tool()
    def countdown(number: int) -> int:
        return countdown(number - 1) if number else 0

    with guard.session() as session:
        countdown(3)

    assert session.steps == 4


def test_a_call_inside_of_what_a_framework_runs_hides_it(guard: Guard) -> None:
    """A function takes over the call that is made of it, and not one further out."""

    @guard.tool()
    def search() -> None:
        """Is the framework's tool, and calls itself by way of another."""

    with guard.session() as session:
        opened = session.begin(ToolCall(tool="search"))
        opened.enter_scope(is_offered=True)
        with guard.call(tool="database"):
            search()
        opened.leave_scope()
        opened.finish(Outcome())

    assert session.steps == 3


def test_a_tool_that_fails_is_booked_and_its_error_is_its_own(guard: Guard) -> None:
    failure = ConnectionError("no route")

    @guard.tool(cost_usd="0.01")
    def fetch(url: str) -> str:
        raise failure

    with guard.session() as session, pytest.raises(ConnectionError) as raised:
        fetch("a")

    (event,) = session.events()
    assert raised.value is failure
    assert (event.status, event.error_type) == (CallStatus.ERROR, "ConnectionError")
    assert session.spent == Decimal("0.01")


@pytest.mark.parametrize("outcome", [None, ConnectionError("no route")], ids=repr)
def test_a_tool_that_returns_nothing_or_fails_alike_is_in_a_loop(
    guard: Guard, outcome: Exception | None
) -> None:
    @guard.tool()
    def send(text: str) -> None:
        if outcome is not None:
            raise outcome

    def send_once() -> None:
        with contextlib.suppress(ConnectionError):
            send("hello")

    with guard.session() as session:
        for _ in range(3):
            send_once()
        with pytest.raises(LoopDetected):
            send_once()

    assert session.steps == 3


@pytest.mark.parametrize(
    ("ids", "status"),
    [(["c1"] * 4, "completed"), (["c1", "c2", "c3"], "loop_detected")],
)
def test_what_a_framework_runs_again_for_one_call_of_the_model_is_no_loop(
    ids: list[str], status: str
) -> None:
    """After an interrupt it does, and the model has asked but once."""
    guard = Guard({"defaults": {"loop": {"action": "stop"}}}, store="memory://")

    with guard.session() as session:
        for call_id in ids:
            with guard.call(tool="t", arguments={"a": 1}, call_id=call_id) as call:
                call.settle(result="the same")

    assert (session.status, session.steps) == (status, len(ids))


def test_the_price_of_the_policy_wins_over_that_of_the_code() -> None:
    """Whoever operates an agent knows what is billed; both ways lead to one price."""
    guard = Guard(
        {"tools": {"maps/geocode": {"cost_per_call_usd": "0.02"}}}, store="memory://"
    )

    @guard.tool(server="maps", cost_usd="0.01")
    def geocode(address: str) -> None:
        pass

    with guard.session() as session:
        geocode("Berlin")
        with guard.call(tool="geocode", server="maps", cost_usd="0.01"):
            pass

    assert session.spent == Decimal("0.04")


# --- values that cannot be written down ------------------------------------


class Hostile:
    """Raises whatever is asked of it."""

    def _refuse(self, *args: object) -> Any:
        raise RuntimeError("hands off")

    __repr__ = __str__ = __eq__ = __hash__ = __len__ = __iter__ = _refuse
    __getattr__ = __reduce__ = __bool__ = _refuse


def cycle() -> object:
    inner: dict[str, object] = {}
    inner["outer"] = [inner]
    return inner


def deep() -> object:
    value: object = []
    for _ in range(100_000):
        value = [value]
    return value


def endless() -> Iterator[int]:
    while True:
        yield 0


VALUES: dict[str, Callable[[], object]] = {
    "cycle": cycle,
    "set": lambda: {1, "two", (3,)},
    "bytes": lambda: b"\xff" * 1_000,
    "10 MB of text": lambda: "x" * 10_000_000,
    "10 MB of bytes": lambda: bytes(10_000_000),
    "a million numbers": lambda: list(range(1_000_000)),
    "100,000 levels": deep,
    "hostile object": Hostile,
    "list of hostile objects": lambda: [Hostile()] * 3,
    "hostile class": lambda: Hostile,
    "endless generator": endless,
    "lock": threading.Lock,
    "function": lambda: print,
    "lone surrogate": lambda: "\ud800",
    "not a number": lambda: float("nan"),
    "huge number": lambda: 10**50_000,
    "exception": lambda: ValueError(Hostile()),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_tool_takes_and_returns_any_value(
    guard: Guard, value: Callable[[], object]
) -> None:
    given = value()

    @guard.tool(cost_usd="0.01")
    def echo(it: object) -> object:
        return it

    with guard.session() as session:
        returned = echo(given)

    assert returned is given
    assert (session.steps, session.spent) == (1, Decimal("0.01"))
    assert len(session.events()) == 1
    assert not guard.engine.failures


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_coroutine_takes_and_returns_any_value(
    guard: Guard, value: Callable[[], object]
) -> None:
    given = value()

    @guard.tool(cost_usd="0.01")
    async def echo(it: object) -> object:
        return it

    async with guard.session() as session:
        returned = await echo(given)

    assert returned is given
    assert (session.steps, session.spent) == (1, Decimal("0.01"))
    assert not guard.engine.failures


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_call_takes_any_value_as_arguments_and_result(
    guard: Guard, value: Callable[[], object]
) -> None:
    with (
        guard.session() as session,
        guard.call(tool="echo", arguments=value(), cost_usd="0.01") as call,
    ):
        call.settle(result=value())

    assert (session.steps, session.spent) == (1, Decimal("0.01"))
    assert not guard.engine.failures


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_the_same_value_again_and_again_is_a_loop(
    guard: Guard, value: Callable[[], object]
) -> None:
    """A value that cannot be written down does not hide a loop."""

    @guard.tool()
    def look_at(it: object) -> str:
        return "nothing"

    given = value()
    with guard.session():
        for _ in range(3):
            look_at(given)
        with pytest.raises(LoopDetected):
            look_at(given)


def hidden_by_a_decorator(work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def decorated(*args: Any) -> Any:
        return work(*args)

    return decorated


def hidden_by_a_class(work: Callable[..., Any]) -> Callable[..., Any]:
    class Tool:
        async def __call__(self, *args: Any) -> Any:
            return await work(*args)

    return Tool()


@pytest.mark.parametrize("hidden", [hidden_by_a_decorator, hidden_by_a_class])
class TestHiddenCoroutines:
    """What returns a coroutine is over when that is, and not when it has returned."""

    async def test_a_changing_result_is_no_loop(
        self, guard: Guard, hidden: Callable[..., Any]
    ) -> None:
        answers = itertools.count()

        async def look_at(it: str) -> int:
            await asyncio.sleep(0)
            return next(answers)

        look = guard.tool(name="look", cost_usd="0.01")(hidden(look_at))
        with guard.session() as session:
            assert [await look("it") for _ in range(5)] == [0, 1, 2, 3, 4]
        assert (session.steps, session.spent) == (5, Decimal("0.05"))

    async def test_the_same_result_is_a_loop(
        self, guard: Guard, hidden: Callable[..., Any]
    ) -> None:
        async def look_at(it: str) -> int:
            return 0

        look = guard.tool(name="look")(hidden(look_at))
        with guard.session(), pytest.raises(LoopDetected, match="identical"):
            for _ in range(4):
                await look("it")

    async def test_it_is_held_until_it_ends_and_fails_where_it_fails(
        self, guard: Guard, hidden: Callable[..., Any]
    ) -> None:
        held: list[Decimal] = []

        async def fail() -> None:
            with guard.call(tool="inner"):
                pass
            held.append(guard.session(session_id="s").remaining or Decimal(0))
            raise ValueError("no such place")

        failing = guard.tool(name="failing", cost_usd="0.25")(hidden(fail))
        with guard.session(session_id="s") as session:
            with pytest.raises(ValueError, match="no such place"):
                await failing()
            with guard.call(tool="after"):
                pass
        statuses = {event.tool: event.status for event in session.events()}
        assert held == [Decimal("0.75")]
        assert statuses["failing"] is CallStatus.ERROR
        assert list(statuses) == ["inner", "failing", "after"]
        assert session.spent == Decimal("0.25")

    async def test_one_that_is_thrown_away_is_booked(
        self, guard: Guard, hidden: Callable[..., Any]
    ) -> None:
        async def wait() -> None:
            await asyncio.Event().wait()

        waiting = guard.tool(name="waiting", cost_usd="0.25")(hidden(wait))
        with guard.session() as session:
            coroutine = waiting()
            coroutine.send(None)
            coroutine.close()
            task = asyncio.ensure_future(waiting())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        kinds = [event.status for event in session.events()]
        assert kinds == [CallStatus.BROKEN_OFF] * 2
        assert (session.spent, session.steps) == (Decimal("0.50"), 2)


def test_what_brings_its_result_later_is_no_loop_by_what_it_is(guard: Guard) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        @guard.tool()
        def ask(it: int) -> object:
            return pool.submit(int, it)

        @guard.tool()
        def read(it: int) -> object:
            return (number for number in range(it))

        with guard.session() as session:
            for tool in (ask, read):
                for _ in range(5):
                    tool(1)
    assert session.status == "completed"


def test_arguments_that_mean_nothing_hide_no_loop_however_they_are_passed() -> None:
    loop = {"action": "stop", "ignore_arguments": ["request_id"]}
    guard = Guard({"defaults": {"loop": loop}}, store="memory://")

    @guard.tool()
    def named(q: str, request_id: int) -> str:
        return "nothing"

    @guard.tool()
    def others(q: str, **options: object) -> str:
        return "nothing"

    for tool in (named, others):
        with guard.session(), pytest.raises(LoopDetected):
            for number in range(9):
                tool("it", request_id=number)
    with guard.session() as session:  # What means something does.
        for number in range(9):
            others("it", page=number)
    assert session.steps == 9


def test_a_name_that_comes_twice_leaves_calls_apart(guard: Guard) -> None:
    @guard.tool()
    def look_at(it: str, /, **options: object) -> str:
        return "nothing"

    with guard.session() as session:
        for number in range(9):
            look_at("it", it=number)
    assert session.steps == 9


def test_an_error_whose_text_raises_stays_the_error_that_it_is(guard: Guard) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("hands off")

    @guard.tool()
    def fail() -> None:
        raise Unspeakable

    with guard.session() as session, pytest.raises(Unspeakable):
        fail()

    (event,) = session.events()
    assert event.error_type == "Unspeakable"
    assert not guard.engine.failures


def test_a_loop_of_a_tool_without_a_price_does_not_cost_nothing() -> None:
    """What it costs is not known, which is not 0."""
    guard = Guard({"defaults": {"loop": {"action": "stop"}}}, store="memory://")

    @guard.tool()
    def ping(host: str) -> str:
        return "no answer"

    with guard.session("a"), pytest.raises(LoopDetected) as stopped:
        while True:
            ping("db")

    assert "ping repeated 3 times (identical)" in str(stopped.value)
    assert "$" not in str(stopped.value)
