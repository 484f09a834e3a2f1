"""Bad configurations: every defect is named with its place, key, value and fix.

The files in `bad/` have one defect each; their first line is the message.
"""

import itertools
import json
import math
from decimal import Decimal
from pathlib import Path

import pytest

from guardrails.config import load_configuration
from guardrails.config.budgets import BUDGETS_MAX
from guardrails.config.nodes import DEPTH_MAX, NODES_MAX
from guardrails.config.problems import PROBLEMS_SHOWN_MAX, shown
from guardrails.config.section import TEXT_CHARACTERS_MAX
from guardrails.config.yaml_nodes import FILE_BYTES_MAX
from guardrails.core.attribution import DIMENSIONS
from guardrails.errors import ConfigurationError
from tests.config.conftest import Load

BAD_FILES = sorted((Path(__file__).parent / "bad").glob("*.yaml"))

OPERATOR_SECRET = "hunter2"

ENDLESS = 1 << 20_000
"""Python refuses to write it as digits."""


def message_of(config: object, **overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(
            config,  # pyright: ignore[reportArgumentType]: what users may pass
            environ={},
            cwd=None,
            overrides=overrides,
        )
    return str(caught.value)


def session(**limits: object) -> dict[str, object]:
    return {"defaults": {"session": limits}}


def test_there_are_bad_files() -> None:
    assert len(BAD_FILES) >= 90


@pytest.mark.parametrize("file", BAD_FILES, ids=lambda file: file.stem)
def test_a_bad_file_is_refused_with_exactly_this_message(file: Path) -> None:
    first, _, _ = file.read_bytes().partition(b"\n")
    expected = first.decode().removeprefix("# expect: ")
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(file.name, environ={}, cwd=file.parent, overrides={})
    assert str(caught.value) == expected


def test_all_defects_are_reported_together_in_the_order_of_the_file(load: Load) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(
            """
            mode: enforced
            defaults:
              session: { max_steps: -1, max_cost: 1 }
            agents:
              bot: { session: { max_cost_usd: "0,005" } }
            """,
            environ={"GUARDRAILS_MAX_STEPS": "many"},
            max_tokens=True,
        )
    no_count = "is not a whole number of at least 0. Write digits only, for example 40."
    starts = [line.split(": ")[:2] for line in str(caught.value).splitlines()]
    assert starts == [
        ["guardrails.yaml:2:7", "mode"],
        ["guardrails.yaml:4:25", "defaults.session.max_steps"],
        ["guardrails.yaml:4:29", "defaults.session.max_cost"],
        ["guardrails.yaml:6:35", "agents.bot.session.max_cost_usd"],
        ["max_tokens", f"True {no_count}"],
        ["GUARDRAILS_MAX_STEPS", f"'many' {no_count}"],
    ]


def test_defects_beyond_the_readable_number_are_counted() -> None:
    lines = message_of({f"key_{index}": 1 for index in range(200)}).splitlines()
    assert len(lines) == PROBLEMS_SHOWN_MAX + 1
    assert all("unknown key" in line for line in lines[:-1])
    assert lines[-1] == f"… and {200 - PROBLEMS_SHOWN_MAX} more."

    keys = {f"key_{index}": 1 for index in range(PROBLEMS_SHOWN_MAX)}
    assert "… and" not in message_of(keys)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1, "-1"),
        (-0.01, "-0.01"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (True, "True"),
        (False, "False"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-10, "1e-10"),
        (1e400, "inf"),
        (1e300, "1e+300"),
        (10**20, "100000000000000000000"),
        (ENDLESS, "an integer of 20001 bits"),
        (Decimal("NaN"), "Decimal('NaN')"),
        (Decimal("sNaN"), "Decimal('sNaN')"),
        (Decimal("1E+999999"), "Decimal('1E+999999')"),
        (Decimal(9_007_200), "Decimal('9007200')"),
        ("0,005", "'0,005'"),
        ("1e400", "'1e400'"),
        ("", "''"),
        ("१", "'१'"),
        ("+1", "'+1'"),
        (b"1", "b'1'"),
        ({1}, "{1}"),
        (object, "<class 'object'>"),
    ],
    ids=shown,
)
@pytest.mark.parametrize("is_file", [True, False])
def test_a_bad_amount_is_named_with_its_key_and_value(
    value: object, expected: str, is_file: bool
) -> None:
    if is_file:
        message = message_of({"agents": {"a-b": {"session": {"max_cost_usd": value}}}})
        key = 'agents."a-b".session.max_cost_usd'
    else:
        message = message_of({}, max_cost_usd=value)
        key = "max_cost_usd"
    assert message.startswith(f"{key}: {expected} ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "value",
    [-1, 1.5, True, math.nan, math.inf, "1e3", "१", "1_000", 1 << 53, ENDLESS, b"1"],
    ids=shown,
)
@pytest.mark.parametrize("key", ["max_steps", "max_tokens", "max_model_calls"])
def test_a_bad_count_is_refused(key: str, value: object) -> None:
    assert message_of(session(**{key: value})).startswith(f"defaults.session.{key}: ")


@pytest.mark.parametrize("value", [-1, True, math.nan, 0.0001, "5m", "१", 10**13, None])
def test_bad_seconds_are_refused(value: object) -> None:
    message = message_of(session(max_wall_time_s=value))
    assert message.startswith("defaults.session.max_wall_time_s: ")


@pytest.mark.parametrize("value", [0, -0.5, 1.01, True, math.nan, "half", [0.5, 2]])
def test_a_bad_ratio_is_refused(value: object) -> None:
    message = message_of(session(soft_alert_ratio=value))
    assert message.startswith("defaults.session.soft_alert_ratio")


def test_a_version_must_be_the_number_one() -> None:
    assert message_of({"version": True}).startswith("version: True is not a version")
    assert message_of({"version": ENDLESS}).startswith("version: an integer of 20001")
    assert message_of({"version": 1.0}).startswith("version: 1.0 is not a version")
    assert message_of({"version": 1.5}).startswith("version: 1.5 is not a version")


def test_a_mode_that_yaml_turned_into_false_is_explained() -> None:
    message = message_of({"mode": False})
    assert message == (
        "mode: False is not one of enforce, observe, off. Put it in quotes."
    )


def test_an_unknown_quick_argument_is_refused_with_the_nearest() -> None:
    assert message_of({}, max_cost="1.00") == (
        "max_cost: unknown key. Did you mean 'max_cost_usd'?"
    )


def test_keys_of_a_dict_must_be_strings() -> None:
    message = message_of({"agents": {7: {}}})
    assert message == "agents: the key 7 is not a string. Put it in quotes."


def test_a_dict_that_contains_itself_is_refused() -> None:
    config: dict[str, object] = {}
    config["defaults"] = config
    assert message_of(config) == (
        f"config: nested more than {DEPTH_MAX} levels deep. Flatten it."
    )


def test_what_is_neither_a_path_nor_a_dict_is_refused() -> None:
    assert message_of(5) == "config: 5 is neither a path nor a dict. Pass one of them."


def test_more_budgets_than_a_call_can_be_charged_to_are_refused() -> None:
    def budgets(number: int) -> dict[str, object]:
        scopes = [
            {"name": f"{every}-{scope}", "per": scope, "every": every, "max_steps": 1}
            for every in ("day", "month", "total")
            for size in (1, 2)
            for scope in itertools.combinations(DIMENSIONS, size)
        ]
        return {"budgets": scopes[:number]}

    largest = load_configuration(
        budgets(BUDGETS_MAX), environ={}, cwd=None, overrides={}
    )
    assert len(largest.policy.budgets) == BUDGETS_MAX
    assert message_of(budgets(BUDGETS_MAX + 1)) == (
        f"budgets: {BUDGETS_MAX + 1} budgets. Write at most {BUDGETS_MAX}."
    )


@pytest.mark.parametrize(
    ("largest", "smallest_refused"),
    [
        ({"defaults": {"max_wait_s": 600}}, {"defaults": {"max_wait_s": 600.001}}),
        (
            session(max_cost_usd="0.50", soft_alert_usd="0.50"),
            session(max_cost_usd="0.50", soft_alert_usd="0.500000001"),
        ),
        (session(soft_alert_ratio=1), session(soft_alert_ratio="1.0001")),
        ({"store": "x" * 4096}, {"store": "x" * 4097}),
        (
            {"models": {"m": {"input_per_1m_usd": 9000, "output_per_1m_usd": 0}}},
            {"models": {"m": {"input_per_1m_usd": "9000.1", "output_per_1m_usd": 0}}},
        ),
    ],
)
def test_a_bound_is_inclusive(
    largest: dict[str, object], smallest_refused: dict[str, object]
) -> None:
    load_configuration(largest, environ={}, cwd=None, overrides={})
    message_of(smallest_refused)


@pytest.mark.parametrize("is_file", [True, False])
def test_nesting_is_bounded_alike_in_a_file_and_a_dict(
    load: Load, is_file: bool
) -> None:
    def nested(levels: int) -> str:
        # The list under a key is the first level, its innermost item the last.
        inner: object = "x"
        for _ in range(levels - 1):
            inner = [inner]
        config = {"unknown": inner}
        if not is_file:
            return message_of(config)
        with pytest.raises(ConfigurationError) as caught:
            load(json.dumps(config))
        return str(caught.value)

    assert "unknown key" in nested(DEPTH_MAX)
    assert f"more than {DEPTH_MAX} levels" in nested(DEPTH_MAX + 1)


def test_values_are_counted_up_to_the_bound() -> None:
    config: dict[str, object] = {"unknown": ["x"] * (NODES_MAX - 1)}
    assert "unknown key" in message_of(config)
    config = {"unknown": ["x"] * NODES_MAX}
    assert f"more than {NODES_MAX} values" in message_of(config)


def test_keys_that_would_spoil_the_line_are_written_safely() -> None:
    assert message_of({"a\nb": 1}).startswith("'a\\nb': unknown key.")
    assert message_of({"k" * 61: 1}).startswith("'kkk")
    assert message_of({"k" * 60: 1}).startswith("k" * 60 + ": unknown key.")
    assert message_of({"k k": 1}).startswith('"k k": unknown key.')


def test_an_endless_text_is_refused_and_not_repeated() -> None:
    message = message_of({"store": "x" * (TEXT_CHARACTERS_MAX + 1)})
    assert message.startswith("store: 4097 characters")
    assert len(message) < 100


def test_a_message_never_repeats_a_store_url() -> None:
    url = [f"redis://:{OPERATOR_SECRET}@cache/0"]
    assert OPERATOR_SECRET in message_of({"project_id": url})
    assert OPERATOR_SECRET not in message_of({"store": url})
    assert OPERATOR_SECRET not in message_of({"store": f"{url[0]}${{A"})
    assert OPERATOR_SECRET not in message_of({}, store=url)
    assert OPERATOR_SECRET not in message_of({}, store=url[0].encode())


def test_aliases_cannot_multiply_a_file_without_bound(load: Load) -> None:
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)]
    bomb = "\n".join(["l0: &l0 [x]", *levels])
    with pytest.raises(ConfigurationError, match=f"more than {NODES_MAX} values"):
        load(bomb)


def test_a_file_above_the_largest_size_is_refused(load: Load) -> None:
    assert load("#" * (FILE_BYTES_MAX - 1) + "\n").sources == ("guardrails.yaml",)
    with pytest.raises(ConfigurationError, match=f"larger than {FILE_BYTES_MAX} bytes"):
        load("#" * FILE_BYTES_MAX + "\n")
