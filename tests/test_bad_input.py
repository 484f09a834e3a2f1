"""Bad input: an error that names key, value and fix, before anything is spent."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from guardrails import (
    ConfigurationError,
    Guard,
    Policy,
    PriceStatus,
    TokenUsage,
    UnpricedModelError,
)
from guardrails.testing import FakeClock
from guardrails_langchain import GuardCallbackHandler
from guardrails_langchain.testing import ScriptedChatModel

MEGABYTE = 1_000_000


def memory_guard(config: dict[str, object] | None = None, **options: Any) -> Guard:
    return Guard(config or {}, store="memory://", **options)


# --- keys -------------------------------------------------------------------


def test_an_unknown_argument_of_the_guard_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"max_cost: .*Did you mean") as error:
        memory_guard(max_cost="1.00")

    assert "max_cost_usd" in str(error.value)


def test_an_unknown_key_of_the_configuration_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"defaults\.session\.max_stepz") as e:
        memory_guard({"defaults": {"session": {"max_stepz": 3}}})

    assert "max_steps" in str(e.value)


@pytest.mark.parametrize(
    "url",
    ["sqlite://ledger.sqlite3", "sqlite:ledger.db", "postgres://h/a.db"],
)
def test_a_url_of_no_store_becomes_no_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slash that is missing does not hide the ledger in a folder `sqlite:`."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"sqlite:///ledger\.sqlite3"):
        Guard({}, store=url)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as error:
        memory_guard(max_cost_usd="-1", max_steps=-2, on_unpriced="maybe")

    for key in ("max_cost_usd", "max_steps", "on_unpriced"):
        assert key in str(error.value)


@pytest.mark.parametrize(
    "ignored", [{"max_steps": 3}, {"mode": "observe"}, {"config": {"version": 1}}]
)
def test_a_setting_that_a_ready_policy_would_hide_is_refused(
    ignored: dict[str, Any],
) -> None:
    (key,) = ignored

    with pytest.raises(ConfigurationError, match=f"{key}.*policy"):
        Guard(policy=Policy(), store="memory://", **ignored)


def test_an_unknown_limit_to_raise_is_refused() -> None:
    guard = memory_guard()

    with pytest.raises(ConfigurationError, match="name a limit"):
        guard.raise_limit("s")


def test_a_scope_of_an_unknown_dimension_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"budgets\[0\]\.per.*'costumer_id'"):
        memory_guard(
            {
                "budgets": [
                    {
                        "name": "b",
                        "per": ["costumer_id"],
                        "every": "day",
                        "max_steps": 1,
                    }
                ]
            }
        )


# --- amounts ----------------------------------------------------------------

BAD_AMOUNTS: dict[str, object] = {
    "negative": -1,
    "negative text": "-0.01",
    "nan": math.nan,
    "infinite": math.inf,
    "nan text": "NaN",
    "drifting": 0.1 + 0.2,
    "ten decimals": "0.0000000001",
    "too large": 10**30,
    "huge exponent": Decimal("1e400"),
    "comma": "1,50",
    "words": "one dollar",
    "empty": "",
    "boolean": True,
    "list": [1],
    "megabyte": "x" * MEGABYTE,
    "more digits than Python writes": 10**5_000,
    "ten thousand digits": Decimal("1" * 10_000),
}


def says(message: str, amount: object) -> bool:
    """Whether a message names an amount, or describes what is too long to name."""
    if isinstance(amount, int) and amount.bit_length() > 1_000:
        return f"{amount.bit_length()} bits" in message
    if isinstance(amount, str) and len(amount) > 1_000:
        return amount[:20] in message or f"{len(amount)} characters" in message
    return str(amount)[:20] in message or f"type {type(amount).__name__}" in message


def settle_with(cost_usd: Any) -> None:
    with memory_guard().call(tool="t") as call:
        call.settle(cost_usd=cost_usd)


PLACES_OF_AMOUNTS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "limit": ("max_cost_usd", lambda usd: memory_guard(max_cost_usd=usd)),
    "alert": ("soft_alert_usd", lambda usd: memory_guard(soft_alert_usd=usd)),
    "configuration": (
        "tools.t.cost_per_call_usd",
        lambda usd: memory_guard({"tools": {"t": {"cost_per_call_usd": usd}}}),
    ),
    "raised limit": (
        "max_cost_usd",
        lambda usd: memory_guard().raise_limit("s", max_cost_usd=usd),
    ),
    "tool": ("cost_usd", lambda usd: memory_guard().tool(cost_usd=usd)),
    "call": ("cost_usd", lambda usd: memory_guard().call(tool="t", cost_usd=usd)),
    "settle": ("cost_usd", settle_with),
}


@pytest.mark.parametrize("place", PLACES_OF_AMOUNTS)
@pytest.mark.parametrize("amount", BAD_AMOUNTS.values(), ids=BAD_AMOUNTS)
def test_an_amount_that_is_none_is_refused_by_key_and_value(
    amount: object, place: str
) -> None:
    key, use = PLACES_OF_AMOUNTS[place]

    with pytest.raises(ConfigurationError) as error:
        use(amount)

    message = str(error.value)
    assert key in message
    assert says(message, amount)
    assert message.count(". ") >= 1, "says what is wrong, and how to mend it"
    assert len(message) < 1_000, "a megabyte is not repeated"


class Float64(float):
    """A float that writes itself as NumPy's does."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


@pytest.mark.parametrize("place", PLACES_OF_AMOUNTS)
def test_an_amount_of_numpy_is_a_float(place: str) -> None:
    _, use = PLACES_OF_AMOUNTS[place]

    use(Float64(0.5))


def test_a_drifting_amount_is_refused_with_the_amount_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match=r'"0\.3"'):
        memory_guard(max_cost_usd=0.1 + 0.2)


@pytest.mark.parametrize("count", [-1, 2.5, math.nan, "many", True, 10**30, [3]])
def test_a_count_that_is_none_is_refused_by_key_and_value(count: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_steps"):
        memory_guard(max_steps=count)


@pytest.mark.parametrize("size", [-1, 1.5, math.nan, "big", True, 10**12, [1]])
@pytest.mark.parametrize("key", ["input_bytes", "input_tokens", "max_output_tokens"])
def test_a_size_that_is_none_is_refused_by_key_and_value(key: str, size: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"{key}={size!r} ")):
        memory_guard().call(model="gpt-4o", **{key: size})


def test_the_largest_sizes_together_are_still_a_call() -> None:
    guard = memory_guard()

    with (
        guard.session() as session,
        guard.call(model="gpt-4o", input_tokens=10**9, max_output_tokens=10**9),
    ):
        pass

    (event,) = session.events()
    assert event.usage == TokenUsage(input_tokens=10**9)
    assert not guard.engine.failures


@pytest.mark.parametrize(
    "counts",
    [
        {"input_tokens": -1},
        {"output_tokens": 10**9 + 1},
        {"input_tokens": math.nan},
        {"input_tokens": 1.5},
        {"input_tokens": "7"},
        {"output_tokens": None},
        {"input_tokens": 5, "cache_read_tokens": 6},
        {"output_tokens": 5, "reasoning_tokens": 6},
    ],
    ids=str,
)
def test_impossible_usage_is_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="is impossible"):
        TokenUsage(**counts)


# --- calls ------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"model": "m", "tool": "t"}])
def test_a_call_is_either_of_a_model_or_of_a_tool(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="either model= or tool="):
        memory_guard().call(**given)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"model": "m", "cost_usd": "0.01"}, "cost_usd"),
        ({"model": "m", "server": "s"}, "server"),
        ({"model": "m", "arguments": {"a": 1}}, "arguments"),
        ({"tool": "t", "input_bytes": 5}, "input_bytes"),
        ({"tool": "t", "max_output_tokens": 5}, "max_output_tokens"),
        ({"tool": "t", "provider": "openai"}, "provider"),
    ],
)
def test_what_belongs_to_the_other_kind_of_call_is_refused(
    given: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=key):
        memory_guard().call(**given)


# --- models without a price --------------------------------------------------


def ask_unknown(guard: Guard) -> None:
    with guard.call(model="my-finetune", input_tokens=1_000, max_output_tokens=10) as c:
        c.settle(TokenUsage(input_tokens=900, output_tokens=10))


def test_a_model_without_a_price_is_refused_under_a_cost_limit() -> None:
    guard = memory_guard(max_cost_usd="1.00")

    with (
        guard.session() as session,
        pytest.raises(UnpricedModelError, match="'my-finetune'") as refused,
    ):
        ask_unknown(guard)

    assert "models:" in str(refused.value)
    assert "input_per_1m_usd" in str(refused.value)
    assert session.steps == 0
    assert session.status == "completed", "one call is refused, not the session"


def test_a_model_without_a_price_is_recorded_as_unpriced_where_that_is_allowed() -> (
    None
):
    guard = memory_guard(max_cost_usd="1.00", on_unpriced="allow")

    with guard.session() as session:
        ask_unknown(guard)

    (event,) = session.events()
    assert event.charge.status is PriceStatus.UNPRICED
    assert event.charge.cost_nano_usd is None, "unknown is not nothing"
    assert event.usage == TokenUsage(input_tokens=900, output_tokens=10)


def test_a_model_without_a_price_is_charged_as_an_expensive_one_on_request() -> None:
    guard = memory_guard(max_cost_usd="1.00", on_unpriced="worst_case")

    with guard.session() as session:
        ask_unknown(guard)

    (event,) = session.events()
    assert event.charge.status is PriceStatus.ESTIMATED
    assert session.spent > Decimal("0.001")


def test_a_model_without_a_price_needs_none_without_a_cost_limit() -> None:
    guard = memory_guard(max_steps=5)

    with guard.session() as session:
        ask_unknown(guard)

    assert session.steps == 1


DAY: dict[str, object] = {"name": "all", "per": [], "every": "day", "max_cost_usd": 1}


def test_a_model_without_a_price_needs_none_where_a_budget_only_alerts() -> None:
    guard = memory_guard({"budgets": [{**DAY, "action": "alert"}]})

    with guard.session() as session:
        ask_unknown(guard)

    assert session.steps == 1


def test_a_model_without_a_price_is_refused_by_the_limit_of_a_shared_budget() -> None:
    guard = memory_guard({"budgets": [DAY]}, max_steps=5)

    with guard.session(), pytest.raises(UnpricedModelError):
        ask_unknown(guard)


# --- names ------------------------------------------------------------------

BAD_NAMES: dict[str, object] = {
    "control character": "acme\x00corp",
    "line break": "acme\ncorp",
    "escape": "\x1b[31macme",
    "lone surrogate": "acme\ud800",
    "megabyte": "x" * MEGABYTE,
    "empty": "",
    "blank": "  ",
    "number": 7,
    "bytes": b"acme",
}


def nested(name: Any) -> None:
    guard = memory_guard()
    with guard.session("outer"):
        guard.session(name)


PLACES_OF_NAMES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "agent": ("agent", lambda name: memory_guard().session(name)),
    "customer": ("customer_id", lambda name: memory_guard().session(customer_id=name)),
    "session": ("session_id", lambda name: memory_guard().session(session_id=name)),
    "tag": ("tags", lambda name: memory_guard().session(tags={name: "x"})),
    "value of a tag": ("tags", lambda name: memory_guard().session(tags={"x": name})),
    "nested agent": ("agent", nested),
    "model": ("model", lambda name: memory_guard().call(model=name)),
    "tool": ("tool", lambda name: memory_guard().call(tool=name)),
    "server": ("server", lambda name: memory_guard().call(tool="t", server=name)),
    "reservation": (
        "reservation_id",
        lambda name: memory_guard().call(tool="t", reservation_id=name),
    ),
    "decorated tool": ("tool.name", lambda name: memory_guard().tool(name=name)(print)),
    "server of a decorated tool": (
        "tool.server",
        lambda name: memory_guard().tool(server=name),
    ),
    "stop": ("session_id", lambda name: memory_guard().stop(name)),
    "reason": ("reason", lambda name: memory_guard().stop("s", reason=name)),
    "project": ("project_id", lambda name: memory_guard(project_id=name)),
}


@pytest.mark.parametrize("place", PLACES_OF_NAMES)
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_bad_name_is_refused_by_key_and_value(name: object, place: str) -> None:
    key, use = PLACES_OF_NAMES[place]

    with pytest.raises(ConfigurationError) as error:
        use(name)

    message = str(error.value)
    assert key in message
    assert len(message) < 1_000, "a megabyte is not repeated"
    assert message.isprintable(), "nor are control characters"


@pytest.mark.parametrize("tags", [["a"], "a", 7, {str(n): "x" for n in range(17)}])
def test_tags_that_are_no_pairs_or_too_many_are_refused(tags: Any) -> None:
    with pytest.raises(ConfigurationError, match="tags"):
        memory_guard().session(tags=tags)


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_bad_name_in_metadata_of_langchain_is_made_safe(name: Any) -> None:
    """It comes from outside, where a refusal would break somebody's agent."""
    guard = memory_guard(clock=(clock := FakeClock()))
    model = ScriptedChatModel(script=lambda number, messages: AIMessage("hello"))
    metadata = dict.fromkeys(("customer_id", "session_id", "lc_agent_name"), name)

    handler = GuardCallbackHandler(guard)
    model.invoke("hi", {"callbacks": [handler], "metadata": metadata})

    now = clock.now_ms()
    for dimension in ("customer_id", "session_id", "agent"):
        (spend,) = guard.store.history.spend(
            project_id="default", by=dimension, since_ms=now, until_ms=now
        )
        assert spend.model_calls == 1
        assert spend.name is None or len(spend.name.encode()) <= 256
        assert spend.name is None or "\n" not in spend.name
    assert not guard.engine.failures


def test_long_names_in_metadata_of_langchain_stay_apart() -> None:
    guard = memory_guard()
    sessions: list[str] = []
    for end in "ab":
        model = ScriptedChatModel(script=lambda number, messages: AIMessage("hello"))
        thread = {"thread_id": "x" * MEGABYTE + end}
        with guard.session() as session:
            model.invoke("hi", {"metadata": thread})
        sessions.append(session.session_id)

    assert len(set(sessions)) == 2
