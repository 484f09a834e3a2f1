"""Sampling: a server asks the client's model, and the client's account pays for it.

Such a request counts as a model call. Its bounds are the bytes of its messages and its
`maxTokens`; what was consumed is reported to nobody, so it is booked by those bounds
and marked as estimated.
"""

import functools
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from guardrails import Guard, Session
from guardrails.core.attribution import clean_name
from guardrails.core.calls import CallStatus, ModelCall, Outcome
from guardrails.core.plain import size_bytes
from guardrails.core.usage import TOKENS_MAX
from guardrails.errors import CallRefused, GuardrailsError, SessionStopped
from guardrails.sessions.guarded_call import GuardedCall
from guardrails_mcp import booking, wire
from guardrails_mcp.calls import Wrapping, asking
from guardrails_mcp.refusals import refusal_text
from guardrails_mcp.serving import outside

__all__ = ["SamplingRequest", "answered", "guards_sampling", "sampling_callback"]

Callback = Callable[[Any, Any], Awaitable[Any]]


@dataclass(slots=True, eq=False)
class _Offer:
    """A sampling request that is counted, for whatever answers it to claim."""

    engine: object
    is_open: bool = True


_offer: ContextVar[_Offer | None] = ContextVar("guardrails_mcp_sampling", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRequest:
    """What a server asks the client's model for, as far as it can be read."""

    model: str
    input_bytes: int
    output_tokens: int | None

    @classmethod
    def of(cls, request: object) -> "SamplingRequest | None":
        """Reads a request of a server; `None` if it is none for a model."""
        if wire.method_of(request) != wire.SAMPLING:
            return None
        return cls.read(wire.value_of(request, "params"))

    @classmethod
    def read(cls, params: object) -> "SamplingRequest":
        """Reads the parameters of such a request."""
        preferences = wire.value_of(params, "model_preferences", "modelPreferences")
        hints = wire.value_of(preferences, "hints")
        first = (
            cast("list[object]", hints)[0] if isinstance(hints, list) and hints else 0
        )
        tokens = wire.value_of(params, "max_tokens", "maxTokens")
        asked = [
            wire.value_of(params, "messages"),
            wire.value_of(params, "system_prompt", "systemPrompt"),
            wire.value_of(params, "tools"),
        ]
        size = sum(size_bytes(part) or 0 for part in asked if part is not None)
        return cls(
            model=clean_name(wire.value_of(first, "name")) or wire.UNKNOWN_MODEL,
            input_bytes=min(size, TOKENS_MAX),
            output_tokens=wire.count_of(tokens),
        )


def sampling_callback(guard: Guard, callback: Callback) -> Callback:
    """Returns a sampling callback whose every call is guarded.

    For clients that are not wrapped, as `ClientSession(sampling_callback=...)`. In a
    wrapped one it counts once. It belongs to the session around the running code, else
    to the guard's own. A model that the callback calls through another integration of
    guardrails counts as a call of its own: give such a callback as it is.
    """

    @functools.wraps(callback)
    async def guarded(context: Any, params: Any) -> Any:
        offer = _offer.get()
        if offer is not None and offer.is_open and offer.engine is guard.engine:
            offer.is_open = False
            return await callback(context, params)
        with outside():
            return await _guarded(
                guard,
                guard.current_session(),
                SamplingRequest.read(params),
                functools.partial(callback, context, params),
            )

    return guarded


def guards_sampling(session: object) -> bool:
    """Whether a session's callback asks a model: the SDK's own default declines."""
    callback = vars(session).get("_sampling_callback")
    return getattr(callback, "__name__", None) != "_default_sampling_callback"


async def answered(
    wrappings: Iterable[Wrapping],
    request: SamplingRequest,
    answer: Callable[[], Awaitable[Any]],
) -> Any:
    """Answers a server's request, guarded by all who wrap the session."""
    for wrapping in wrappings:
        answer = functools.partial(_answered, wrapping, request, answer)
    with outside():
        return await answer()


async def _answered(
    wrapping: Wrapping, request: SamplingRequest, answer: Callable[[], Awaitable[Any]]
) -> Any:
    return await _guarded(wrapping.guard, _session_of(wrapping), request, answer)


def _session_of(wrapping: Wrapping) -> Session:
    """Returns the session of the tool call for which a server asks the model.

    The request comes in on the connection, in whose context no call is known. Where
    several sessions have calls running on it, the one around the connection is taken.
    """
    call = asking.get(None)
    if call is not None and call.is_open and call.session.engine is wrapping.engine:
        return call.session
    around = wrapping.guard.enclosing_session()
    running = {held.call.session for held in wrapping.running}
    if len(running) == 1:
        (session,) = running
        if around is None or session.is_inside(around):
            return session
    return around or wrapping.here().session


async def _guarded(
    guard: Guard,
    session: Session,
    request: SamplingRequest,
    answer: Callable[[], Awaitable[Any]],
) -> Any:
    call = GuardedCall(
        session,
        ModelCall(
            model=request.model,
            input_tokens_max=request.input_bytes,
            output_tokens_max=request.output_tokens,
        ),
    )
    try:
        await booking.reserve(call)
    except (SessionStopped, CallRefused) as refusal:
        return _declined(refusal)
    except Exception as error:
        guard.engine.contain(error, "guarding a sampling request of MCP")
        return await answer()
    before = _offer.set(_Offer(engine=guard.engine))
    try:
        result = await answer()
    except BaseException as error:
        status = wire.status_of_error(error)
        outcome = Outcome(status=status, error_type=type(error).__name__)
        await booking.finish(call, outcome)
        raise
    finally:
        _offer.reset(before)
    await booking.finish(call, _outcome(result))
    return result


def _outcome(result: object) -> Outcome:
    if wire.is_error_data(result):
        # Whoever declines has written nothing, but may have asked.
        return Outcome(status=CallStatus.ERROR, output_tokens_max=0)
    return Outcome(model=clean_name(wire.value_of(result, "model")))


def _declined(refusal: GuardrailsError) -> object:
    # Imported late: a sampling request comes from an SDK, so it is there.
    from mcp.types import ErrorData

    return ErrorData(code=wire.REJECTED, message=refusal_text(refusal))
