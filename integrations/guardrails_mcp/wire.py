"""Wire: reads requests and results of MCP, whichever SDK has made them. No policy.

The SDK 1.x and 2.x name and nest the same things differently, and a raw request may
carry its parameters as a dict. So everything here asks for attributes and keys, never
for types, and imports no SDK. What cannot be read is unknown; nothing raises.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import cast

from guardrails.core.attribution import clean_name
from guardrails.core.calls import CallStatus, tool_name
from guardrails.core.money import EXACT, nano_usd
from guardrails.core.plain import size_bytes
from guardrails.core.policy import Policy, ToolRule
from guardrails.core.usage import TOKENS_MAX
from guardrails.sessions.outcomes import BREAKS

__all__ = [
    "CALL",
    "FETCHES",
    "INITIALIZE",
    "LIST",
    "REJECTED",
    "SAMPLING",
    "UNKNOWN_MODEL",
    "UNKNOWN_TOOL",
    "ToolRequest",
    "believed_cost",
    "called_tool",
    "content_of",
    "content_size",
    "count_of",
    "hashed_name",
    "is_closed",
    "is_error_data",
    "is_modern",
    "is_timeout",
    "is_tool_error",
    "is_unread",
    "method_of",
    "reported_cost",
    "rounds_result",
    "server_name",
    "status_of_error",
    "task_asked",
    "task_end",
    "task_of",
    "tool_names",
    "tool_request",
    "value_of",
]

FETCHES = frozenset({"tasks/result", "tasks/get", "tasks/cancel"})
"""What is answered with the result of a call that is a task, or with how it ended."""

CALL, LIST, INITIALIZE = "tools/call", "tools/list", "initialize"
SAMPLING = "sampling/createMessage"

REJECTED = -1
"""The code of "User rejected sampling request" (client/sampling, 2025-11-25)."""

UNKNOWN_MODEL = "unknown"
"""Of a sampling request without hints: no table has a price for it."""

UNKNOWN_TOOL = "unknown"
"""Of a request that names no tool: it is sent, and the server will refuse it."""

REPORTED_NANO_USD_MAX = 1_000 * 10**9
"""A thousand dollars. What a server reports above is taken for a slip of units: cents,
or tokens. Believed, it would end a customer's month with one call."""

COST_CHARACTERS_MAX = 40
"""Longer than any cost, exponent or not."""

_NANO_USD = Decimal("1e-9")

_HASHED = re.compile(r"(?:__)?([0-9a-f]{12})_(.+)", re.DOTALL)
"""A tool as the interface of an app of FastMCP calls it: 4 with the underscores, 3
without (`fastmcp.server.providers.addressing`). Any client can."""

_ABSENT = object()

_FAILED = frozenset({"error", "failed", "cancelled"})
"""States of a message of LangChain, and of a task."""

_TIMEOUT_CODES = frozenset({408, -32001})
"""Of a request that nobody answered in time: SDK 1.x, and 2.x."""

_CONNECTION_CLOSED = -32000
"""Of both SDKs, where the connection ends while an answer is awaited."""

_HEADER_MISMATCH = -32020
"""Protocol 2026-07-28: the server has not read the request. The SDK sends it again."""

_UNWRITTEN = frozenset({"BrokenResourceError", "ClosedResourceError"})
"""What anyio's streams raise where nothing can be written any more (SDK 1.x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """What a `tools/call` asks for."""

    tool: str
    """As it is asked for: see `called_tool`."""
    arguments: object
    rounds: Mapping[str, object]
    """Its `requestState` and `inputResponses`, where it has any."""
    call_id: str | None = None
    """The model's id of the call, where a framework knows it."""


def is_modern(version: object) -> bool:
    """Whether a protocol version is 2026-07-28 or newer: versions are dates.

    Since then a result names its type, and there are no connections that last.
    """
    return isinstance(version, str) and version >= "2026"


def method_of(request: object) -> object:
    """Returns the method of a request."""
    return value_of(_root(request), "method")


def hashed_name(name: object) -> tuple[str, str] | None:
    """Returns the hash and the tool, if a name is one that apps of FastMCP call by."""
    found = _HASHED.fullmatch(name) if isinstance(name, str) else None
    return None if found is None else (found[1], found[2])


def called_tool(name: str, *, server: str | None, policy: Policy) -> str:
    """Returns the name of the tool that a request calls by a name.

    Under its hashed name it has the same price and limits: they are the tool's. But any
    server may have a tool that is really called so: whoever has a rule for it knows.
    """
    hashed = hashed_name(name)
    if hashed is None or policy.names_part(tool_name(name, server), hashed[0]):
        return name
    return clean_name(hashed[1]) or name


def tool_request(request: object) -> ToolRequest:
    """Returns what a `tools/call` asks for, as far as it can be read."""
    params = value_of(_root(request), "params")
    rounds = {
        "requestState": value_of(params, "request_state", "requestState"),
        "inputResponses": value_of(params, "input_responses", "inputResponses"),
    }
    return ToolRequest(
        tool=clean_name(value_of(params, "name")) or UNKNOWN_TOOL,
        # None and {} are the same call.
        arguments=value_of(params, "arguments") or {},
        rounds={key: value for key, value in rounds.items() if value is not None},
    )


def rounds_result(result: object) -> Mapping[str, object]:
    """Returns what `Rounds` has to know of a result."""
    return {
        "resultType": value_of(result, "result_type", "resultType"),
        "requestState": value_of(result, "request_state", "requestState"),
        "inputRequests": value_of(result, "input_requests", "inputRequests"),
    }


def content_of(result: object) -> Mapping[str, object] | None:
    """Returns what a result says, without what differs each time: its `_meta`.

    `None` if it says nothing yet, as a task that was created.
    """
    content = value_of(result, "content")
    structured = value_of(result, "structured_content", "structuredContent")
    if content is None and structured is None:
        return None
    return {"content": content, "structured": structured}


def content_size(result: object) -> int | None:
    """Returns about how many bytes a result takes as JSON; `None` is unknown."""
    content = content_of(result)
    size = None if content is None else size_bytes(content)
    if size is not None:
        return size
    try:
        # Addresses and the like, which are no plain data, are in it.
        text = cast("str", result.model_dump_json(by_alias=True, exclude_none=True))  # pyright: ignore[reportAttributeAccessIssue]: what has none is suppressed
        return len(text.encode("utf-8", "surrogatepass"))
    except Exception:
        return None


def task_of(result: object) -> str | None:
    """Returns the id of the task that a result stands for, if it does.

    It is inside of `task` (2025-11-25), or beside `resultType` (SEP-2663).
    """
    task = value_of(result, "task")
    if task is None and value_of(result, "result_type", "resultType") == "task":
        task = result
    task_id = value_of(task, "task_id", "taskId")
    return task_id if isinstance(task_id, str) and task_id else None


def task_asked(request: object) -> object:
    """Returns the id of the task that a request asks for."""
    return value_of(value_of(_root(request), "params"), "task_id", "taskId")


def task_end(result: object) -> object:
    """Returns the result of a task's tool; `None` if it is not over, as far as known.

    That is what was asked for, or in the state of the task (SEP-2663).
    """
    inner = value_of(result, "result")
    if inner is not None:
        return inner
    is_over = value_of(result, "status") in ("failed", "cancelled")
    return result if is_over or content_of(result) is not None else None


def is_tool_error(result: object) -> bool:
    """Whether a tool says that it failed, to MCP or as a message of LangChain."""
    is_error = value_of(result, "is_error", "isError")
    return is_error is True or value_of(result, "status") in _FAILED


def reported_cost(result: object, key: str) -> int | None:
    """Returns the cost that a result reports, in nano-USD; `None` if it reports none.

    Raises:
        ValueError: If what it reports is no cost.
    """
    meta = value_of(result, "meta", "_meta")
    cost = value_of(meta, key)
    if cost is None:
        return None
    if isinstance(cost, str | float) and len(str(cost)) <= COST_CHARACTERS_MAX:
        cost = _rounded(str(cost))
    nano = nano_usd(cost, name="the reported cost")
    if nano > REPORTED_NANO_USD_MAX:
        raise ValueError("the reported cost is above what a call can cost")
    return nano


def believed_cost(
    result: object, rule: ToolRule | None, contain: Callable[[BaseException, str], None]
) -> int | None:
    """Returns the cost in a result, where the operator believes its server.

    Args:
        result: What the server has answered.
        rule: What the policy says about the tool.
        contain: Takes what is wrong with a cost that is none.
    """
    if rule is None or rule.cost_from_meta is None:
        return None
    try:
        return reported_cost(result, rule.cost_from_meta)
    except Exception as error:
        contain(error, "reading the cost that a server reports")
        return None


def count_of(tokens: object) -> int | None:
    """Returns a number of tokens; `None` if it is none that can be meant."""
    # Not isinstance: `true` is no number.
    is_count = type(tokens) is int and 0 <= tokens <= TOKENS_MAX
    return cast("int", tokens) if is_count else None


def _rounded(text: str) -> object:
    """Returns a number without what is finer than a nano-USD, in which floats drift."""
    try:
        return Decimal(text).quantize(_NANO_USD, context=EXACT)
    except InvalidOperation:
        return text


def tool_names(result: object) -> Iterable[str]:
    """Returns the names of the tools that a `tools/list` lists."""
    tools = value_of(result, "tools")
    if not isinstance(tools, list):
        return ()
    names = (clean_name(value_of(tool, "name")) for tool in cast("list[object]", tools))
    return [name for name in names if name is not None]


def server_name(info: object) -> str | None:
    """Returns how a server calls itself, by what it says of itself or a result."""
    inner = value_of(info, "server_info", "serverInfo")
    return clean_name(value_of(inner if inner is not None else info, "name"))


def is_error_data(answer: object) -> bool:
    """Whether a client's callback has answered that it declines."""
    return (
        isinstance(value_of(answer, "code"), int) and value_of(answer, "role") is None
    )


# --- errors -----------------------------------------------------------------


def status_of_error(error: BaseException) -> CallStatus:
    """Says how a call ended that raised."""
    code = _code(error)
    is_cut = isinstance(error, (*BREAKS, TimeoutError)) or code == _CONNECTION_CLOSED
    return (
        CallStatus.BROKEN_OFF if is_cut or code in _TIMEOUT_CODES else CallStatus.ERROR
    )


def is_timeout(error: BaseException) -> bool:
    """Whether the SDK has given up waiting."""
    return _code(error) in _TIMEOUT_CODES


def is_unread(error: BaseException) -> bool:
    """Whether the server says that it has not even read the request."""
    return _code(error) == _HEADER_MISMATCH


def is_closed(session: object, error: BaseException | None = None) -> bool:
    """Whether a session cannot send anything, for certain.

    Args:
        session: The SDK's session.
        error: What its writing has raised, once it has.
    """
    if error is not None:
        # SDK 1.x raises the stream's own error, and no other place below raises one.
        return type(error).__name__ in _UNWRITTEN
    dispatcher = value_of(session, "_dispatcher")
    # SDK 2.x asks these before it writes. Where they are gone, nothing is certain.
    is_over = value_of(dispatcher, "_closed") is True
    return is_over or value_of(dispatcher, "_running") is False


def _code(error: BaseException) -> object:
    """Returns the code of a JSON-RPC error; SDK 1.x keeps it one level down."""
    for holder in (error, value_of(error, "error")):
        code = value_of(holder, "code")
        if type(code) is int:
            return code
    return None


# --- access -----------------------------------------------------------------


def value_of(holder: object, *names: str) -> object:
    """Returns the first of these members that a model or a dict has, if any.

    SDK 2.x's own names come first: FastMCP warns of whoever asks for the older ones.
    """
    for name in names:
        try:
            if isinstance(holder, Mapping):
                value = cast("Mapping[object, object]", holder).get(name, _ABSENT)
            else:
                value = getattr(holder, name, _ABSENT)
        except Exception:
            value = _ABSENT
        if value is not _ABSENT:
            return value
    return None


def _root(request: object) -> object:
    """Returns the request itself: SDK 1.x wraps each in a model of its own."""
    inner = value_of(request, "root")
    return request if inner is None else inner
