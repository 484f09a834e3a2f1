"""Messages: reads the JSON-RPC lines that concern us. Pure.

What is not recognised on its way to the server would be a call that nobody pays for, so
reading is as lenient as the most lenient server: escaped slashes, keys in another case,
keys that come twice, broken UTF-8. What even that does not make readable, but speaks of
a tool call, is refused: a call over several lines, of which the SDK in Go makes one, or
in UTF-16, which the SDK in C# reads after its byte order mark.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from guardrails_mcp.stdio.lines import EDGE_BYTES, Oversized
from guardrails_mcp.wire import CALL, SAMPLING, is_modern

__all__ = [
    "Message",
    "ToolRequest",
    "answers_raw",
    "asks_raw",
    "cancelled_key",
    "edges_of",
    "error_line",
    "failure_line",
    "hides_call",
    "is_ambiguous",
    "is_deep",
    "is_interesting",
    "is_response",
    "key_of",
    "key_of_raw",
    "line_of",
    "mentions_call",
    "mentions_sampling",
    "messages_in",
    "meta_of",
    "method_of",
    "models_asked",
    "names_sampling",
    "params_of",
    "response",
    "tool_request",
]

CANCELLED = "notifications/cancelled"

_PROTOCOL_KEY = "io.modelcontextprotocol/protocolVersion"

PARSE_ERROR = -32700
"""JSON-RPC 2.0, section 5.1: what a server answers to a line it cannot read."""

_CALL = re.compile(rb"tools\\?/call", re.IGNORECASE)
_ESCAPED_LETTER = re.compile(rb"\\u00(?:4d|6|7)", re.IGNORECASE)
"""What could hide `createMessage`. No writer of JSON escapes a letter by itself."""

_TWIN = "Name"
"""Stands for a `name` that came twice, which the object can have once."""

_KEYS = re.compile(r'"(?:method|params)"', re.IGNORECASE)
_SAMPLING = re.compile(rb'"sampling\\?/createMessage"')
_ESCAPE = re.compile(rb"\\u00([0-9a-fA-F]{2})")
_ID = rb'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)'
_START = rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?'
_ID_FIRST = re.compile(_START + _ID)
_FIRST = _START + rb"(?:" + _ID + rb"\s*,\s*)?"
_ASKS = re.compile(_FIRST + rb'"(?:method|params)"')
_ANSWERS = re.compile(_FIRST + rb'"(?:result|error)"')
_ID_LAST = re.compile(_ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')

Message = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """A request to call a tool, as a client has written it."""

    key: str | None
    """The request's id as JSON text: `1` is not `"1"`. `None` for a notification."""
    tool: object
    arguments: object
    params: Mapping[str, object]
    is_modern: bool
    size_bytes: int


def is_interesting(line: bytes) -> bool:
    """Whether a line of the host may be a call, or ask for or be the end of one."""
    # Not one expression: that takes a hundred times as long for a long line.
    return (
        b"tools/call" in line
        or rb"tools\/call" in line
        or b"tasks/" in line
        or rb"tasks\/" in line
        or b"notifications/cancelled" in line
        or rb"notifications\/cancelled" in line
        or rb"\u" in line
        or b"\0" in line  # As UTF-16 has beside each letter.
    )


def mentions_call(line: bytes) -> bool:
    """Whether a line that cannot be read speaks of a tool call."""
    return _CALL.search(_unescaped(line)) is not None


def is_ambiguous(message: object) -> bool:
    """Whether servers differ in what a member of a line calls.

    One that names its tool twice: servers in Go and C# take the one that comes last,
    others the one that is in lower case, or the first. So do batches within batches.
    """
    if method_of(message) != CALL:
        return not isinstance(message, dict)
    return sum(key.casefold() == "name" for key in params_of(message)) > 1


def hides_call(line: bytes) -> bool:
    """Whether a part of a line may be a call to a server that reads it as several.

    Those on the Python SDK do, up to 2.3: to their text streams a carriage return ends
    a line, and to JSON it is white space.
    """
    return b"\r" in line.rstrip(b"\r\n") and mentions_call(line)


def mentions_sampling(line: bytes) -> bool:
    """Whether a line of the server may ask the host's model something."""
    return b"createMessage" in line or (
        b"\\u00" in line and _ESCAPED_LETTER.search(line) is not None
    )


def names_sampling(line: bytes) -> bool:
    """Whether a line that cannot be read may be a part of a request for sampling.

    The SDK in Go reads a message over several lines.
    """
    return _SAMPLING.search(_unescaped(line)) is not None


def messages_in(line: bytes) -> list[object] | None:
    """Returns the members of a batch, or the one message; `None` if it is neither."""
    try:
        value = _value_of(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list):
        return cast("list[object]", value)
    return [cast("object", value)] if isinstance(value, dict) else None


def is_deep(line: bytes) -> bool:
    """Whether a line is JSON that is nested too deeply for `messages_in`."""
    try:
        _value_of(line)
    except RecursionError:
        return True  # It is, as far as it was read.
    except ValueError:
        pass
    return False


def _unescaped(line: bytes) -> bytes:
    plain = line.replace(b"\0", b"")
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), plain)


def _value_of(line: bytes) -> object:
    text = line.decode("utf-8", "replace").removeprefix("\ufeff")
    keys = [key.casefold() for key in _KEYS.findall(text)]
    has_twins = "\\u" in text or len(set(keys)) < len(keys)
    has_twins = has_twins or (text.count('"name"') > 1 and "call" in text)
    try:
        return json.loads(text, object_pairs_hook=_careful if has_twins else None)
    except ValueError:
        # An integer of more digits than Python reads is still one.
        return json.loads(text, parse_int=float, object_pairs_hook=_careful)


def method_of(message: object) -> str | None:
    """Returns the method of a request or notification."""
    method = _member(message, "method")
    return method if isinstance(method, str) else None


def params_of(message: object) -> Mapping[str, object]:
    """Returns the parameters; empty where there are none."""
    params = _member(message, "params")
    return cast("Mapping[str, object]", params) if isinstance(params, dict) else {}


def tool_request(message: object, size_bytes: int) -> ToolRequest | None:
    """Returns what is to be called; `None` if the message is no tool call."""
    if method_of(message) != CALL:
        return None
    params = params_of(message)
    meta = params.get("_meta")
    version = meta.get(_PROTOCOL_KEY) if isinstance(meta, dict) else None
    return ToolRequest(
        key=key_of(message),
        tool=_member(params, "name"),
        arguments=_member(params, "arguments"),
        params=params,
        is_modern=is_modern(version),
        size_bytes=size_bytes,
    )


def cancelled_key(message: object) -> str | None:
    """Returns the key of the request that a notification cancels."""
    if method_of(message) != CANCELLED:
        return None
    return _key(params_of(message).get("requestId"))


def is_response(message: object) -> bool:
    """Whether a message answers a request."""
    return (
        isinstance(message, dict)
        and "id" in message
        and ("result" in message or "error" in message)
    )


def models_asked(message: object) -> dict[str, Mapping[str, object]]:
    """Returns what an answer asks of the host's model, by the names of the requests.

    Since 2026-07-28 a server asks in the answer to a call, not in requests of its own.
    """
    result = _member(message, "result") if is_response(message) else None
    requests = _member(result, "inputRequests")
    if not isinstance(requests, dict):
        return {}
    return {
        name: params_of(request)
        for name, request in cast("dict[str, object]", requests).items()
        if method_of(request) == SAMPLING
    }


def meta_of(line: bytes) -> object:
    """Returns the `_meta` of the result that a line is, if it is one."""
    batch = messages_in(line) or [None]
    return _member(_member(batch[0], "result"), "_meta")


def key_of(message: object) -> str | None:
    """Returns the id of a request or response as JSON text."""
    return _key(_member(message, "id"))


def key_of_raw(line: bytes | Oversized) -> str | None:
    """Returns the id of a message that is too long to be read, from its ends."""
    return edges_of(line)[0]


def edges_of(line: bytes | Oversized) -> tuple[str | None, bytes, bytes]:
    """Returns the id of a message that is too long to be read, and its two ends.

    The ends are without the id, which differs between answers that are alike.
    """
    is_kept = isinstance(line, bytes)
    head = line[:EDGE_BYTES] if is_kept else line.head
    tail = line[-EDGE_BYTES:] if is_kept else line.tail
    if first := _ID_FIRST.match(head):
        return _read_key(first[1]), head[: first.start(1)] + head[first.end(1) :], tail
    if last := _ID_LAST.search(tail, max(0, len(tail) - 1_024)):
        return _read_key(last[1]), head, tail[: last.start(1)] + tail[last.end(1) :]
    return None, head, tail


def _read_key(text: bytes) -> str | None:
    try:
        return _key(json.loads(text))
    except ValueError:
        return None


def answers_raw(line: Oversized) -> bool:
    """Whether a message that is too long to be read begins as answers do."""
    return _ANSWERS.match(line.head) is not None


def asks_raw(line: bytes | Oversized) -> bool:
    """Whether a message that is too long to be read begins as questions do."""
    head = line if isinstance(line, bytes) else line.head
    return _ASKS.match(head) is not None


def line_of(value: object) -> bytes:
    """Writes a message as a line."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def error_line(key: str | None, code: int, text: str) -> bytes:
    """Writes an error as a line.

    Args:
        key: The request's id as JSON text; `None` if it is not known.
        code: The JSON-RPC code.
        text: What people read.
    """
    error = json.dumps({"code": code, "message": text}, separators=(",", ":"))
    return f'{{"jsonrpc":"2.0","id":{key or "null"},"error":{error}}}\n'.encode()


def failure_line(key: str, text: str) -> bytes:
    """Writes the result of a tool call that failed as a line."""
    result = {"content": [{"type": "text", "text": text}], "isError": True}
    return line_of(response(key, result))


def response(key: str, result: Mapping[str, object]) -> Message:
    """Returns the response to the request with this key."""
    return {"jsonrpc": "2.0", "id": json.loads(key), "result": result}


def _key(value: object) -> str | None:
    if type(value) is int:
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # Servers in JavaScript answer 1 to 1.0.
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return json.dumps(value)
    return None


def _member(value: object, name: str) -> object:
    """Returns a member by its name, else by its name in another case, as Go does."""
    if not isinstance(value, dict):
        return None
    members = cast("dict[str, object]", value)
    if name in members:
        return members[name]
    folded = (key for key in members if key.casefold() == name)
    return next((members[key] for key in folded), None)


def _careful(pairs: list[tuple[str, object]]) -> Message:
    """Builds an object in which no twin of `method` or `name` hides a tool call.

    Raises:
        ValueError: If it is one, and its `params` come twice. Servers in Go merge them.
    """
    message = dict(pairs)
    if any(key.casefold() == "method" and value == CALL for key, value in pairs):
        message["method"] = CALL
        if sum(key.casefold() == "params" for key, _ in pairs) > 1:
            raise ValueError("parameters that come twice")
    if sum(key == "name" for key, _ in pairs) > 1:
        message.setdefault(_TWIN, None)
    return message
