"""Settings: what a source has written, and how sources lie over one another.

In these values `None` stands for "not written here", so that a stronger source
replaces a weaker one key by key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal

from guardrails.config.alerts import WrittenAlerts
from guardrails.config.retention import Retention
from guardrails.core.loops import LoopAction, LoopRule
from guardrails.core.policy import (
    Budget,
    Limits,
    Mode,
    OnLimit,
    OnStoreError,
    OnUnpriced,
    SoftAlerts,
    ToolRule,
)
from guardrails.prices import ModelPrice

__all__ = ["BudgetSettings", "FileSettings", "Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """The limits and soft alerts of one budget, as far as they are written."""

    cost_nano_usd: int | None = None
    tokens: int | None = None
    steps: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    wall_time_ms: int | None = None
    soft_alert_nano_usd: int | None = None
    soft_alert_ratios: tuple[Decimal, ...] | None = None
    """Empty when written as an empty list, which takes inherited ones away."""
    on_store_error: OnStoreError | None = None
    on_limit: OnLimit | None = None
    closing_reserve_nano_usd: int | None = None

    def over(self, below: "BudgetSettings") -> "BudgetSettings":
        """Returns these settings, completed by those of a weaker source."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        written = {key: value for key, value in own.items() if value is not None}
        return replace(below, **written)

    def budget(self, budget: Budget) -> Budget:
        """Returns the budget with these limits and soft alerts."""
        return replace(
            budget,
            limits=Limits(
                cost_nano_usd=self.cost_nano_usd,
                tokens=self.tokens,
                steps=self.steps,
                model_calls=self.model_calls,
                tool_calls=self.tool_calls,
                wall_time_ms=self.wall_time_ms,
            ),
            soft_alerts=SoftAlerts(
                cost_nano_usd=self.soft_alert_nano_usd,
                ratios=self.soft_alert_ratios or (),
            ),
            on_store_error=self.on_store_error,
            on_limit=self.on_limit or OnLimit.RAISE,
            closing_reserve_nano_usd=self.closing_reserve_nano_usd,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What code, the environment and a file can all set."""

    store: str | None = field(default=None, repr=False)
    """May contain a password."""
    project_id: str | None = None
    mode: Mode | None = None
    on_unpriced: OnUnpriced | None = None
    on_store_error: OnStoreError | None = None
    session: BudgetSettings = BudgetSettings()

    def over(self, below: "Settings") -> "Settings":
        """Returns these settings, completed by those of a weaker source."""
        return Settings(
            store=self.store or below.store,
            project_id=self.project_id or below.project_id,
            mode=self.mode or below.mode,
            on_unpriced=self.on_unpriced or below.on_unpriced,
            on_store_error=self.on_store_error or below.on_store_error,
            session=self.session.over(below.session),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings(Settings):
    """What only a file, or a dict in its place, can set."""

    agents: tuple[tuple[str, BudgetSettings], ...] = ()
    budgets: tuple[Budget, ...] = ()
    tools: tuple[ToolRule, ...] = ()
    loop: LoopRule = field(default_factory=LoopRule)
    """Its action counts only where `loop_action` is written."""
    loop_action: LoopAction | None = None
    wait_ms_max: int = 0
    is_estimate_strict: bool = False
    model_prices: Mapping[str, ModelPrice]
    aliases: Mapping[str, str]
    alerts: WrittenAlerts = field(default_factory=WrittenAlerts)
    retention: Retention = field(default_factory=Retention)
