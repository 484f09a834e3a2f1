"""Prompts: bounds of what LangChain is about to send, without its content.

A token of a byte-level vocabulary is at least one byte of UTF-8, so that bytes
bound tokens from above, whatever the model. Every field of a message that may
reach the provider counts; what LangChain holds twice, such as tool calls that are
content blocks as well, counts once. Of media see `media.py`.
"""

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, TypeGuard, cast

from langchain_core.messages import BaseMessage

from guardrails.core.estimates import MESSAGE_OVERHEAD_TOKENS
from guardrails.core.plain import size_bytes
from guardrails.core.tracebacks import let_through
from guardrails.core.usage import TOKENS_MAX
from guardrails_langchain.reading.media import DATA, medium_tokens_max
from guardrails_langchain.reading.responses import OWN_BOUND, asks_responses

__all__ = [
    "DEPTH_MAX",
    "TOOL_CALL_BLOCKS",
    "calls_bytes",
    "candidates_of",
    "content_tokens_max",
    "definitions_tokens_max",
    "is_medium",
    "kind_of",
    "output_limit",
    "part_tokens_max",
    "text_bytes",
]

OPAQUE_TOKENS_MAX = 4_096
"""Of what cannot be written as JSON, such as a schema class, on top of the part
of it that can be read."""

DEPTH_MAX = 6
"""Levels of content blocks in which media are looked for; what is deeper counts by
its bytes. A tool's result holds blocks, and a block a source: 4."""

CANDIDATES_MAX = 128
"""The largest `n` that a provider accepts (OpenAI's API reference, 2026-11)."""

_MEDIA = frozenset(
    {
        "audio",
        "computer_screenshot",
        "document",
        "file",
        "image",
        "image_generation_call",
        "image_url",
        "input_audio",
        "input_file",
        "input_image",
        "media",
        "video",
        "video_url",
    }
)
_UNTYPED_MEDIA = frozenset({"audio", "document", "image", "inline_data", "video"})
"""Members that make a block without a type a medium, in Bedrock's and Gemini's
own formats."""

TOOL_CALL_BLOCKS = frozenset(
    {"function_call", "tool_call", "tool_call_chunk", "tool_use"}
)
_UNSENT_ARGUMENTS = frozenset({"layer", "lc_source", "parsed", "tool_calls"})
"""Additional arguments that stay here, or repeat a field of the message."""
_DEFINITIONS = (
    "tools",
    "toolConfig",
    "functions",
    "response_format",
    "response_schema",
    "output_config",
    "output_format",
)
_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "max_new_tokens",
    "maxTokens",
    "maxOutputTokens",
    "num_predict",
)
"""In the order in which they count: ChatOpenAI lets a bound `max_tokens` win over the
`max_completion_tokens` of the model, but see `responses.py`."""
_LIMIT_GROUPS = (
    "generationConfig",
    "generation_config",
    "inferenceConfig",
    "inference_config",
)
_CANDIDATES = ("best_of", "candidate_count", "n")

_json = json.JSONEncoder(ensure_ascii=False).encode


def output_limit(
    invocation_params: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    model_params: Mapping[str, Any] | None = None,
) -> int | None:
    """Returns the request's own bound on output tokens, for all its candidates.

    `None` if it has none that makes sense. A bound in a group of its own, such as
    `inferenceConfig`, and one beside it: the larger one counts.
    """
    params = invocation_params or {}
    own = params.get(OWN_BOUND)
    if own is not None and asks_responses(params, model_params or {}):
        params = {**params, _LIMITS[0]: own}
    groups = (params, *(params.get(name) for name in _LIMIT_GROUPS))
    limits = [limit for limit in map(_limit, groups) if limit is not None]
    if not limits:
        reported = (metadata or {}).get("ls_max_tokens")
        if not _is_sane(reported, TOKENS_MAX):
            return None
        limits = [reported]
    return min(max(limits) * candidates_of(params), TOKENS_MAX)


def candidates_of(invocation_params: Mapping[str, Any]) -> int:
    """Returns how many answers a request asks for at once."""
    counts = [invocation_params.get(name) for name in _CANDIDATES]
    return max([1, *(n for n in counts if _is_sane(n, CANDIDATES_MAX))])


def content_tokens_max(message: BaseMessage) -> int:
    """Returns an upper bound of the tokens of what a message says."""
    # This runs for every message of the history before every call: it reads the
    # fields from where pydantic keeps them, and looks at the rare ones last.
    get = message.__dict__.get
    content = get("content")
    calls = get("tool_calls")
    total = 0
    if type(content) is str:
        total = len(content) if content.isascii() else text_bytes(content)
    elif content:
        total = _parts_tokens_max(content, has_calls=bool(calls))
    if calls:
        total += calls_bytes(get("tool_call_chunks") or calls)
    name, call_id = get("name"), get("tool_call_id")
    if name or call_id:
        total += text_bytes(name) + text_bytes(call_id)
    if get("additional_kwargs") or get("invalid_tool_calls"):
        total += _extras_bytes(message)
    return total


def _extras_bytes(message: BaseMessage) -> int:
    fields = message.__dict__
    extras = [
        value
        for name, value in message.additional_kwargs.items()
        if name not in _UNSENT_ARGUMENTS and value is not None
    ]
    extras += fields.get("invalid_tool_calls") or ()
    return sum(map(_json_bytes, extras))


def calls_bytes(calls: Sequence[Mapping[str, Any]]) -> int:
    """Returns the bytes of tool calls: names, ids and arguments."""
    total = 0
    for call in calls:
        label = f"{call.get('name')}{call.get('id')}"
        total += MESSAGE_OVERHEAD_TOKENS + text_bytes(label)
        total += _arguments_bytes(call.get("args"))
    return total


def _arguments_bytes(arguments: Any) -> int:
    """Returns the bytes of arguments as JSON, or an unfinished piece of it."""
    if type(arguments) is not dict:
        is_piece = isinstance(arguments, str)
        return text_bytes(arguments) if is_piece else _json_bytes(arguments)
    # A third of the time of writing them as JSON. Per argument: two pairs of
    # quotes, a colon, a comma and two blanks; the escapes are in the text.
    given: dict[str, object] = arguments
    try:
        texts = [v if type(v) is str else _literal(v) for v in given.values()]
        escaped = encode_basestring("".join([*given, *texts]))
    except (TypeError, ValueError):  # Not all are scalars, or one is too long.
        return _json_bytes(given)
    return 2 + 8 * len(given) + text_bytes(escaped)


def _literal(value: object) -> str:
    """Writes a scalar; `TypeError` if it is none."""
    if value is None or type(value) in (int, bool, float):
        return repr(value)
    raise TypeError


def _parts_tokens_max(parts: Any, *, has_calls: bool = False, depth: int = 0) -> int:
    """Bounds content blocks; of those that repeat tool calls only the calls count."""
    blocks = cast("list[object]", parts) if isinstance(parts, list) else [parts]
    if has_calls:
        blocks = [block for block in blocks if kind_of(block) not in TOOL_CALL_BLOCKS]
    return sum([part_tokens_max(block, depth) for block in blocks])


def part_tokens_max(part: object, depth: int = 0) -> int:
    """Bounds one content block."""
    if isinstance(part, str):
        return text_bytes(part)
    if not isinstance(part, dict):
        return _json_bytes(part)
    block = cast("dict[str, Any]", part)
    kind = kind_of(block)
    if kind == "text" and len(block) == len(("type", "text")):
        return part_tokens_max(block.get("text"), depth)
    if is_medium(block):
        return medium_tokens_max(block) + _text_beside_medium(block, depth)
    if depth >= DEPTH_MAX:
        return _json_bytes(block)
    total = 0
    for name, member in block.items():
        total += text_bytes(str(name))
        if name in ("content", "output", "value") and isinstance(member, list | dict):
            total += _parts_tokens_max(member, depth=depth + 1)
        elif isinstance(member, str):
            total += text_bytes(member)
        elif member is not None:
            total += _json_bytes(member)
    return total


def is_medium(block: Mapping[str, object]) -> bool:
    """Whether a content block is an image, a sound, a film or a file."""
    kind = kind_of(block)
    if kind is None:
        return any(isinstance(block.get(name), dict) for name in _UNTYPED_MEDIA)
    return kind in _MEDIA


def _text_beside_medium(block: Mapping[str, Any], depth: int) -> int:
    """Bounds captions, and documents that are sent as text."""
    total = sum(
        text_bytes(member)
        for name, member in block.items()
        if isinstance(member, str) and name not in DATA
    )
    source: Any = block.get("source")
    if kind_of(source) in ("content", "text") and depth < DEPTH_MAX:
        total += _parts_tokens_max(list(source.values()), depth=depth + 1)
    return total


def kind_of(part: object) -> str | None:
    """Returns the type that a content block names."""
    kind: object = None
    if isinstance(part, dict):
        kind = cast("dict[str, object]", part).get("type")
    return kind if isinstance(kind, str) else None


def definitions_tokens_max(params: Mapping[str, Any]) -> int:
    """Bounds the tool definitions and schemas that are sent along."""
    total = 0
    for name in _DEFINITIONS:
        value = params.get(name)
        if isinstance(value, list | tuple):
            total += sum(map(_json_bytes, cast("Sequence[object]", value)))
        elif value is not None:
            total += _json_bytes(value)
    return total


def _json_bytes(value: object) -> int:
    """Returns the bytes of a value as JSON, or a bound if it is none."""
    try:
        return text_bytes(_json(value))
    except Exception as error:
        let_through(error)
        # Twice: the size leaves out quotes and escapes.
        return OPAQUE_TOKENS_MAX + 2 * (size_bytes(value) or 0)


def text_bytes(text: str | None) -> int:
    """Returns the length of a text in UTF-8."""
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _limit(group: object) -> int | None:
    if not group or not isinstance(group, Mapping):
        return None
    limits = cast("Mapping[str, object]", group)
    found = (limits.get(name) for name in _LIMITS)
    return next((limit for limit in found if _is_sane(limit, TOKENS_MAX)), None)


def _is_sane(value: object, most: int) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= most
