"""Whatever is written, it loads or is refused as a configuration error."""

import tempfile
from decimal import Decimal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails.config import Configuration, load_configuration
from guardrails.errors import ConfigurationError
from tests.config.test_configuration_format import EVERYTHING

SNIPPETS = [
    *"{}[]&*!|>'\"%@`#,:?-~\n\t \\\0\x85\u2028\ud800é१",
    *(
        "- ",
        ": ",
        "? ",
        "<<: ",
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "!!int ",
        "!<",
        "%YAML ",
    ),
    *("${", "${A}", "${A:-", "}", '"\\x', '"\\U', '"\\uD800"', "|+9\n", ">-\n"),
    *(".nan", ".inf", "-1", "1e999", "0x1F", "0o7", "1_0", "9" * 5000, "null", "true"),
    *("defaults:\n", "  session:\n", "agents:\n", "budgets:\n", "models:\n"),
]

edits = st.lists(
    st.tuples(
        st.floats(min_value=0, max_value=1),
        st.integers(min_value=0, max_value=40),
        st.one_of(st.just(""), st.sampled_from(SNIPPETS), st.text(max_size=8)),
    ),
    min_size=1,
    max_size=8,
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(allow_nan=False),
    st.sampled_from([Decimal("NaN"), Decimal("-Infinity")]),
    st.binary(max_size=4),
    st.text(max_size=12),
    st.sampled_from(SNIPPETS),
)

KEYS = [
    "version",
    "store",
    "project_id",
    "mode",
    "defaults",
    "session",
    "agents",
    "budgets",
    "tools",
    "models",
    "aliases",
    "alerts",
    "loop",
    "name",
    "per",
    "every",
    "action",
    "repeats",
    "within",
    "polling_repeats",
    "exempt",
    "max_cost_usd",
    "max_steps",
    "soft_alert_usd",
    "soft_alert_ratio",
    "on_limit",
    "estimate",
    "max_wait_s",
    "cost_per_call_usd",
    "input_per_1m_usd",
    "output_per_1m_usd",
]

trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from(KEYS), scalars.filter(bool)), inner, max_size=6
        ),
    ),
    max_leaves=30,
)


def edited(text: str, changes: list[tuple[float, int, str]]) -> str:
    for position, length, replacement in changes:
        start = int(position * len(text))
        text = text[:start] + replacement + text[start + length :]
    return text


def loads_or_refuses(config: object) -> Configuration | None:
    try:
        return load_configuration(
            config,  # pyright: ignore[reportArgumentType]: what users may pass
            environ={"A": "1"},
            cwd=None,
            overrides={},
        )
    except ConfigurationError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(len(line) < 1000 for line in lines)
        return None


def read_back(content: bytes) -> Configuration | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "guardrails.yaml"
        file.write_bytes(content)
        return loads_or_refuses(file)


@given(edits)
@settings(max_examples=200, deadline=None)
def test_a_randomly_edited_file_loads_or_is_refused(
    changes: list[tuple[float, int, str]],
) -> None:
    read_back(edited(EVERYTHING, changes).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_random_bytes_load_or_are_refused(content: bytes) -> None:
    read_back(content)


@given(st.lists(st.sampled_from(SNIPPETS), max_size=30))
@settings(deadline=None)
def test_random_yaml_syntax_loads_or_is_refused(parts: list[str]) -> None:
    read_back("".join(parts).encode("utf-8", "surrogatepass"))


@given(st.dictionaries(st.sampled_from(KEYS), trees))
@settings(deadline=None)
def test_a_random_dict_loads_or_is_refused(config: dict[str, object]) -> None:
    loads_or_refuses(config)


@given(st.dictionaries(st.sampled_from([*KEYS, "max_tokens", "on_unpriced"]), trees))
@settings(deadline=None)
def test_random_quick_arguments_load_or_are_refused(
    overrides: dict[str, object],
) -> None:
    try:
        load_configuration({}, environ={}, cwd=None, overrides=overrides)
    except ConfigurationError:
        return


def test_the_text_that_is_edited_is_valid() -> None:
    assert read_back(EVERYTHING.encode()) is not None
