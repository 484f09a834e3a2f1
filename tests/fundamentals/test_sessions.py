"""Sessions: one interaction with an agent, with one budget."""

import asyncio
import threading
from decimal import Decimal

from guardrails import Guard, Session, TokenUsage, carried


def ask_model(guard: Guard) -> None:
    """Stands for any call of a model: 1,000 tokens in and 100 out, $0.0035."""
    with guard.call(
        model="gpt-4o", provider="openai", input_tokens=1_000, max_output_tokens=100
    ) as call:
        call.settle(TokenUsage(input_tokens=1_000, output_tokens=100))


def test_a_session_counts_what_happens_inside_it() -> None:
    """Whatever is guarded inside the `with` block is charged to the session."""
    guard = Guard(store="memory://")

    with guard.session("support-agent") as session:
        ask_model(guard)
        ask_model(guard)

    assert session.spent == Decimal("0.0070")
    assert session.steps == 2


def test_a_session_lists_its_calls() -> None:
    """`events` has one record for each settled call, oldest first."""
    guard = Guard(store="memory://")

    with guard.session("support-agent") as session:
        ask_model(guard)

    (event,) = session.events()
    assert event.model == "gpt-4o"
    assert event.usage == TokenUsage(input_tokens=1_000, output_tokens=100)


def test_a_session_ends_with_its_block() -> None:
    """A session is active inside its block, and completed after it."""
    guard = Guard(store="memory://")

    with guard.session("support-agent") as session:
        ask_model(guard)
        assert session.status == "active"

    assert session.status == "completed"


def test_every_session_gets_an_id_of_its_own() -> None:
    """Without `session_id`, two sessions share nothing."""
    guard = Guard(store="memory://")

    with guard.session("support-agent") as first:
        ask_model(guard)
    with guard.session("support-agent") as second:
        pass

    assert first.session_id != second.session_id
    assert second.spent == 0


def test_a_session_is_taken_up_again_by_its_id() -> None:
    """The same `session_id` continues the same session, with the same budget."""
    guard = Guard(store="memory://")

    with guard.session("support-agent", session_id="ticket-4711"):
        ask_model(guard)
    with guard.session("support-agent", session_id="ticket-4711") as again:
        ask_model(guard)

    assert again.steps == 2


async def test_a_session_works_the_same_in_asyncio() -> None:
    """`async with` opens a session too, and the tasks inside belong to it."""
    guard = Guard(store="memory://")

    async def work() -> None:
        ask_model(guard)

    async with guard.session("support-agent") as session:
        await asyncio.gather(work(), work(), work())

    assert session.steps == 3


def test_a_session_is_carried_into_threads() -> None:
    """`carried` takes the session along into a thread, which has no scope itself."""
    guard = Guard(store="memory://")

    with guard.session("support-agent") as session:
        thread = threading.Thread(target=carried(ask_model), args=(guard,))
        thread.start()
        thread.join()

    assert session.steps == 1


def test_a_session_inside_another_is_charged_to_both() -> None:
    """The session of a nested agent counts in the one around it as well."""
    guard = Guard(store="memory://")

    with guard.session("router") as outer:
        ask_model(guard)
        with guard.session("researcher") as inner:
            ask_model(guard)

    assert inner.steps == 1
    assert outer.steps == 2


def test_calls_outside_of_any_session_share_one() -> None:
    """Without a session around them, the calls of a process have one together."""
    guard = Guard(store="memory://")

    ask_model(guard)
    ask_model(guard)

    session: Session = guard.current_session()
    assert session.steps == 2


def test_a_session_is_kept_in_a_file() -> None:
    """A SQLite store is one file. Whoever opens it sees the same sessions."""
    guard = Guard(store="sqlite:///ledger.sqlite3")
    with guard.session("support-agent", session_id="ticket-4711"):
        ask_model(guard)
    guard.close()

    later = Guard(store="sqlite:///ledger.sqlite3")
    with later.session("support-agent", session_id="ticket-4711") as again:
        assert again.spent == Decimal("0.0035")
    later.close()
