"""Runtime guardrails for agents: budgets that hold, and where the money went.

A name is imported when it is first used: `import guardrails` takes no time, and the
command line and the stdio proxy start with what they need.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrails.core.accounts import StopReason
    from guardrails.core.attribution import Attribution
    from guardrails.core.events import Event
    from guardrails.core.policy import (
        Budget,
        Limits,
        Mode,
        Policy,
        SoftAlerts,
        ToolRule,
    )
    from guardrails.core.usage import Charge, PriceStatus, TokenUsage
    from guardrails.errors import (
        BudgetExceeded,
        CallRefused,
        ConfigurationError,
        GuardrailsError,
        LoopDetected,
        SessionStopped,
        StoreUnavailable,
        UnpricedModelError,
    )
    from guardrails.guard import Guard
    from guardrails.sessions.guarded_call import GuardedCall
    from guardrails.sessions.scope import carried, layer
    from guardrails.sessions.session import Session

__all__ = [
    "Attribution",
    "Budget",
    "BudgetExceeded",
    "CallRefused",
    "Charge",
    "ConfigurationError",
    "Event",
    "Guard",
    "GuardedCall",
    "GuardrailsError",
    "Limits",
    "LoopDetected",
    "Mode",
    "Policy",
    "PriceStatus",
    "Session",
    "SessionStopped",
    "SoftAlerts",
    "StopReason",
    "StoreUnavailable",
    "TokenUsage",
    "ToolRule",
    "UnpricedModelError",
    "carried",
    "layer",
]

_MODULES = {
    "Attribution": "guardrails.core.attribution",
    "Budget": "guardrails.core.policy",
    "BudgetExceeded": "guardrails.errors",
    "CallRefused": "guardrails.errors",
    "Charge": "guardrails.core.usage",
    "ConfigurationError": "guardrails.errors",
    "Event": "guardrails.core.events",
    "Guard": "guardrails.guard",
    "GuardedCall": "guardrails.sessions.guarded_call",
    "GuardrailsError": "guardrails.errors",
    "Limits": "guardrails.core.policy",
    "LoopDetected": "guardrails.errors",
    "Mode": "guardrails.core.policy",
    "Policy": "guardrails.core.policy",
    "PriceStatus": "guardrails.core.usage",
    "Session": "guardrails.sessions.session",
    "SessionStopped": "guardrails.errors",
    "SoftAlerts": "guardrails.core.policy",
    "StopReason": "guardrails.core.accounts",
    "StoreUnavailable": "guardrails.errors",
    "TokenUsage": "guardrails.core.usage",
    "ToolRule": "guardrails.core.policy",
    "UnpricedModelError": "guardrails.errors",
    "carried": "guardrails.sessions.scope",
    "layer": "guardrails.sessions.scope",
}
"""Where each name is defined."""


def __getattr__(name: str) -> object:
    if name in _MODULES:
        from importlib import import_module

        value: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("guardrails-runtime")
        except PackageNotFoundError:  # Frozen, or without its `*.dist-info`.
            return "unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
