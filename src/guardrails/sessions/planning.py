"""Planning: makes a call of what `guard.call` was given, or says what is wrong."""

from decimal import Decimal

from guardrails.config.problems import shown
from guardrails.core.attribution import check_name, clean_name
from guardrails.core.calls import ModelCall, ToolCall, tool_name
from guardrails.core.money import nano_usd
from guardrails.core.policy import Mode
from guardrails.core.usage import TOKENS_MAX
from guardrails.errors import ConfigurationError
from guardrails.sessions.session import Session

__all__ = [
    "checked_amount",
    "checked_name",
    "model_call",
    "refuse_given",
    "tool_call",
]


def model_call(
    model: str,
    *,
    provider: str | None,
    input_bytes: int | None,
    input_tokens: int | None,
    max_output_tokens: int | None,
) -> ModelCall:
    """Returns the call of a model.

    Raises:
        ConfigurationError: If a name or a size is wrong.
    """
    bounds = [
        _size(input_tokens, "input_tokens"),
        _size(input_bytes, "input_bytes"),
    ]
    return ModelCall(
        model=checked_name(model, "model"),
        provider=None if provider is None else checked_name(provider, "provider"),
        input_tokens_max=next((bound for bound in bounds if bound is not None), 0),
        output_tokens_max=_size(max_output_tokens, "max_output_tokens"),
    )


def tool_call(
    tool: str,
    *,
    session: Session,
    server: str | None,
    arguments: object,
    cost_usd: Decimal | str | float | None,
    call_id: str | None,
    bytes_in: int | None = None,
) -> ToolCall:
    """Returns the call of a tool, with the digest of its arguments.

    Raises:
        ConfigurationError: If a name or an amount is wrong.
    """
    tool = checked_name(tool, "tool")
    server = None if server is None else checked_name(server, "server")
    cost = None if cost_usd is None else checked_amount(cost_usd, "cost_usd")
    name, digest = tool_name(tool, server), None
    is_off = session.engine.policy.mode is Mode.OFF
    if arguments is not None and not is_off and not session.is_exempt(name):
        digest = session.fingerprint(arguments, label=name, is_result=False)
    return ToolCall(
        tool=tool,
        server=server,
        call_id=clean_name(call_id),  # Written by a model: made safe, not refused.
        arguments_digest=digest,
        cost_nano_usd=cost,
        bytes_in=bytes_in,
    )


def refuse_given(*, kind: str, **arguments: object) -> None:
    """Refuses arguments of `guard.call` that only the other kind of call has.

    Raises:
        ConfigurationError: If one of them is given: it would be ignored.
    """
    for key, value in arguments.items():
        if value is not None:
            raise ConfigurationError(
                f"call: {key}={shown(value)} has no meaning for the call of a {kind}. "
                "Leave it out."
            )


def checked_name(value: object, key: str) -> str:
    """Returns a name that a developer wrote.

    Raises:
        ConfigurationError: If it is none.
    """
    try:
        return check_name(value, key=key)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def checked_amount(value: object, key: str) -> int:
    """Returns an amount that a developer wrote, in nano-USD.

    Raises:
        ConfigurationError: If it is none.
    """
    try:
        return nano_usd(value, name=key)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _size(value: object, key: str) -> int | None:
    if value is None:
        return None
    # Not isinstance: a bool is no size, and NumPy's numbers do not reach a store.
    if type(value) is not int or not 0 <= value <= TOKENS_MAX:
        raise ConfigurationError(
            f"call: {key}={shown(value)} is no size. Pass a whole number of at least 0 "
            f"and at most {TOKENS_MAX:,}."
        )
    return value
