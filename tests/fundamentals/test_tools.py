"""Tools: functions with a price, a limit, and somebody who notices loops."""

from decimal import Decimal

import pytest

from guardrails import BudgetExceeded, Guard, LoopDetected


def test_a_function_becomes_a_guarded_tool() -> None:
    """`guard.tool` decorates a function, which is called as before."""
    guard = Guard(store="memory://")

    @guard.tool()
    def add(a: int, b: int) -> int:
        return a + b

    with guard.session("support-agent") as session:
        assert add(1, b=2) == 3

    assert session.steps == 1


async def test_a_coroutine_becomes_a_guarded_tool() -> None:
    """An asynchronous function stays asynchronous."""
    guard = Guard(store="memory://")

    @guard.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    async with guard.session("support-agent") as session:
        assert await add(1, b=2) == 3

    assert session.steps == 1


def test_a_tool_has_a_price() -> None:
    """Each call of a tool costs what its decorator says."""
    guard = Guard(store="memory://")

    @guard.tool(server="billing", cost_usd="0.002")
    def refund(order_id: str) -> str:
        return f"refunded {order_id}"

    with guard.session("support-agent") as session:
        refund("A-1")
        refund("A-2")

    assert session.spent == Decimal("0.004")


def test_a_tool_that_the_budget_does_not_cover_is_not_run() -> None:
    """Money for tools and money for models come out of the same budget."""
    guard = Guard(store="memory://", max_cost_usd="0.005")
    refunded: list[str] = []

    @guard.tool(cost_usd="0.002")
    def refund(order_id: str) -> None:
        refunded.append(order_id)

    with guard.session("support-agent"):
        refund("A-1")
        refund("A-2")
        with pytest.raises(BudgetExceeded):
            refund("A-3")

    assert refunded == ["A-1", "A-2"]


def test_calls_of_tools_are_limited() -> None:
    """`max_tool_calls` limits how often tools are called in a session."""
    guard = Guard(store="memory://", max_tool_calls=1)

    @guard.tool()
    def search(query: str) -> list[str]:
        return []

    with guard.session("support-agent"):
        search("cheap flights")
        with pytest.raises(BudgetExceeded, match="max_tool_calls"):
            search("cheaper flights")


def test_a_loop_is_stopped() -> None:
    """Three times the same call with the same result is a loop: the next is stopped."""
    guard = Guard(store="memory://", max_steps=40)

    @guard.tool(server="maps", cost_usd="0.005")
    def geocode(address: str) -> str:
        return "not found"

    with guard.session("support-agent") as session:
        for _ in range(3):
            geocode("Atlantis")
        with pytest.raises(LoopDetected) as stopped:
            geocode("Atlantis")

    assert stopped.value.tool == "maps/geocode"
    assert stopped.value.count == 3
    assert stopped.value.cost == Decimal("0.015")
    assert session.status == "loop_detected"


def test_asking_again_while_the_answer_changes_is_no_loop() -> None:
    """Polling repeats a call too, but its result moves on."""
    guard = Guard(store="memory://", max_steps=40)
    progress = iter(range(0, 100, 20))

    @guard.tool()
    def get_progress(job_id: str) -> int:
        return next(progress)

    with guard.session("support-agent") as session:
        while get_progress("job-7") < 80:
            pass

    assert session.status == "completed"


def test_a_tool_may_be_exempt_from_loops() -> None:
    """`exempt` names tools that may repeat as often as they like."""
    loop = {"action": "stop", "exempt": ["*/get_status"]}
    guard = Guard({"defaults": {"loop": loop}}, store="memory://")

    @guard.tool(server="jobs")
    def get_status(job_id: str) -> str:
        return "waiting"

    with guard.session("support-agent") as session:
        for _ in range(20):
            get_status("job-7")

    assert session.status == "completed"


def test_a_loop_may_be_blocked_instead() -> None:
    """`block` refuses the repeated call only, with words that a model understands."""
    guard = Guard({"defaults": {"loop": {"action": "block"}}}, store="memory://")

    @guard.tool()
    def geocode(address: str) -> str:
        return "not found" if address == "Atlantis" else "52.5,13.4"

    with guard.session("support-agent") as session:
        for _ in range(3):
            geocode("Atlantis")
        with pytest.raises(Exception, match="Do not repeat it"):
            geocode("Atlantis")
        assert geocode("Berlin") == "52.5,13.4"

    assert session.status == "completed"
