"""Meters: what the relay asks whoever keeps the accounts, and tells them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from guardrails_mcp.stdio.messages import Message, ToolRequest

__all__ = ["Answer", "Meter", "Metered", "answer_of"]


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


class Meter(Protocol):
    """Admits calls, or refuses them with a `GuardrailsError`."""

    def open_tool(self, request: ToolRequest) -> Metered:
        """Opens a call of one of the server's tools."""
        ...

    def open_sampling(self, params: Mapping[str, object], size_bytes: int) -> Metered:
        """Opens a call of the host's model that the server asks for."""
        ...


def answer_of(message: Message, size_bytes: int) -> Answer:
    """Returns what a response says."""
    result = message.get("result")
    if isinstance(result, dict):
        is_error = result.get("isError") is True
        return Answer(
            result=cast("Mapping[str, object]", result),
            error_type="tool_error" if is_error else None,
            size_bytes=size_bytes,
        )
    error = message.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    name = f"jsonrpc_error {code}" if isinstance(code, int) else "jsonrpc_error"
    return Answer(error_type=name, size_bytes=size_bytes)
