"""Attribution: who and what each call is charged to."""

from decimal import Decimal

import pytest

from guardrails import Guard, Session, TokenUsage
from guardrails.testing import FakeClock


def ask_model(guard: Guard) -> None:
    """Stands for any call of a model: 4,000 tokens in are $0.01."""
    with guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    ) as call:
        call.settle(TokenUsage(input_tokens=4_000))


def paths(session: Session) -> list[tuple[str, ...]]:
    return [event.attribution.agent_path for event in session.events()]


def test_each_call_says_who_it_was_made_for() -> None:
    """The names of the session are on the record of every call in it."""
    guard = Guard(store="memory://")

    with guard.session(
        "support-agent",
        customer_id="acme",
        user_id="u-7",
        feature="triage",
        prompt_version="v12",
        project_id="helpdesk",
        tags={"env": "prod"},
    ) as session:
        ask_model(guard)

    (event,) = session.events()
    who = event.attribution
    assert (who.agent, who.customer_id, who.user_id) == ("support-agent", "acme", "u-7")
    assert (who.feature, who.prompt_version) == ("triage", "v12")
    assert who.project_id == "helpdesk"
    assert who.tags == (("env", "prod"),)
    assert who.session_id == session.session_id


def test_names_that_are_not_given_stay_unknown() -> None:
    """What nobody said is `None`, and not an empty name."""
    guard = Guard(store="memory://")

    with guard.session("support-agent") as session:
        ask_model(guard)

    (event,) = session.events()
    assert event.attribution.customer_id is None


def test_a_nested_agent_inherits_the_names_around_it() -> None:
    """A session inside another acts for the same customer, and keeps the path."""
    guard = Guard(store="memory://")

    with (
        guard.session("router", customer_id="acme"),
        guard.session("researcher", feature="search") as inner,
    ):
        ask_model(guard)

    (event,) = inner.events()
    assert event.attribution.customer_id == "acme"
    assert event.attribution.feature == "search"
    assert paths(inner) == [("router", "researcher")]


def test_a_nested_agent_may_act_for_someone_else() -> None:
    """A name that is given wins over the inherited one."""
    guard = Guard(store="memory://")

    with (
        guard.session("router", customer_id="acme"),
        guard.session("researcher", customer_id="globex") as inner,
    ):
        ask_model(guard)

    (event,) = inner.events()
    assert event.attribution.customer_id == "globex"


def test_the_environment_names_whoever_runs_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`GUARDRAILS_CUSTOMER_ID` and its kin give names that the code does not."""
    monkeypatch.setenv("GUARDRAILS_CUSTOMER_ID", "acme")
    guard = Guard(store="memory://")

    with guard.session("support-agent") as session:
        ask_model(guard)

    (event,) = session.events()
    assert event.attribution.customer_id == "acme"


def test_spend_is_summed_by_name() -> None:
    """The store knows what was spent per customer, agent, feature, tool or model."""
    clock = FakeClock()
    guard = Guard(store="memory://", clock=clock)
    for customer_id in ("acme", "globex", "acme"):
        with guard.session("support-agent", customer_id=customer_id):
            ask_model(guard)

    spend = guard.store.history.spend(
        project_id="default",
        by="customer_id",
        since_ms=clock.now_ms(),
        until_ms=clock.now_ms(),
    )

    assert [(one.name, one.model_calls) for one in spend] == [
        ("acme", 2),
        ("globex", 1),
    ]
    assert [Decimal(one.total_nano_usd) / 10**9 for one in spend] == [
        Decimal("0.02"),
        Decimal("0.01"),
    ]


def test_two_projects_never_meet() -> None:
    """The same session id in two projects is two sessions."""
    guard = Guard(store="memory://")

    with guard.session(project_id="helpdesk", session_id="4711"):
        ask_model(guard)
    with guard.session(project_id="sales", session_id="4711") as other:
        assert other.steps == 0


def test_no_text_is_recorded() -> None:
    """A record holds names, counts, sizes and costs: no prompt, argument or result."""
    guard = Guard(store="memory://")

    @guard.tool()
    def send_mail(to: str, text: str) -> str:
        return f"sent to {to}"

    with guard.session("support-agent") as session:
        send_mail("ada@example.com", "the secret of the safe is 4711")

    (event,) = session.events()
    assert event.tool == "send_mail"
    assert "secret" not in repr(event)
    assert "ada@example.com" not in repr(event)
