"""The format: what each key of a file becomes."""

import pickle
from decimal import Decimal

import pytest

from guardrails.config import load_configuration
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.loops import LoopAction, LoopRule
from guardrails.core.policy import (
    Budget,
    BudgetAction,
    Limits,
    Mode,
    OnStoreError,
    OnUnpriced,
    Policy,
    SoftAlerts,
    ToolRule,
)
from guardrails.core.windows import Window
from guardrails.errors import ConfigurationError
from guardrails.prices import ModelPrice
from tests.config.conftest import Load

EVERYTHING = """
version: 1
store: ${GUARDRAILS_TEST_STORE:-sqlite}
project_id: shop
mode: observe
defaults:
  session:
    max_cost_usd: 0.50
    max_steps: 40
    max_model_calls: 30
    max_tool_calls: 20
    max_tokens: 100000
    max_wall_time_s: 300.5
    soft_alert_usd: 0.25
    soft_alert_ratio: [0.8, 0.5]
  on_limit: raise
  on_unpriced: worst_case
  on_store_error: closed
  loop:
    repeats: 4
    within: 30
    polling_repeats: 12
    cycle_repeats: 3
    error_repeats: 6
    action: block
    refusals: 2
    ignore_arguments: [request_id]
    exempt: ["*/get_status"]
  max_wait_s: 1.5
  estimate: strict
agents:
  support-agent: { session: { max_cost_usd: 1.00, soft_alert_ratio: [] } }
budgets:
  - { name: all, per: [], every: total, max_cost_usd: 25, soft_alert_ratio: 0.8 }
  - { name: f, per: [feature, customer_id], every: day, max_steps: 5, action: alert }
tools:
  geocoding-mcp/geocode: { cost_per_call_usd: 0.005 }
  geocoding-mcp/*: { cost_from_meta: acme.com/cost_usd, timeout_s: 2.5 }
models:
  my-finetune:
    input_per_1m_usd: 3.00
    output_per_1m_usd: 15.00
    cache_read_per_1m_usd: 0.30
    cache_write_per_1m_usd: 3.75
    cache_write_1h_per_1m_usd: 6
  plain: { input_per_1m_usd: 1, output_per_1m_usd: 2 }
aliases:
  our-gateway/gpt: gpt-4o
"""

SESSION = Limits(
    cost_nano_usd=500_000_000,
    tokens=100_000,
    steps=40,
    model_calls=30,
    tool_calls=20,
    wall_time_ms=300_500,
)


def session_budget(limits: Limits, soft_alerts: SoftAlerts) -> Budget:
    return Budget(
        name="session",
        per=("session_id",),
        every=Window.SESSION,
        limits=limits,
        soft_alerts=soft_alerts,
    )


def test_every_key_arrives_in_the_policy(load: Load) -> None:
    configuration = load(EVERYTHING)
    halves = (Decimal("0.8"), Decimal("0.5"))
    assert configuration.policy == Policy(
        mode=Mode.OBSERVE,
        session=session_budget(
            SESSION, SoftAlerts(cost_nano_usd=250_000_000, ratios=halves)
        ),
        agents=(
            (
                "support-agent",
                session_budget(
                    Limits(
                        cost_nano_usd=1_000_000_000,
                        tokens=100_000,
                        steps=40,
                        model_calls=30,
                        tool_calls=20,
                        wall_time_ms=300_500,
                    ),
                    SoftAlerts(cost_nano_usd=250_000_000),
                ),
            ),
        ),
        budgets=(
            Budget(
                name="all",
                per=(),
                every=Window.TOTAL,
                limits=Limits(cost_nano_usd=25_000_000_000),
                soft_alerts=SoftAlerts(ratios=(Decimal("0.8"),)),
            ),
            Budget(
                name="f",
                per=("customer_id", "feature"),
                every=Window.DAY,
                limits=Limits(steps=5),
                action=BudgetAction.ALERT,
            ),
        ),
        tools=(
            ToolRule(pattern="geocoding-mcp/geocode", cost_nano_usd=5_000_000),
            ToolRule(
                pattern="geocoding-mcp/*",
                cost_from_meta="acme.com/cost_usd",
                timeout_ms=2_500,
            ),
        ),
        loop=LoopRule(
            repeats=4,
            within=30,
            polling_repeats=12,
            cycle_repeats=3,
            error_repeats=6,
            action=LoopAction.BLOCK,
            refusals=2,
            ignore_arguments=("request_id",),
            exempt=("*/get_status",),
        ),
        on_unpriced=OnUnpriced.WORST_CASE,
        on_store_error=OnStoreError.CLOSED,
        wait_ms_max=1_500,
        is_estimate_strict=True,
    )
    assert configuration.store == "sqlite"
    assert configuration.project_id == "shop"
    assert configuration.aliases == {"our-gateway/gpt": "gpt-4o"}
    assert configuration.sources == ("guardrails.yaml",)


def test_models_keep_the_rates_that_are_written(load: Load) -> None:
    assert load(EVERYTHING).model_prices == {
        "my-finetune": ModelPrice(
            input_per_1m_usd=Decimal(3),
            output_per_1m_usd=Decimal(15),
            cache_read_per_1m_usd=Decimal("0.3"),
            cache_write_per_1m_usd=Decimal("3.75"),
            cache_write_1h_per_1m_usd=Decimal(6),
        ),
        "plain": ModelPrice(input_per_1m_usd=Decimal(1), output_per_1m_usd=Decimal(2)),
    }


def test_an_alias_may_lead_to_rates_of_ones_own(load: Load) -> None:
    text = """
        models: { own: { input_per_1m_usd: 1, output_per_1m_usd: 2 } }
        aliases: { gateway/own: own }
        """
    assert load(text).aliases == {"gateway/own": "own"}


@pytest.mark.parametrize("text", ["", "\n", "# version: 1\n", "---\n", "~", "\ufeff"])
def test_an_empty_file_configures_nothing(load: Load, text: str) -> None:
    configuration = load(text)
    assert configuration.policy == Policy()
    assert configuration.policy.limits_nothing
    assert configuration.store is None
    assert configuration.project_id == "default"


def test_empty_sections_configure_nothing(load: Load) -> None:
    text = (
        "defaults:\n  session:\n  loop:\nagents:\nbudgets:\ntools:\nmodels:\naliases:"
    )
    assert load(text).policy == Policy()


def test_loops_only_warn_until_anything_is_limited(load: Load) -> None:
    assert load().policy.loop.action is LoopAction.WARN
    assert load("defaults: { loop: { repeats: 5 } }").policy.loop == LoopRule(
        repeats=5, action=LoopAction.WARN
    )


@pytest.mark.parametrize(
    "text",
    [
        "defaults: { session: { max_cost_usd: 1 } }",
        "defaults: { session: { max_wall_time_s: 1 } }",
        "agents: { bot: { session: { max_steps: 1 } } }",
        "budgets: [{ name: a, per: [], every: day, max_tokens: 1 }]",
    ],
)
def test_loops_stop_as_soon_as_a_file_limits_anything(load: Load, text: str) -> None:
    assert load(text).policy.loop.action is LoopAction.STOP


def test_loops_stop_as_soon_as_code_or_a_variable_limits_anything(load: Load) -> None:
    assert load(max_steps=1).policy.loop.action is LoopAction.STOP
    variable = {"GUARDRAILS_MAX_STEPS": "1"}
    assert load(environ=variable).policy.loop.action is LoopAction.STOP


@pytest.mark.parametrize("action", list(LoopAction))
@pytest.mark.parametrize("max_steps", [None, 5])
def test_a_written_loop_action_counts_with_and_without_limits(
    load: Load, action: LoopAction, max_steps: int | None
) -> None:
    text = f"defaults: {{ loop: {{ action: {action} }} }}"
    assert load(text, max_steps=max_steps).policy.loop.action is action


def test_words_that_old_yaml_reads_as_booleans_stay_words(load: Load) -> None:
    configuration = load("mode: off\nproject_id: no\n")
    assert configuration.policy.mode is Mode.OFF
    assert configuration.project_id == "no"


def test_a_name_that_looks_like_a_number_stays_a_name(load: Load) -> None:
    assert load("project_id: 010\nagents: { 7: {} }").project_id == "010"


def test_zero_is_a_limit(load: Load) -> None:
    limits = load("defaults: { session: { max_cost_usd: 0 } }").policy.session.limits
    assert limits == Limits(cost_nano_usd=0)


def test_the_largest_limits_are_accepted(load: Load) -> None:
    largest = 2**53 - 1
    limits = load(
        max_cost_usd="9007199.254740991",
        max_tokens=largest,
        max_wall_time_s="9007199254740.991",
    ).policy.session.limits
    assert limits == Limits(cost_nano_usd=largest, tokens=largest, wall_time_ms=largest)


@pytest.mark.parametrize("amount", [0.50, "0.50", Decimal("0.50"), " 0.5 "])
def test_a_dict_takes_amounts_of_any_exact_type(load: Load, amount: object) -> None:
    config = {"defaults": {"session": {"max_cost_usd": amount, "max_steps": 40.0}}}
    configuration = load_configuration(config, environ={}, cwd=None, overrides={})
    assert configuration.policy.session.limits == Limits(
        cost_nano_usd=500_000_000, steps=40
    )
    assert configuration.sources == ("Guard(config)",)


def test_a_dict_takes_enumerations_and_tuples() -> None:
    config = {
        "mode": Mode.OFF,
        "defaults": {"session": {"soft_alert_ratio": (0.5, Decimal("0.8"))}},
    }
    policy = load_configuration(config, environ={}, cwd=None, overrides={}).policy
    assert policy.mode is Mode.OFF
    assert policy.session.soft_alerts.ratios == (Decimal("0.5"), Decimal("0.8"))


def test_a_file_and_the_same_dict_give_the_same_policy(load: Load) -> None:
    config = {
        "version": 1,
        "defaults": {"session": {"max_cost_usd": 0.5, "max_steps": 40}},
        "agents": {"a*": {"session": {"max_wall_time_s": 0.25}}},
    }
    text = """
        version: 1
        defaults: { session: { max_cost_usd: 0.5, max_steps: 40 } }
        agents: { a*: { session: { max_wall_time_s: 0.25 } } }
        """
    loaded = load_configuration(config, environ={}, cwd=None, overrides={})
    assert loaded.policy == load(text).policy


def test_variables_are_replaced_in_texts(load: Load) -> None:
    text = """
        store: redis://:${SECRET}@${HOST:-localhost}/${DATABASE:-0}
        project_id: "${EMPTY:-}shop"
        defaults: { session: { max_steps: "${STEPS:-40}" } }
        """
    environ = {"SECRET": "${HOST}", "HOST": "", "DATABASE": "7"}
    configuration = load(text, environ=environ)
    assert configuration.store == "redis://:${HOST}@localhost/7"
    assert configuration.project_id == "shop"
    assert configuration.policy.session.limits.steps == 40


def test_variables_are_replaced_in_a_dict_too() -> None:
    configuration = load_configuration(
        {"store": "${STORE}"}, environ={"STORE": "memory"}, cwd=None, overrides={}
    )
    assert configuration.store == "memory"


def test_code_and_variables_are_taken_as_they_are(load: Load) -> None:
    assert load(store="${X}").store == "${X}"
    assert load(environ={"GUARDRAILS_STORE": "${X}"}).store == "${X}"


def test_aliases_of_yaml_share_what_is_written_once(load: Load) -> None:
    policy = load(
        """
        agents:
          a: &small { session: { max_steps: 3 } }
          b: *small
        """
    ).policy
    assert policy.session_budget("a") == policy.session_budget("b")
    assert policy.session_budget("b").limits.steps == 3


def test_names_are_compared_in_one_unicode_form(load: Load) -> None:
    policy = load('agents: { "cafe\u0301": { session: { max_steps: 3 } } }').policy
    assert policy.session_budget("caf\u00e9").limits.steps == 3


def test_a_session_scope_may_be_split_further(load: Load) -> None:
    text = """
        budgets:
          - name: a
            per: [session_id, feature]
            every: session
            max_steps: 3
        """
    (budget,) = load(text).policy.budgets
    assert budget.per == ("feature", "session_id")


def test_the_password_of_a_store_is_not_shown(load: Load) -> None:
    assert "hunter2" not in repr(load(store="redis://:hunter2@cache"))


def test_a_configuration_pickles(load: Load) -> None:
    configuration = load(EVERYTHING)
    assert pickle.loads(pickle.dumps(configuration)) == configuration


def test_a_large_file_is_read_and_its_mistakes_are_counted(load: Load) -> None:
    agents = "\n".join(
        f"  a{i}: {{ session: {{ max_steps: {i} }} }}" for i in range(1000)
    )
    assert len(load(f"agents:\n{agents}\n").policy.agents) == 1000
    with pytest.raises(ConfigurationError, match=r"and 951 more"):
        load(f"agents:\n{agents.replace('max_steps', 'max_stebs')}\nversion: 2\n")


def test_each_budget_may_say_what_holds_while_the_store_is_away(load: Load) -> None:
    """What it does not say holds in general."""
    policy = load(
        """
        defaults: { on_store_error: open, session: { on_store_error: local } }
        agents: { a: { session: { on_store_error: closed } } }
        budgets:
          - { name: x, per: [], every: day, max_steps: 1, on_store_error: closed }
          - { name: y, per: [], every: month, max_steps: 1 }
        """
    ).policy

    assert policy.on_store_error is OnStoreError.OPEN
    assert policy.session.on_store_error is OnStoreError.LOCAL
    assert policy.session_budget("a").on_store_error is OnStoreError.CLOSED
    assert [b.on_store_error for b in policy.budgets] == [OnStoreError.CLOSED, None]


def test_says_from_when_on_spend_is_unusual(load: Load) -> None:
    """What is not written keeps its default; numbers may be texts."""
    written = {"customer_vs_14d_median": "4.5", "min_usd": 20}
    config = {"alerts": {"anomaly": written}}
    rules = load_configuration(
        config, environ={}, cwd=None, overrides={}
    ).alerts.anomaly

    assert (rules.customer_times, rules.session_times) == (4.5, 5.0)
    assert rules.excess_nano_usd_min == 20_000_000_000
    assert load("version: 1").alerts.anomaly == AnomalyRules()
