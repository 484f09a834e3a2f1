"""Waste: what was called in vain, and what limits would have refused."""

import logging

import pytest

from guardrails import Guard, TokenUsage


class BrokenError(Exception):
    """What a tool fails with."""


def spend(guard: Guard, by: str) -> dict[str | None, tuple[int, str]]:
    """Returns the calls and the cost of each name."""
    return {
        row.names[0]: (row.calls, f"{row.usd:f}")
        for row in guard.spend(by=[by], since="1h")
    }


def look(guard: Guard, question: str, *, answer: str | None = "nothing") -> None:
    """Calls a tool for a cent; without an answer it fails."""
    with guard.call(tool="look", arguments={"q": question}, cost_usd="0.01") as call:
        if answer is None:
            raise BrokenError
        call.settle(result=answer)


def test_failures_retries_and_repeats_are_told_apart() -> None:
    """Of five calls two were of use: the first answer, and another one later."""
    guard = Guard({"defaults": {"loop": {"action": "warn"}}}, store="memory://")

    with guard.session("support-agent") as session:
        with pytest.raises(BrokenError):
            look(guard, "weather", answer=None)
        look(guard, "weather")  # The same again, and it got through.
        look(guard, "weather")  # The same arguments, and the same result.
        look(guard, "weather", answer="sunny")  # The same arguments: not in vain.
        look(guard, "traffic")

    assert [event.waste for event in session.events()] == [
        "error",
        "retry",
        "repeat",
        None,
        None,
    ]
    assert spend(guard, "waste") == {
        "error": (1, "0.01"),
        "retry": (1, "0.01"),
        "repeat": (1, "0.01"),
        None: (2, "0.02"),
    }


def test_each_attempt_at_a_model_call_is_counted() -> None:
    """Attempts are of the same agent, with a prompt of the same size."""
    guard = Guard({}, store="memory://")

    def ask(input_tokens: int, *, fails: bool) -> None:
        with guard.call(
            model="gpt-4o", input_tokens=input_tokens, max_output_tokens=10
        ) as call:
            if fails:
                raise BrokenError
            call.settle(TokenUsage(input_tokens=input_tokens))

    with guard.session("support-agent") as session:
        for fails in (True, True, False, False):
            try:
                ask(100, fails=fails)
            except BrokenError:
                ask(200, fails=False)  # Another call comes in between.

    attempts = [
        e.attempt for e in session.events() if e.usage and e.usage.input_tokens < 200
    ]
    assert attempts == [1, 2, 3, 1]


def test_observing_says_what_would_have_been_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every call is made; reports and the log say which ones a limit is against."""
    guard = Guard(
        {
            "mode": "observe",
            "defaults": {"session": {"max_cost_usd": "0.02"}},
            "budgets": [
                {"name": "c", "per": ["customer_id"], "every": "day", "max_steps": 4}
            ],
        },
        store="memory://",
    )

    with guard.session(
        "support-agent", customer_id="acme", session_id="s-1"
    ) as session:
        for number in range(6):
            look(guard, str(number))

    assert session.status == "completed"
    assert spend(guard, "refused_by") == {
        None: (2, "0.02"),
        "max_cost_usd of session": (4, "0.04"),
    }
    [said] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said == (
        "guardrails: support-agent would have been refused a call by max_cost_usd of "
        "session (mode: observe). session s-1"
    )


def test_what_refused_names_no_customer() -> None:
    """Of whom is said by the call; the limit is the same for all."""
    guard = Guard(
        {
            "mode": "observe",
            "tools": {"maps/*": {"max_calls": 0}},
            "budgets": [
                {
                    "name": "c",
                    "per": ["customer_id"],
                    "every": "day",
                    "max_model_calls": 0,
                }
            ],
        },
        store="memory://",
    )

    with guard.session("support-agent", customer_id="acme"):
        with guard.call(tool="route", server="maps"):
            pass
        with guard.call(model="gpt-4o", input_tokens=1, max_output_tokens=1) as call:
            call.settle(TokenUsage(input_tokens=1))

    assert set(spend(guard, "refused_by")) == {
        "max_tool_calls of tool=maps/*",
        "max_model_calls of customer_id",
    }
