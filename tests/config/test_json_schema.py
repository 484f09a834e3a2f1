"""The JSON schema: an editor knows the same keys and values as loading does."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from guardrails.cli.template import TEMPLATE
from guardrails.config import load_configuration
from guardrails.config.json_schema import json_schema
from guardrails.errors import ConfigurationError

SCHEMA = json_schema()
VALID = Draft202012Validator(SCHEMA)

EXAMPLE = Path(__file__).parents[2] / "examples" / "guardrails.yaml"
BAD = Path(__file__).parent / "bad"

ONLY_LOADING_KNOWS = (
    "agent-",
    "alert-cooldown",
    "alert-apprise",
    "alert-slack-elsewhere",  # What a URL or a secret looks like.
    "alert-slack-without",
    "alert-webhook-private",
    "alert-webhook-secret",
    "alert-webhook-without",
    "alias-",  # Depends on other keys.
    "budget-known-of-two",
    "budget-known-without-limit",
    "budget-name-twice",
    "budget-of-a-session",
    "budget-scope-twice",
    "budget-session-without-id",
    "budget-unknown-of-the-project",
    "budget-without-limit",
    "closing-reserve-above",
    "cost-",  # How a number is written is lost once YAML has read it.
    "key-",  # What a YAML parser reads as two keys, or does not read.
    "loop-",
    "merge-key",
    "model-rate-per-token",
    "model-twice",
    "project-",
    "ratio-",
    "seconds-",
    "soft-alert-above",
    "steps-",
    "store-empty",
    "tokens-",
    "tool-cost-key-empty",
    "tool-timeout",
    "tool-without-price",
    "value-is-missing",
    "variable-",
    "wait-too-long",
    "yaml-",
)
"""Beginnings of bad files whose defect no schema can see."""


class EditorsLoader(yaml.SafeLoader):
    """Reads YAML 1.2, as editors and guardrails do: a key may be called `on`."""


EditorsLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:bool" or first in "tTfF"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def as_editors_do(text: str) -> object:
    return yaml.load(text, Loader=EditorsLoader)


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize(
    "text",
    [
        EXAMPLE.read_text(encoding="utf-8"),
        TEMPLATE,
        TEMPLATE.replace("#: store: sqlite\n", "").replace("#: ", ""),
        "defaults: { estimate: '${ESTIMATE:-strict}', on_limit: '${ON_LIMIT:-raise}' }",
    ],
)
def test_what_loads_is_valid(text: str) -> None:
    assert [error.message for error in VALID.iter_errors(as_editors_do(text))] == []


@pytest.mark.parametrize(
    "file",
    [
        file
        for file in sorted(BAD.glob("*.yaml"))
        if not file.name.startswith(ONLY_LOADING_KNOWS)
    ],
    ids=lambda file: file.stem,
)
def test_an_editor_marks_what_loading_refuses(file: Path) -> None:
    assert not VALID.is_valid(as_editors_do(file.read_text(encoding="utf-8")))


def objects(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Any]:
    """Yields the path and the keys of every object with keys of its own."""
    if "properties" in schema:
        yield path, set(schema["properties"])
        for key, inner in schema["properties"].items():
            yield from objects(inner, (*path, key))
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        yield from objects(values, (*path, "any"))
    if "items" in schema:
        yield from objects(schema["items"], (*path, "[]"))


OBJECTS = list(objects(SCHEMA, ()))


@pytest.mark.parametrize(
    ("path", "keys"), OBJECTS, ids=[".".join(path) or "file" for path, _ in OBJECTS]
)
def test_loading_knows_exactly_the_keys_of_each_object(
    path: tuple[str, ...], keys: set[str]
) -> None:
    """Each is written with a value of no type: loading complains about that, and
    about a key only where it does not know it."""
    for key in (*keys, "no_such_key"):
        content: Any = {key: {"x": [object]}}
        for part in reversed(path):
            content = [content] if part == "[]" else {part: content}
        with pytest.raises(ConfigurationError) as caught:
            load_configuration(content, environ={}, cwd=None, overrides={})
        is_unknown = f"{key}: unknown key" in str(caught.value)
        assert is_unknown == (key == "no_such_key"), str(caught.value)
