"""Outcomes: what there is to say of how a call ended."""

import asyncio
from collections.abc import Callable, Iterator

from guardrails.core.calls import CallStatus, Outcome
from guardrails.core.tracebacks import interrupt_in
from guardrails.core.usage import TokenUsage
from guardrails.errors import GuardrailsError

__all__ = [
    "BREAKS",
    "UNREACHED",
    "causes_of",
    "checked_usage",
    "failed",
    "is_lost",
    "may_be_billed",
    "text_of",
]

BREAKS: tuple[type[BaseException], ...] = (
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
)
"""Errors that say that nobody waits for the call any more."""

UNREACHED = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "ConnectTimeoutError",
        "ConnectionRefusedError",
        "EndpointConnectionError",
        "PoolTimeout",
        "gaierror",
    }
)
"""Errors of the HTTP clients before a request is sent (httpx, boto, sockets)."""

_LOST = frozenset(
    {
        "BrokenPipeError",
        "ChunkedEncodingError",
        "ClientPayloadError",
        "ConnectionAbortedError",
        "ConnectionClosedError",
        "ConnectionResetError",
        "IncompleteRead",
        "IncompleteReadError",
        "ReadError",
        "RemoteDisconnected",
        "RemoteProtocolError",
        "ResponseStreamingError",
        "ServerDisconnectedError",
        "WriteError",
    }
)
"""Errors of a connection that broke while a request was sent or answered."""

_UNREAD = frozenset(
    {
        "APIResponseValidationError",
        "DecodingError",
        "JSONDecodeError",
        "ResponseValidationError",
        "UnknownApiResponseError",
    }
)
"""Errors of an answer that came, and that its client could not read."""

_LOOP_LOST = ("loop is closed", "different loop", "different event loop")
"""In what asyncio says, by a mere `RuntimeError`, of another event loop's connection,
as of an `asyncio.run` before: a request is sent, and its answer never read."""

CAUSES_MAX = 4
"""Errors that are followed from effect to cause; integrations wrap once or twice."""


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, what has caused it, and so on."""
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def may_be_billed(error: BaseException) -> bool:
    """Whether the provider may go on with an answer that never came, and bill it all.

    Nobody waited for it, the connection broke, or it could not be read. Each client has
    errors of its own for that, so their names count.
    """
    if interrupt_in(error) is not None:
        return True
    found = [*causes_of(error)]
    if any(type(one).__name__ in UNREACHED for one in found):
        return False
    return any(is_lost(one) or _is_late(type(one)) for one in found)


def is_lost(error: BaseException) -> bool:
    """Whether an error itself says that an answer was lost, or could not be read."""
    if type(error) is RuntimeError:
        text = text_of(error)
        return any(said in text for said in _LOOP_LOST)
    return type(error).__name__ in _LOST | _UNREAD


def _is_late(kind: type[BaseException]) -> bool:
    """Whether an error says that an answer did not come in time."""
    names = [base.__name__ for base in kind.__mro__]
    return any("Timeout" in name or name == "DeadlineExceeded" for name in names)


def checked_usage(usage: object) -> TokenUsage | None:
    """Returns what was reported.

    Raises:
        ValueError: If it is no usage.
    """
    if usage is None or isinstance(usage, TokenUsage):
        return usage
    raise ValueError(
        f"settle.usage: a {type(usage).__name__} is no TokenUsage. Pass "
        "TokenUsage(input_tokens=..., output_tokens=...)."
    )


def failed(
    error: BaseException, digest_of: Callable[[BaseException], str | None]
) -> Outcome:
    """Returns the outcome of a call that ended with an error.

    Args:
        error: What the code around it raised.
        digest_of: Returns the digest of how a tool has failed.
    """
    is_cut = isinstance(error, BREAKS)
    # A stop or a cancellation says nothing about how the tool itself fails.
    says_nothing = is_cut or isinstance(error, GuardrailsError)
    return Outcome(
        status=CallStatus.BROKEN_OFF if is_cut else CallStatus.ERROR,
        error_type=type(error).__name__,
        output_tokens_max=None if may_be_billed(error) else 0,
        result_digest=None if says_nothing else digest_of(error),
    )


def text_of(error: BaseException) -> str:
    """Returns what an error says, if it can."""
    try:
        return str(error)
    except Exception:
        return ""
