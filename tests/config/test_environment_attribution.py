"""Attribution from the environment: whom a deployment's calls are charged to."""

from typing import Any

import pytest

from guardrails import Attribution, Guard
from guardrails.config import (
    attribution_from_environment,
    environment_of,
    load_configuration,
    tags_from_environment,
)


def test_every_variable_becomes_its_dimension() -> None:
    environ = {
        "GUARDRAILS_AGENT": "support-agent",
        "GUARDRAILS_CUSTOMER_ID": "acme",
        "GUARDRAILS_USER_ID": "u-7",
        "GUARDRAILS_FEATURE": "triage",
        "GUARDRAILS_PROMPT_VERSION": "v12",
        "GUARDRAILS_SESSION_ID": "s-1",
        "GUARDRAILS_STORE": "memory",
        "HOME": "/root",
    }
    assert attribution_from_environment(environ) == {
        "agent": "support-agent",
        "customer_id": "acme",
        "user_id": "u-7",
        "feature": "triage",
        "prompt_version": "v12",
        "session_id": "s-1",
    }


def test_without_variables_nothing_is_attributed() -> None:
    assert attribution_from_environment({}) == {}


@pytest.mark.parametrize("ours", ["", "  "])
def test_the_agent_of_mcpspend_is_a_fallback(ours: str) -> None:
    environ = {"MCPSPEND_AGENT_NAME": "theirs", "GUARDRAILS_AGENT": ours}
    assert attribution_from_environment(environ) == {"agent": "theirs"}
    environ["GUARDRAILS_AGENT"] = "ours"
    assert attribution_from_environment(environ) == {"agent": "ours"}


def test_bad_names_are_cleaned_and_stay_distinct() -> None:
    one = attribution_from_environment({"GUARDRAILS_CUSTOMER_ID": "a\nb"})
    other = attribution_from_environment({"GUARDRAILS_CUSTOMER_ID": "a\tb"})
    assert one["customer_id"].startswith("a\ufffdb~")
    assert one != other


def test_a_long_name_is_cut() -> None:
    names = attribution_from_environment({"GUARDRAILS_SESSION_ID": "s" * 100_000})
    assert len(names["session_id"].encode()) <= 256


# --- tags -------------------------------------------------------------------


def test_tags_are_pairs() -> None:
    environ = {"GUARDRAILS_TAGS": "env=prod, team = search,a=b=c"}
    assert tags_from_environment(environ) == {
        "env": "prod",
        "team": "search",
        "a": "b=c",
    }
    assert tags_from_environment({}) == {}


def test_bad_pairs_are_left_out_and_bad_names_cleaned() -> None:
    environ = {"GUARDRAILS_TAGS": ",=x,alone,empty=,ok=a%0Ab,,"}
    (pair,) = tags_from_environment(environ).items()
    assert pair[0] == "ok"
    assert pair[1].startswith("a\ufffdb~")


def test_there_are_no_more_tags_than_a_call_can_have() -> None:
    pairs = ",".join(f"k{number}=v" for number in range(10_000))
    tags = tags_from_environment({"GUARDRAILS_TAGS": pairs})
    assert list(tags) == [f"k{number}" for number in range(16)]


def test_what_is_written_for_a_child_is_read_the_same() -> None:
    who = Attribution.of(
        agent="a",
        customer_id="acme, inc.",
        session_id="s-1",
        tags={"k,=": "v=,%41", "env": "prod"},
    )
    environ = environment_of(who, {"store": "memory://", "mode": None})
    assert environ["GUARDRAILS_STORE"] == "memory://"
    assert "GUARDRAILS_MODE" not in environ
    assert tags_from_environment(environ) == dict(who.tags)
    assert attribution_from_environment(environ) == {
        "agent": "a",
        "customer_id": "acme, inc.",
        "session_id": "s-1",
    }


def test_a_child_has_all_limits_that_code_has_set() -> None:
    limits: dict[str, Any] = {
        "max_cost_usd": "0.50",
        "max_steps": 9,
        "max_model_calls": 8,
        "max_tool_calls": 7,
        "max_tokens": 6_000,
        "max_wall_time_s": 5,
    }
    parent = Guard({}, store="memory://", **limits)
    environ = parent.child_env()
    parent.close()
    child = load_configuration({}, environ=environ, cwd=None, overrides={})

    assert child.policy.session.limits == parent.configuration.policy.session.limits
