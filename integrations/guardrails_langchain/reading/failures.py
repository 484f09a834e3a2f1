"""Failures: what the error of a model call says of its bill.

Nothing here raises, and nothing of an answer is kept.
"""

from collections.abc import Iterator
from types import FrameType
from typing import Any, cast

from guardrails.core.tracebacks import let_through
from guardrails.sessions.outcomes import (
    UNREACHED,
    causes_of,
    is_lost,
    may_be_billed,
)
from guardrails_langchain.reading.answers import get

__all__ = ["answer_in", "attribute", "is_late_or_lost", "is_unsent"]

FRAMES_MAX = 64
"""Frames between a run and where it failed: ten, and room for wrappers."""

_LATE_STATUSES = frozenset({504, 524})
"""A proxy waited no longer for an answer."""

_UNDECIDED_STATUSES = _LATE_STATUSES | {408, 499, 502}
"""A proxy gave up on a request that the provider may go on with, and bill."""

_READING = frozenset(
    {
        "AttributeError",
        "IndexError",
        "KeyError",
        "NotImplementedError",
        "TypeError",
        "ValidationError",
        "ValueError",
    }
)
"""Errors of an integration at an answer of a form that it does not expect."""

_ANSWERS = ("response", "raw_response")
_FORMATTING, _FORMATTED = "_format_output", "data"
"""What integrations call an answer, best first, and where that of Anthropic reads one
(langchain-openai 1.7.4, langchain-anthropic 1.7.10, langchain-google-genai 4.4.2,
langchain-mistralai 1.1.6, langchain-groq 1.1.3, langchain-fireworks 1.7.1). Elsewhere
`data` may be a request that is still to be sent."""


def is_late_or_lost(error: BaseException) -> bool:
    """Whether the provider may go on with what nobody, or no proxy, waited for."""
    statuses = [_status(cause) for cause in causes_of(error)]
    is_late = any(status in _LATE_STATUSES for status in statuses)
    return is_late or may_be_billed(error)


def is_unsent(error: BaseException) -> bool:
    """Whether an error or its cause says that nothing was consumed."""
    for cause in causes_of(error):
        if is_lost(cause):
            return False  # Of a lost answer, aiohttp's parser has a `code` of 400.
        status = _status(cause)
        if status is not None:
            return 400 <= status < 600 and status not in _UNDECIDED_STATUSES
        if type(cause).__name__ in UNREACHED:
            return True
    return False


def answer_in(error: BaseException) -> object:
    """Returns the answer that an integration failed to read; `None` if there is none.

    Such an error is like one before anything was sent, as of a message that cannot be
    converted. But the function that failed, or one that called it, has the answer.
    """
    if type(error).__name__ not in _READING:
        return None
    found: object = None
    for frame in _frames_of(error):
        try:
            names: dict[str, object] = frame.f_locals
        except Exception as failure:
            let_through(failure)
            continue
        is_reading = frame.f_code.co_name == _FORMATTING
        held = map(names.get, (*_ANSWERS, _FORMATTED) if is_reading else _ANSWERS)
        found = next((one for one in held if one is not None), found)
    # Gateways say so, with a status of 200, of a model that has refused.
    is_refusal = get(found, "error") is not None and get(found, "usage") is None
    return None if is_refusal else found


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    """Yields the frames that an error came through, from the outside in."""
    here = error.__traceback__
    for _ in range(FRAMES_MAX):
        if here is None:
            return
        yield here.tb_frame
        here = here.tb_next


def _status(error: BaseException) -> int | None:
    """Returns the HTTP status that an error carries, wherever its client keeps it."""
    response = attribute(error, "response")
    statuses = (
        attribute(error, "status_code"),
        attribute(response, "status_code"),
        attribute(error, "code"),  # google-genai
        _aws_status(response),
    )
    return next((status for status in statuses if type(status) is int), None)


def _aws_status(response: object) -> object:
    if not isinstance(response, dict):
        return None
    metadata = cast("dict[str, Any]", response).get("ResponseMetadata")
    if not isinstance(metadata, dict):
        return None
    return cast("dict[str, Any]", metadata).get("HTTPStatusCode")


def attribute(source: object, name: str) -> object:
    """Returns an attribute; `None` if there is none, or it cannot be read."""
    try:
        return getattr(source, name, None)
    except Exception as error:
        let_through(error)
        return None
