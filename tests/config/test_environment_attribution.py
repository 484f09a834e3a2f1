"""Attribution from the environment: whom a deployment's calls are charged to."""

import pytest

from guardrails.config import attribution_from_environment


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
