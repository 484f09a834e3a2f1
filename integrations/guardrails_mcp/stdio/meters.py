"""Meters: what the relay asks whoever keeps the accounts, and tells them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from guardrails.system.clock import SystemClock
from guardrails_mcp.stdio import messages
from guardrails_mcp.stdio.messages import Message, ToolRequest

__all__ = [
    "READ_BYTES_MAX",
    "Answer",
    "Ended",
    "Meter",
    "Metered",
    "answer_of",
    "answers_in",
    "now_ms",
]

now_ms: Callable[[], int] = SystemClock().monotonic_ms
"""Milliseconds of a clock that is never set."""

READ_BYTES_MAX = 262_144
"""Longer answers are not parsed: 256 KiB take milliseconds, during which nothing else
is relayed. Of those the id is found at one of the ends. They are parsed all the same
where a cost in them is believed: a limit in money is worth the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a request, as far as it is known."""

    result: Mapping[str, object] | None = None
    """The result; `None` after an error, or if it was too long to be read."""
    error_type: str | None = None
    edges: tuple[bytes, ...] = ()
    """Of an answer that was not read: what tells it from another."""
    meta: object = None
    """Of such an answer, the `_meta` of its result, where a cost in it is believed."""
    size_bytes: int | None = None
    at_ms: int | None = None
    """When it came, by `now_ms`; `None` for now."""
    is_broken_off: bool = False


class Metered(Protocol):
    """A call that was admitted."""

    @property
    def believes_cost(self) -> bool:
        """Whether the cost that its result reports is believed."""
        ...

    def settle(self, answer: Answer) -> None:
        """Books what the call turned out to be. Never raises."""
        ...

    def release(self) -> None:
        """Gives the call back: it was not made. Never raises."""
        ...

    def pause(self) -> None:
        """Says that the call waits for somebody's answer: no time passes for it."""
        ...

    def go_on(self) -> None:
        """Says that the call goes on after that."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that was answered and is not booked yet."""

    call: Metered
    answer: Answer

    def book(self) -> None:
        """Books it."""
        self.call.settle(self.answer)


class Meter(Protocol):
    """Admits calls, or refuses them with a `GuardrailsError`."""

    def open_tool(self, request: ToolRequest, ended: Ended | None = None) -> Metered:
        """Opens a call of one of the server's tools.

        Args:
            request: What the host asks for.
            ended: A call that is booked with it, and also if it is refused.
        """
        ...

    def open_sampling(self, params: Mapping[str, object], size_bytes: int) -> Metered:
        """Opens a call of the host's model that the server asks for."""
        ...


def answers_in(
    line: bytes, at_ms: int, believes_cost: Callable[[str], bool]
) -> Iterator[tuple[str | None, Answer]]:
    """Yields what a line of the server answers, and the ids of the requests.

    Args:
        line: What the server wrote.
        at_ms: When it did, by `now_ms`.
        believes_cost: Says of an id whether a cost in its answer is believed.
    """
    batch = messages.messages_in(line) if len(line) <= READ_BYTES_MAX else None
    if batch is None and (len(line) > READ_BYTES_MAX or messages.is_deep(line)):
        yield from _unread(line, at_ms, believes_cost)
    for message in batch or ():
        if messages.is_response(message):
            answer = answer_of(cast("Message", message), len(line), at_ms)
            yield messages.key_of(message), answer


def _unread(
    line: bytes, at_ms: int, believes_cost: Callable[[str], bool]
) -> Iterator[tuple[str | None, Answer]]:
    if messages.asks_raw(line):
        return
    key, head, tail = messages.edges_of(line)
    is_error = b'"isError":true' in head or b'"isError":true' in tail
    yield (
        key,
        Answer(
            error_type="tool_error" if is_error else None,
            edges=(head, tail, b"%d" % len(line)),
            meta=messages.meta_of(line) if believes_cost(key or "") else None,
            size_bytes=len(line),
            at_ms=at_ms,
        ),
    )


def answer_of(message: Message, size_bytes: int, at_ms: int | None = None) -> Answer:
    """Returns what a response says."""
    result = message.get("result")
    if isinstance(result, dict):
        is_error = result.get("isError") is True
        return Answer(
            result=cast("Mapping[str, object]", result),
            error_type="tool_error" if is_error else None,
            size_bytes=size_bytes,
            at_ms=at_ms,
        )
    error = message.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    name = f"jsonrpc_error {code}" if isinstance(code, int) else "jsonrpc_error"
    return Answer(error_type=name, size_bytes=size_bytes, at_ms=at_ms)
