"""Requests: a tool call on its way through a wrapped session, and what it holds."""

from collections.abc import Callable
from dataclasses import dataclass, field

from guardrails.sessions.guarded_call import GuardedCall
from guardrails_mcp import wire
from guardrails_mcp.resumption import Reading

__all__ = ["Held", "Request"]


@dataclass(slots=True, eq=False)
class Held:
    """A call that is reserved, over all its rounds."""

    call: GuardedCall
    busy_ms: int = 0
    """How long its requests took; the time that people took to answer aside."""
    turns: int = 0
    """How often its server has asked for input."""
    is_claimed: bool = False
    """A framework has opened it, and is in its scope."""
    connection: object = None
    """The SDK's session on which it waits for its next round."""
    reading: Reading = field(default_factory=Reading)
    """What is known of its answer."""


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way."""

    tool: wire.ToolRequest
    server: str | None
    """As the server calls itself."""
    connection: object = None
    """The SDK's session that it goes out on, if that is known."""
    was_sent: bool = False
    """Set where the host's own code takes over."""
    resumes: str | None = None
    """The token of the event after which it reads on."""
    hearing: list[Callable[[str], None]] = field(
        default_factory=list[Callable[[str], None]]
    )
    """Told of the tokens with which it can be resumed."""

    def hear(self, token: str) -> None:
        """Takes a token that the server sends while it answers."""
        for tell in self.hearing:
            tell(token)
