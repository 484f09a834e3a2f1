"""Sources: which of them wins, and where a file is found."""

from pathlib import Path

import pytest

from guardrails.config import load_configuration
from guardrails.core.policy import Mode, OnStoreError, OnUnpriced
from guardrails.errors import ConfigurationError
from tests.config.conftest import Load

FILE = """
store: from-file
project_id: from-file
mode: observe
defaults:
  session: { max_cost_usd: 1, max_steps: 10, max_wall_time_s: 100 }
  on_unpriced: allow
  on_store_error: open
agents:
  bot: { session: { max_cost_usd: 2, max_tool_calls: 5 } }
"""

VARIABLES = {
    "GUARDRAILS_STORE": "from-variable",
    "GUARDRAILS_PROJECT_ID": "from-variable",
    "GUARDRAILS_MODE": "off",
    "GUARDRAILS_MAX_COST_USD": "0.30",
    "GUARDRAILS_MAX_STEPS": "20",
    "GUARDRAILS_MAX_MODEL_CALLS": "8",
    "GUARDRAILS_MAX_TOOL_CALLS": "12",
    "GUARDRAILS_MAX_TOKENS": "9000",
    "GUARDRAILS_MAX_WALL_TIME_S": "200",
}


def test_a_file_wins_over_the_defaults(load: Load) -> None:
    configuration = load(FILE)
    assert configuration.store == "from-file"
    assert configuration.project_id == "from-file"
    assert configuration.policy.mode is Mode.OBSERVE
    assert configuration.policy.session.limits.steps == 10


def test_variables_win_over_the_file(load: Load) -> None:
    configuration = load(FILE, environ=VARIABLES)
    limits = configuration.policy.session.limits
    assert configuration.store == "from-variable"
    assert configuration.project_id == "from-variable"
    assert configuration.policy.mode is Mode.OFF
    assert limits.cost_nano_usd == 300_000_000
    assert limits.steps == 20
    assert (limits.model_calls, limits.tool_calls, limits.tokens) == (8, 12, 9_000)
    assert limits.wall_time_ms == 200_000


def test_code_wins_over_variables(load: Load) -> None:
    configuration = load(
        FILE,
        environ=VARIABLES,
        store="from-code",
        project_id="from-code",
        mode="enforce",
        on_unpriced="worst_case",
        on_store_error="closed",
        max_cost_usd="0.20",
        max_steps=30,
        max_wall_time_s=300,
    )
    policy = configuration.policy
    assert configuration.store == "from-code"
    assert configuration.project_id == "from-code"
    assert policy.mode is Mode.ENFORCE
    assert policy.on_unpriced is OnUnpriced.WORST_CASE
    assert policy.on_store_error is OnStoreError.CLOSED
    assert policy.session.limits.cost_nano_usd == 200_000_000
    assert policy.session.limits.steps == 30
    assert policy.session.limits.wall_time_ms == 300_000


def test_sources_are_named_weakest_first_and_only_where_they_count(load: Load) -> None:
    environ = {"GUARDRAILS_STORE": "memory", "GUARDRAILS_MAX_STEPS": "3"}
    configuration = load(FILE, environ=environ, max_steps=2, max_tokens=None)
    assert configuration.sources == (
        "guardrails.yaml",
        "GUARDRAILS_STORE",
        "Guard(max_steps)",
    )


def test_an_agent_overrides_the_defaults_key_by_key(load: Load) -> None:
    limits = load(FILE).policy.session_budget("bot").limits
    assert limits.cost_nano_usd == 2_000_000_000
    assert limits.tool_calls == 5
    assert limits.steps == 10
    assert limits.wall_time_ms == 100_000


def test_quick_limits_override_every_agent_key_by_key(load: Load) -> None:
    policy = load(
        FILE,
        max_cost_usd="0.10",
        max_model_calls=7,
        soft_alert_usd="0.05",
        soft_alert_ratio=[0.5],
    ).policy
    for budget in (policy.session, policy.session_budget("bot")):
        assert budget.limits.cost_nano_usd == 100_000_000
        assert budget.limits.model_calls == 7
        assert budget.limits.steps == 10
        assert budget.soft_alerts.cost_nano_usd == 50_000_000
        assert [str(ratio) for ratio in budget.soft_alerts.ratios] == ["0.5"]
    assert policy.session.limits.tool_calls is None
    assert policy.session_budget("bot").limits.tool_calls == 5


def test_variable_limits_override_every_agent(load: Load) -> None:
    policy = load(FILE, environ=VARIABLES).policy
    assert policy.session_budget("bot").limits.cost_nano_usd == 300_000_000


def test_quick_limits_leave_shared_budgets_alone(load: Load) -> None:
    text = "budgets: [{ name: a, per: [], every: day, max_steps: 9 }]"
    assert load(text, max_steps=1).policy.budgets[0].limits.steps == 9


def test_an_argument_that_is_none_was_not_given(load: Load) -> None:
    configuration = load(FILE, max_cost_usd=None, mode=None)
    assert configuration.policy == load(FILE).policy
    assert configuration.sources == ("guardrails.yaml",)


def test_the_project_of_mcpspend_is_a_fallback(load: Load) -> None:
    environ = {"MCPSPEND_PROJECT_ID": "theirs"}
    assert load(environ=environ).project_id == "theirs"
    environ["GUARDRAILS_PROJECT_ID"] = "ours"
    configuration = load(environ=environ)
    assert configuration.project_id == "ours"
    assert configuration.sources == ("GUARDRAILS_PROJECT_ID",)


@pytest.mark.parametrize("name", ["STORE", "PROJECT_ID", "MODE", "CONFIG"])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_text_variable_is_not_set(load: Load, name: str, value: str) -> None:
    configuration = load(FILE, environ={f"GUARDRAILS_{name}": value})
    assert configuration == load(FILE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODE", "enforced"),
        ("PROJECT_ID", "a\x00b"),
        ("MAX_COST_USD", "0,005"),
        ("MAX_COST_USD", ""),
        ("MAX_COST_USD", "nan"),
        ("MAX_STEPS", "-1"),
        ("MAX_WALL_TIME_S", "2m"),
    ],
)
def test_a_bad_variable_is_named(load: Load, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={f"GUARDRAILS_{name}": value})
    assert str(caught.value).startswith(f"GUARDRAILS_{name}: {value!r} ")


def test_an_unknown_variable_is_not_ours_to_judge(load: Load) -> None:
    environ = {"GUARDRAILS_TOKEN": "x", "GUARDRAILS_MAX_LINE_BYTES": "9"}
    assert load(environ=environ) == load()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("GUARDRAILS_MAX_COST", "GUARDRAILS_MAX_COST_USD"),
        ("GUARDRAILS_MAX_STEP", "GUARDRAILS_MAX_STEPS"),
        ("GUARDRAILS_MAX_LLM_CALLS", "GUARDRAILS_MAX_TOOL_CALLS"),
        ("GUARDRAILS_MAX_", "GUARDRAILS_MAX_STEPS"),
    ],
)
def test_a_misspelt_limit_is_named(load: Load, name: str, near: str) -> None:
    """Else nothing would be limited, and nobody would notice."""
    with pytest.raises(ConfigurationError) as caught:
        load(environ={name: "1"})
    assert str(caught.value) == f"{name}: there is no such limit. Did you mean {near}?"


def test_a_file_is_found_upwards(tmp_path: Path) -> None:
    folder = tmp_path / "services" / "agent"
    folder.mkdir(parents=True)
    (tmp_path / "guardrails.yaml").write_text("project_id: above\n")
    found = load_configuration(None, environ={}, cwd=folder, overrides={})
    assert found.project_id == "above"
    assert found.sources == (str(Path("..", "..", "guardrails.yaml")),)

    (folder.parent / "guardrails.yaml").write_text("project_id: nearer\n")
    found = load_configuration(None, environ={}, cwd=folder, overrides={})
    assert found.project_id == "nearer"


def test_without_a_file_nothing_is_configured(tmp_path: Path) -> None:
    found = load_configuration(None, environ={}, cwd=tmp_path, overrides={})
    assert found.policy.limits_nothing
    assert found.sources == ()


def test_the_folder_of_the_process_is_where_the_search_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guardrails.yaml").write_text("project_id: here\n")
    monkeypatch.chdir(tmp_path)
    found = load_configuration(None, environ={}, cwd=None, overrides={})
    assert found.project_id == "here"


def test_a_deleted_folder_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    found = load_configuration(None, environ={}, cwd=None, overrides={"max_steps": 3})
    assert found.policy.session.limits.steps == 3


def test_an_empty_dict_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "guardrails.yaml").write_text("project_id: here\n")
    environ = {"GUARDRAILS_CONFIG": "guardrails.yaml"}
    found = load_configuration({}, environ=environ, cwd=tmp_path, overrides={})
    assert found.project_id == "default"


def test_a_variable_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "guardrails.yaml").write_text("project_id: found\n")
    (tmp_path / "other.yaml").write_text("project_id: named\n")
    environ = {"GUARDRAILS_CONFIG": "other.yaml"}
    named = load_configuration(None, environ=environ, cwd=tmp_path, overrides={})
    assert named.project_id == "named"
    assert named.sources == ("other.yaml",)


def test_an_argument_wins_over_the_variable(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("project_id: mine\n")
    for config in ("mine.yaml", Path("mine.yaml"), tmp_path / "mine.yaml"):
        loaded = load_configuration(
            config,
            environ={"GUARDRAILS_CONFIG": "absent.yaml"},
            cwd=tmp_path,
            overrides={},
        )
        assert loaded.project_id == "mine"


@pytest.mark.parametrize("config", ["absent.yaml", Path("absent.yaml")])
def test_a_named_file_must_exist(tmp_path: Path, config: str | Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(config, environ={}, cwd=tmp_path, overrides={})
    assert str(caught.value) == (
        "config: 'absent.yaml' cannot be read: No such file or directory. "
        "Name a readable file of YAML."
    )


def test_a_file_that_a_variable_names_must_exist(tmp_path: Path) -> None:
    environ = {"GUARDRAILS_CONFIG": "absent.yaml"}
    with pytest.raises(ConfigurationError, match=r"^GUARDRAILS_CONFIG: 'absent\.yaml'"):
        load_configuration(None, environ=environ, cwd=tmp_path, overrides={})


@pytest.mark.parametrize("config", ["", ".", "a\x00b", "x" * 5000])
def test_what_is_no_file_is_refused(tmp_path: Path, config: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^config: .* cannot be read: "):
        load_configuration(config, environ={}, cwd=tmp_path, overrides={})


def test_a_folder_with_the_name_of_the_file_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "guardrails.yaml").mkdir()
    with pytest.raises(ConfigurationError, match=r"^guardrails\.yaml cannot be read: "):
        load_configuration(None, environ={}, cwd=tmp_path, overrides={})


def test_a_broken_link_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "guardrails.yaml").symlink_to("absent.yaml")
    with pytest.raises(ConfigurationError, match=r"^guardrails\.yaml cannot be read: "):
        load_configuration(None, environ={}, cwd=tmp_path, overrides={})
