"""Runtime guardrails for agents: budgets that hold, and where the money went."""

from guardrails.core.accounts import StopReason
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.policy import Budget, Limits, Mode, Policy, SoftAlerts, ToolRule
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
from guardrails.guarded_call import GuardedCall
from guardrails.scope import carried
from guardrails.session import Session

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
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("guardrails-runtime")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
