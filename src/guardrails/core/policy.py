"""Policy: the limits, thresholds, rules and prices that a guard enforces.

Values only; an instance that exists is valid. `config` builds them from YAML, a dict
or the environment.
"""

import enum
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cached_property

from guardrails.core.attribution import DIMENSIONS
from guardrails.core.calls import ModelCall, ToolCall
from guardrails.core.loops import LoopAction, LoopRule
from guardrails.core.money import LIMIT_NANO_USD_MAX
from guardrails.core.windows import Window

__all__ = [
    "SESSION_BUDGET",
    "Budget",
    "BudgetAction",
    "Limits",
    "Measure",
    "Mode",
    "OnLimit",
    "OnStoreError",
    "OnUnpriced",
    "Policy",
    "SoftAlerts",
    "ToolRule",
]


CLOSING_SHARE = 10
"""Without `closing_reserve_usd`, a closing call may cost this part of the limit."""


class Measure(enum.StrEnum):
    """What a budget limits. The values are the keys of the configuration."""

    COST = "max_cost_usd"
    TOKENS = "max_tokens"
    STEPS = "max_steps"
    MODEL_CALLS = "max_model_calls"
    TOOL_CALLS = "max_tool_calls"
    WALL_TIME = "max_wall_time_s"


class Mode(enum.StrEnum):
    """Whether limits bind."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    """Decide and record everything, block nothing."""
    OFF = "off"
    """Do nothing at all."""


class BudgetAction(enum.StrEnum):
    """What happens at the hard limit of a shared budget."""

    STOP = "stop"
    ALERT = "alert"
    """Only tell people."""


class OnLimit(enum.StrEnum):
    """How an agent ends at the hard limit of its session."""

    RAISE = "raise"
    """By `BudgetExceeded`. What no middleware makes ends so in any case."""
    FINISH = "finish"
    """With an answer: work stops early enough for one closing call of the model."""
    PAUSE = "pause"
    """It waits for a person, who raises the limit or lets it end."""


class OnUnpriced(enum.StrEnum):
    """What to do with a model whose price is not known."""

    REFUSE = "refuse"
    """Refuse the call while a cost limit applies to it; else record it."""
    WORST_CASE = "worst_case"
    """Charge the rate of an expensive model, flagged `estimated`."""
    ALLOW = "allow"
    """Make the call; it adds nothing to the cost and is counted as unpriced."""


class OnStoreError(enum.StrEnum):
    """What to do while the store cannot be reached."""

    CLOSED = "closed"
    """Refuse every call."""
    LOCAL = "local"
    """Go on enforcing in this process, from the last known totals; of a shared
    budget a tenth of the limit may be used so, per process and outage."""
    OPEN = "open"
    """Make every call; nothing limits it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The hard limits of one budget; `None` does not limit.

    Raises:
        ValueError: If a limit is negative or not representable.
    """

    cost_nano_usd: int | None = None
    tokens: int | None = None
    steps: int | None = None
    """Model calls and tool calls together."""
    model_calls: int | None = None
    tool_calls: int | None = None
    wall_time_ms: int | None = None
    """Of a session only: time during which an agent run was active."""

    def __post_init__(self) -> None:
        for measure in Measure:
            limit = self.of(measure)
            if limit is not None and not 0 <= limit <= LIMIT_NANO_USD_MAX:
                raise ValueError(
                    f"{measure.value}: {limit!r} must be at least 0 and at most "
                    f"{LIMIT_NANO_USD_MAX}."
                )

    def of(self, measure: Measure) -> int | None:
        """Returns the limit in the unit of the ledger (nano-USD, counts, ms)."""
        match measure:
            case Measure.COST:
                return self.cost_nano_usd
            case Measure.TOKENS:
                return self.tokens
            case Measure.STEPS:
                return self.steps
            case Measure.MODEL_CALLS:
                return self.model_calls
            case Measure.TOOL_CALLS:
                return self.tool_calls
            case Measure.WALL_TIME:
                return self.wall_time_ms

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return all(self.of(measure) is None for measure in Measure)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftAlerts:
    """Where people are told before the hard limit.

    Raises:
        ValueError: If a ratio is not above 0 and at most 1.
    """

    cost_nano_usd: int | None = None
    """An amount of money."""
    ratios: tuple[Decimal, ...] = ()
    """Fractions of every limit of the budget."""

    def __post_init__(self) -> None:
        for ratio in self.ratios:
            if not (ratio.is_finite() and 0 < ratio <= 1):
                raise ValueError(
                    f"soft_alert_ratio: {ratio} must be above 0 and at most 1. "
                    "For an amount of money use soft_alert_usd."
                )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits for one scope in one window.

    Raises:
        ValueError: If the scope names an unknown dimension, or limits wall
            time outside a session.
    """

    name: str
    per: tuple[str, ...]
    """The scope: dimensions of the attribution, sorted. Empty is the project."""
    every: Window
    limits: Limits = field(default_factory=Limits)
    soft_alerts: SoftAlerts = field(default_factory=SoftAlerts)
    action: BudgetAction = BudgetAction.STOP
    on_store_error: OnStoreError | None = None
    """What holds while the store is away, if not what holds in general."""
    on_limit: OnLimit = OnLimit.RAISE
    """Of a session only."""
    closing_reserve_nano_usd: int | None = None
    """Of a session that finishes: the part of its limit that its work leaves to the
    closing call. A tenth if it is not given, or not below the limit."""
    known: tuple[tuple[str, "Budget"], ...] = field(default=(), hash=False)
    """Names of the scope's one dimension that have other limits."""
    unknown: "Budget | None" = None
    """What limits all other names of that dimension together, and no name."""

    def __post_init__(self) -> None:
        for dimension in self.per:
            if dimension not in DIMENSIONS:
                raise ValueError(
                    f"budget {self.name!r}: per: {dimension!r} is not one of "
                    f"{', '.join(DIMENSIONS)}."
                )
        if self.limits.wall_time_ms is not None and self.every is not Window.SESSION:
            raise ValueError(
                f"budget {self.name!r}: max_wall_time_s limits a session only."
            )
        if (self.known or self.unknown) and len(self.per) != 1:
            raise ValueError(
                f"budget {self.name!r}: known and unknown are about the names of one "
                f"dimension, and it is kept per {', '.join(self.per) or 'project'}."
            )

    def known_as(self, name: str | None) -> "Budget | None":
        """Returns the budget of a name that has limits of its own."""
        return None if name is None else self._known.get(name)

    @cached_property
    def _known(self) -> dict[str, "Budget"]:
        return dict(self.known)

    @cached_property
    def work_limits(self) -> Limits:
        """The limits of all calls but a closing one."""
        limits = self.limits
        if self.on_limit is not OnLimit.FINISH:
            return limits
        cost, reserve = limits.cost_nano_usd, self.closing_reserve_nano_usd
        if cost is not None and (reserve is None or reserve >= cost):
            reserve = cost // CLOSING_SHARE
        return replace(
            limits,
            cost_nano_usd=_less(cost, reserve or 0),
            steps=_less(limits.steps, 1),
            model_calls=_less(limits.model_calls, 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRule:
    """The price of a tool's calls, how many there may be, and how long one may take.

    Raises:
        ValueError: If the longest time is not positive.
    """

    pattern: str
    """A glob over `server/tool`, or over the bare tool."""
    cost_nano_usd: int | None = None
    """Per call; `None` leaves the price unknown."""
    cost_from_meta: str | None = None
    """The key in the `_meta` of an MCP server's result whose value is believed to be
    the cost of the call in USD, a number or a decimal string. `None` believes none."""
    timeout_ms: int | None = None
    """How long a call of an MCP server may take if its caller says nothing."""
    calls_max: int | None = None
    """Per session, of all tools together that the pattern stands for."""

    def __post_init__(self) -> None:
        if self.timeout_ms is not None and self.timeout_ms <= 0:
            raise ValueError(
                f"tool {self.pattern!r}: timeout_ms: {self.timeout_ms} must be above 0."
            )


SESSION_BUDGET = Budget(name="session", per=("session_id",), every=Window.SESSION)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Everything that a guard enforces."""

    mode: Mode = Mode.ENFORCE
    session: Budget = SESSION_BUDGET
    """The budget of a session whose agent has none of its own."""
    agents: tuple[tuple[str, Budget], ...] = ()
    """Session budgets by glob over the agent's name."""
    budgets: tuple[Budget, ...] = ()
    """Shared budgets, charged together with the session, all or nothing."""
    tools: tuple[ToolRule, ...] = ()
    loop: LoopRule = LoopRule(action=LoopAction.WARN)
    on_unpriced: OnUnpriced = OnUnpriced.REFUSE
    on_store_error: OnStoreError = OnStoreError.LOCAL
    wait_ms_max: int = 0
    """How long a call waits while only other open holds stand in its way."""
    is_estimate_strict: bool = False
    """Reserve the model's full output bound, also where it cannot be lowered."""

    def session_budget(self, agent: str | None) -> Budget:
        """Returns the session budget of an agent: the most specific glob wins."""
        return self.agent_budget(agent) or self.session

    def agent_budget(self, agent: str | None) -> Budget | None:
        """Returns the budget that an agent has of its own: the most specific glob wins.

        Where the agent runs inside another one's session, it limits what the agent
        may use of that.
        """
        matching = [
            (_specificity(pattern), budget)
            for pattern, budget in self.agents
            if agent is not None and fnmatchcase(agent, pattern)
        ]
        return max(matching, key=lambda found: found[0])[1] if matching else None

    def tool_rule(self, name: str) -> ToolRule | None:
        """Returns the rule of `server/tool`: the most specific glob wins."""
        matching = [rule for rule in self.tools if _fits(name, rule.pattern)]
        return max(matching, key=lambda rule: _specificity(rule.pattern), default=None)

    def believes_cost(self, call: ModelCall | ToolCall) -> bool:
        """Whether the cost is believed that the result of a call reports."""
        rule = self.tool_rule(call.name) if isinstance(call, ToolCall) else None
        return rule is not None and rule.cost_from_meta is not None

    def names_part(self, name: str, part: str) -> bool:
        """Whether a rule of `server/tool` names a part of it, beside what is a glob."""
        return any(
            part in one.pattern and _fits(name, one.pattern) for one in self.tools
        )

    def tool_limit(self, name: str) -> Budget | None:
        """Returns how often `server/tool` may be called in a session, if it is limited.

        Of the rules that say so the most specific glob wins. The budget's name is that
        glob: the tools that it stands for are counted together.
        """
        limited = [budget for budget in self._tool_limits if _fits(name, budget.name)]
        return max(limited, key=lambda one: _specificity(one.name), default=None)

    @cached_property
    def _tool_limits(self) -> tuple[Budget, ...]:
        """One for each rule that limits calls, made once: every tool call asks."""
        return tuple(
            Budget(
                name=rule.pattern,
                per=("session_id",),
                every=Window.SESSION,
                limits=Limits(tool_calls=rule.calls_max),
                soft_alerts=SoftAlerts(ratios=self.session.soft_alerts.ratios),
            )
            for rule in self.tools
            if rule.calls_max is not None
        )

    @cached_property
    def limits_nothing(self) -> bool:
        """Whether no budget has any limit."""
        budgets = [self.session, *(b for _, b in self.agents)]
        for budget in self.budgets:
            budgets += [budget, *(known for _, known in budget.known)]
            budgets += [] if budget.unknown is None else [budget.unknown]
        is_limited = any(not budget.limits.is_empty for budget in budgets)
        return not (is_limited or self._tool_limits)


def _less(limit: int | None, reserve: int) -> int | None:
    return None if limit is None else max(0, limit - reserve)


def _fits(name: str, pattern: str) -> bool:
    """Whether a glob over `server/tool`, or over the bare tool, matches a tool."""
    bare = name.rpartition("/")[2]
    return fnmatchcase(name, pattern) or fnmatchcase(bare, pattern)


def _specificity(pattern: str) -> tuple[bool, int]:
    """Orders globs: a plain name first, then by the characters it pins down."""
    wild = sum(pattern.count(character) for character in "*?[")
    return (wild == 0, len(pattern) - wild)
