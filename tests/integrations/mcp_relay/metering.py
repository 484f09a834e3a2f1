"""A meter that keeps the books of a test: how many calls, and what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from guardrails import CallRefused
from guardrails_mcp.stdio.messages import ToolRequest
from guardrails_mcp.stdio.meters import Answer, Ended
from guardrails_mcp.stdio.relay import Relay

BYTES_MAX = 1_000


@dataclass
class Call:
    """A call that was admitted."""

    tool: object
    arguments: object = None
    answers: list[Answer] = field(default_factory=list)
    is_released: bool = False
    pauses: int = 0
    believes_cost: bool = False

    def settle(self, answer: Answer) -> None:
        self.answers.append(answer)

    def release(self) -> None:
        self.is_released = True

    def pause(self) -> None:
        self.pauses += 1

    def go_on(self) -> None:
        self.pauses -= 1


class Books:
    """Admits a number of calls, and refuses the ones after that."""

    def __init__(self, admitted_max: int = 1_000) -> None:
        self.calls: list[Call] = []
        self.refused: list[object] = []
        self._admitted_max = admitted_max

    def open_tool(self, request: ToolRequest, ended: Ended | None = None) -> Call:
        if ended is not None:
            ended.book()
        return self._open(Call(request.tool, request.arguments))

    def open_sampling(self, params: Mapping[str, object], size_bytes: int) -> Call:
        return self._open(Call("sampling", params))

    def _open(self, call: Call) -> Call:
        if len(self.calls) >= self._admitted_max:
            self.refused.append(call.tool)
            raise CallRefused("over")
        self.calls.append(call)
        return call


def relay_of(books: Books) -> Relay:
    return Relay(lambda: books, bytes_max=BYTES_MAX)
