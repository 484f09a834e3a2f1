"""Reloading: a changed configuration is taken up while agents run, or not at all."""

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path

import pytest

from guardrails import BudgetExceeded, ConfigurationError, Guard, Policy
from guardrails.config.reloading import LOOK_EVERY_MS
from guardrails.testing import FakeClock

LIMIT = "defaults: {{ session: {{ max_steps: {steps} }} }}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "guardrails.yaml"
    path.write_text(LIMIT.format(steps=3), encoding="utf-8")
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(file: Path, clock: FakeClock) -> Iterator[Guard]:
    guard = Guard(file, store="memory://", clock=clock)
    yield guard
    guard.close()


def calls_until_stopped(guard: Guard, *, at_most: int = 50) -> int:
    made = 0
    try:
        while made < at_most:
            with guard.call(tool="search"):
                made += 1
    except BudgetExceeded:
        pass
    return made


def look_twice(guard: Guard, clock: FakeClock) -> None:
    """Lets time pass for two looks at the file, with a call of a session after each."""
    with guard.session("looks"):
        for _ in range(3):
            clock.advance(seconds=LOOK_EVERY_MS / 1000)
            guard.current_session().charging()


def test_a_running_session_takes_up_new_limits(
    guard: Guard, file: Path, clock: FakeClock
) -> None:
    """Also a session that has begun; what it has used counts on."""
    with guard.session("support-agent"):
        with guard.call(tool="search"):
            pass
        file.write_text(LIMIT.format(steps=7), encoding="utf-8")
        look_twice(guard, clock)
        assert calls_until_stopped(guard) == 6


def test_each_tool_of_a_running_session_has_its_new_limit(
    guard: Guard, file: Path
) -> None:
    """At once, also of one that is called after another."""
    tools = "tools: {{ a: {{ max_calls: 9 }}, b: {{ max_calls: {calls} }} }}\n"
    with guard.session("support-agent"):
        for calls in (9, 1):
            file.write_text(tools.format(calls=calls), encoding="utf-8")
            guard.reload()
            with guard.call(tool="a"):
                pass
            with pytest.raises(BudgetExceeded) if calls == 1 else nullcontext():
                with guard.call(tool="b"):
                    pass


def test_limits_can_be_lowered(guard: Guard, file: Path, clock: FakeClock) -> None:
    """A session that is beyond the new limit makes no other call."""
    with guard.session("support-agent"):
        for _ in range(2):
            with guard.call(tool="search"):
                pass
        file.write_text(LIMIT.format(steps=1), encoding="utf-8")
        look_twice(guard, clock)
        assert calls_until_stopped(guard) == 0


@pytest.mark.parametrize(
    "text",
    [
        "defaults: { session: { max_steps: -1 } }\n",
        "defaults: { session: { max_stepps: 9 } }\n",
        "defaults: { session: { max_steps: 9 }",
        "",
        "# max_steps: 9\n",
        "\x00",
    ],
    ids=["bad value", "unknown key", "half written", "empty", "comment", "no text"],
)
def test_what_is_no_configuration_changes_nothing(
    guard: Guard,
    file: Path,
    clock: FakeClock,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The last good one stays in force, and the log says so once."""
    file.write_text(text, encoding="utf-8")
    for _ in range(3):
        look_twice(guard, clock)
    with guard.session("support-agent"):
        assert calls_until_stopped(guard) == 3

    said = [r for r in caplog.records if "was not taken up" in r.getMessage()]
    assert len(said) == 1
    assert said[0].levelno == logging.ERROR

    file.write_text(LIMIT.format(steps=4), encoding="utf-8")
    look_twice(guard, clock)
    with guard.session("support-agent"):
        assert calls_until_stopped(guard) == 4


def test_a_file_that_is_gone_changes_nothing(
    guard: Guard, file: Path, clock: FakeClock
) -> None:
    file.unlink()
    look_twice(guard, clock)
    with guard.session("support-agent"):
        assert calls_until_stopped(guard) == 3


def test_a_file_that_still_changes_is_not_read(
    guard: Guard, file: Path, clock: FakeClock
) -> None:
    """Somebody is writing it: half of it could be valid, and say less."""
    with guard.session("looks"):
        for steps in range(10, 15):
            file.write_text(LIMIT.format(steps=steps) + "#" * steps, encoding="utf-8")
            clock.advance(seconds=LOOK_EVERY_MS / 1000)
            guard.current_session().charging()
    assert guard.configuration.policy.session.limits.steps == 3


def test_code_still_wins_over_the_changed_file(file: Path, clock: FakeClock) -> None:
    guard = Guard(file, store="memory://", clock=clock, max_steps=2)
    file.write_text(LIMIT.format(steps=9), encoding="utf-8")
    look_twice(guard, clock)
    with guard.session("support-agent"):
        assert calls_until_stopped(guard) == 2


def test_prices_are_taken_up(guard: Guard, file: Path, clock: FakeClock) -> None:
    """Of models and tools; a call is booked at the price it was reserved at."""
    file.write_text(
        "tools: { search: { cost_per_call_usd: 0.25 } }\n"
        "models: { mine: { input_per_1m_usd: 1, output_per_1m_usd: 1 } }\n",
        encoding="utf-8",
    )
    with guard.session("support-agent") as session:
        with guard.call(tool="search"):
            guard.reload()
        with guard.call(tool="search"):
            pass
        with guard.call(model="mine", input_tokens=1_000_000, max_output_tokens=0):
            pass

    first, second, model = session.events()
    assert first.charge.cost_nano_usd is None
    assert second.charge.cost_nano_usd == 250_000_000
    assert model.charge.cost_nano_usd == 10**9


def test_reloading_at_once_holds_from_the_next_call(guard: Guard, file: Path) -> None:
    """Also in an open session, whose limits are else looked up every few seconds."""
    with guard.session("support-agent"):
        with guard.call(tool="search"):
            file.write_text(LIMIT.format(steps=1), encoding="utf-8")
            guard.reload()
        assert calls_until_stopped(guard) == 0


def test_reloading_at_once_raises_what_is_wrong(guard: Guard, file: Path) -> None:
    file.write_text("defaults: { session: { max_steps: many } }\n", encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"guardrails\.yaml:1:.*max_steps"):
        guard.reload()

    assert guard.configuration.policy.session.limits.steps == 3


def test_what_takes_a_new_guard_is_said_and_stays(
    guard: Guard, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(
        LIMIT.format(steps=9) + "mode: 'off'\nproject_id: other\n", encoding="utf-8"
    )
    guard.reload()

    assert guard.configuration.project_id == "default"
    with guard.session("support-agent"):
        assert calls_until_stopped(guard) == 9
    assert "project_id, mode changed in the configuration" in caplog.text


def test_a_policy_of_code_is_not_read_anew(clock: FakeClock) -> None:
    guard = Guard(policy=Policy(), store="memory://", clock=clock)
    with pytest.raises(ConfigurationError, match="given policy="):
        guard.reload()


def test_what_remains_is_of_the_limits_that_are_in_force(tmp_path: Path) -> None:
    file = tmp_path / "guardrails.yaml"
    limit = "defaults: {{ session: {{ max_cost_usd: {usd} }} }}\n"
    file.write_text(limit.format(usd="1"), encoding="utf-8")
    guard = Guard(file, store="memory://")
    with guard.session("support-agent") as session:
        with guard.call(tool="search", cost_usd="0.10"):
            pass
        before = session.remaining
        file.write_text(limit.format(usd="0.50"), encoding="utf-8")
        guard.reload()
        after = session.remaining
    guard.close()

    assert (before, after) == (Decimal("0.90"), Decimal("0.40"))
