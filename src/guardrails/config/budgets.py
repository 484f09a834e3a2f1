"""Budgets: reads shared budgets, and the limits that every budget can have."""

from dataclasses import replace

from guardrails.config.section import Section
from guardrails.config.settings import BudgetSettings
from guardrails.config.values import (
    amount_nano_usd,
    count,
    member,
    name_text,
    one_of,
    ratio,
)
from guardrails.core.attribution import DIMENSIONS
from guardrails.core.money import usd_digits
from guardrails.core.policy import Budget, BudgetAction, OnStoreError
from guardrails.core.windows import Window

__all__ = [
    "BUDGETS_MAX",
    "SHARED_LIMIT_KEYS",
    "read_budgets",
    "read_limits",
    "read_on_store_error",
]

KNOWN_MAX = 10_000
"""Names with limits of their own in one budget."""

BUDGETS_MAX = 32
"""Every call is charged to all of them in one operation."""

SHARED_LIMIT_KEYS = (
    "max_cost_usd",
    "max_tokens",
    "max_steps",
    "max_model_calls",
    "max_tool_calls",
)


def read_budgets(file: Section) -> tuple[Budget, ...]:
    """Reads the shared budgets."""
    sections = file.sections("budgets")
    if len(sections) > BUDGETS_MAX:
        message = f"{len(sections)} budgets. Write at most {BUDGETS_MAX}."
        file.report(message, "budgets")
        return ()
    budgets: list[Budget] = []
    for section in sections:
        budget = _budget(section)
        if budget is None:
            continue
        for other in budgets:
            _report_twins(section, budget, other)
        budgets.append(budget)
    return tuple(budgets)


def _budget(section: Section) -> Budget | None:
    """Reads a shared budget; `None` where its scope or window is a problem."""
    name = section.read("name", name_text)
    per = section.read_each("per", one_of(*DIMENSIONS))
    every = section.read("every", member(Window))
    action = section.read("action", member(BudgetAction)) or BudgetAction.STOP
    settings = replace(
        read_limits(section), on_store_error=read_on_store_error(section)
    )
    known = _known(section.section("known"), settings)
    unknown = _limited(section.section("unknown")) if section.has("unknown") else None
    section.require("name")
    section.require("per")
    section.require("every")
    section.require(*SHARED_LIMIT_KEYS)
    of_sessions = ("max_wall_time_s", "closing_reserve_usd")
    section.close(elsewhere=dict.fromkeys(of_sessions, "defaults.session"))
    if name is None or per is None or every is None:
        return None
    scope = tuple(sorted(set(per)))
    if every is Window.SESSION and not _is_inside_session(section, scope):
        return None
    if not _names_one_dimension(section, scope):
        return None
    budget = Budget(name=name, per=scope, every=every, action=action)
    return replace(
        settings.budget(budget),
        known=tuple((name, limits.budget(budget)) for name, limits in known),
        unknown=None if unknown is None else unknown.budget(budget),
    )


def _known(
    known: Section, others: BudgetSettings
) -> tuple[tuple[str, BudgetSettings], ...]:
    """Reads the names that have other limits; the rest of them is as for all."""
    names = list(known.names())
    if len(names) > KNOWN_MAX:
        known.report(f"{len(names)} names. Write at most {KNOWN_MAX}.")
        return ()
    return tuple(
        (name, _limited(known.section(key)).over(others)) for key, name in names
    )


def _limited(section: Section) -> BudgetSettings:
    settings = read_limits(section)
    section.require(*SHARED_LIMIT_KEYS)
    section.close(elsewhere=dict.fromkeys(("action", "on_store_error"), "the budget"))
    return settings


def _names_one_dimension(section: Section, scope: tuple[str, ...]) -> bool:
    """Reports names of nothing, or of several things."""
    if len(scope) == 1:
        return True
    for key in ("known", "unknown"):
        if section.has(key):
            section.report(
                "it is about the names of one dimension. Write one in per, as in "
                "per: [customer_id], or remove it.",
                key,
            )
            return False
    return True


def _is_inside_session(section: Section, scope: tuple[str, ...]) -> bool:
    """Reports a scope that shares no session, or is the session itself."""
    if "session_id" not in scope:
        section.report(
            "'session' needs session_id in per. Add it, or write day, month or total.",
            "every",
        )
    elif scope == ("session_id",):
        section.report(
            "a session has one budget already. "
            "Write its limits under defaults.session.",
            "per",
        )
    else:
        return True
    return False


def _report_twins(section: Section, budget: Budget, other: Budget) -> None:
    if budget.name == other.name:
        section.report(
            f"{budget.name!r} is the name of another budget. Choose one of its own.",
            "name",
        )
    if (budget.per, budget.every) == (other.per, other.every):
        # Both would be the same account, and it would be charged twice.
        section.report(
            f"{other.name!r} has the same scope and window. "
            "Write all limits into one of the two.",
            "per",
        )


def read_on_store_error(section: Section) -> OnStoreError | None:
    """Reads what holds while the store is away."""
    return section.read("on_store_error", member(OnStoreError))


def read_limits(section: Section) -> BudgetSettings:
    """Reads the limits and soft alerts that every budget can have."""
    settings = BudgetSettings(
        cost_nano_usd=section.read("max_cost_usd", amount_nano_usd),
        tokens=section.read("max_tokens", count),
        steps=section.read("max_steps", count),
        model_calls=section.read("max_model_calls", count),
        tool_calls=section.read("max_tool_calls", count),
        soft_alert_nano_usd=section.read("soft_alert_usd", amount_nano_usd),
        soft_alert_ratios=section.read_each("soft_alert_ratio", ratio),
    )
    limit, soft = settings.cost_nano_usd, settings.soft_alert_nano_usd
    if limit is not None and soft is not None and soft > limit:
        section.report(
            f"{usd_digits(soft)} is above max_cost_usd, {usd_digits(limit)}, and "
            "would never alert. Lower it.",
            "soft_alert_usd",
        )
    return settings
