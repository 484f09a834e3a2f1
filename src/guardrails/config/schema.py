"""Schema: which keys a configuration has, and what each of them means."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from guardrails.config.alerts import read_alerts
from guardrails.config.budgets import (
    SHARED_LIMIT_KEYS,
    read_budgets,
    read_limits,
    read_on_store_error,
)
from guardrails.config.problems import shown
from guardrails.config.retention import read_retention
from guardrails.config.section import Section
from guardrails.config.settings import BudgetSettings, FileSettings, Settings
from guardrails.config.values import (
    amount_nano_usd,
    count,
    member,
    name_text,
    one_of,
    rate_usd,
    seconds_ms,
    text,
)
from guardrails.core.loops import LoopAction, LoopRule
from guardrails.core.money import usd_digits
from guardrails.core.policy import (
    Mode,
    OnLimit,
    OnUnpriced,
    ToolRule,
)
from guardrails.errors import ConfigurationError
from guardrails.prices import ModelPrice

__all__ = ["read_file", "read_quick"]

VERSION = 1
"""Of the format."""

WAIT_MS_MAX = 600_000
"""Ten minutes. A call that waits longer looks hung to whoever started it."""

_SESSION_KEYS = (
    *SHARED_LIMIT_KEYS,
    "max_wall_time_s",
    "closing_reserve_usd",
    "soft_alert_usd",
    "soft_alert_ratio",
)

_DEFAULTS_KEYS = ("on_limit", "on_unpriced", "on_store_error", "loop", "estimate")

_BELONGS_TO: Mapping[str, str] = {
    "session": "defaults",
    **dict.fromkeys(_SESSION_KEYS, "defaults.session"),
    **dict.fromkeys(_DEFAULTS_KEYS, "defaults"),
    "max_wait_s": "defaults",
}
"""Where keys belong that people write at the top."""


def read_quick(section: Section) -> Settings:
    """Reads the quick arguments of `Guard`, or their environment variables."""
    return Settings(
        store=section.read("store", text, is_secret=True),
        project_id=section.read("project_id", name_text),
        mode=section.read("mode", member(Mode)),
        on_unpriced=section.read("on_unpriced", member(OnUnpriced)),
        on_store_error=read_on_store_error(section),
        session=_ending(section, _session(section)),
    )


def read_file(section: Section) -> FileSettings:
    """Reads the whole format."""
    section.read("version", _version)
    defaults = section.section("defaults")
    session = defaults.section("session")
    loop = defaults.section("loop")
    estimate = defaults.read("estimate", one_of("default", "strict"))
    settings = FileSettings(
        store=section.read("store", text, is_secret=True),
        project_id=section.read("project_id", name_text),
        mode=section.read("mode", member(Mode)),
        on_unpriced=defaults.read("on_unpriced", member(OnUnpriced)),
        on_store_error=read_on_store_error(defaults),
        session=_ending(defaults, _own_session(session)),
        agents=_agents(section.section("agents")),
        budgets=read_budgets(section),
        tools=_tools(section.section("tools")),
        loop=_loop(loop),
        loop_action=loop.read("action", member(LoopAction)),
        wait_ms_max=defaults.read("max_wait_s", _wait_ms) or 0,
        is_estimate_strict=estimate == "strict",
        model_prices=(prices := _models(section.section("models"))),
        aliases=_aliases(section.section("aliases"), prices),
        alerts=read_alerts(section.section("alerts")),
        retention=read_retention(section.section("retention")),
    )
    session.close(elsewhere={"on_limit": "defaults"})
    loop.close()
    defaults.close(elsewhere=dict.fromkeys(_SESSION_KEYS, "defaults.session"))
    section.close(elsewhere=_BELONGS_TO)
    return settings


def _version(value: object, /, *, name: str) -> None:
    if isinstance(value, bool | float) or value not in (VERSION, str(VERSION)):
        raise ValueError(
            f"{name}: {shown(value)} is not a version of this format. "
            f"Write version: {VERSION}."
        )


def _wait_ms(value: object, /, *, name: str) -> int:
    wait_ms = seconds_ms(value, name=name)
    if wait_ms > WAIT_MS_MAX:
        raise ValueError(
            f"{name}: {shown(value)} is above {WAIT_MS_MAX // 1000} seconds, the "
            "longest that a call may wait. Write less."
        )
    return wait_ms


def _timeout_ms(value: object, /, *, name: str) -> int:
    timeout_ms = seconds_ms(value, name=name)
    if timeout_ms == 0:
        raise ValueError(
            f"{name}: {shown(value)} would end every call. Write a number of seconds "
            "above 0."
        )
    return timeout_ms


def _session(section: Section) -> BudgetSettings:
    settings = replace(
        read_limits(section),
        wall_time_ms=section.read("max_wall_time_s", seconds_ms),
        closing_reserve_nano_usd=section.read("closing_reserve_usd", amount_nano_usd),
    )
    limit, reserve = settings.cost_nano_usd, settings.closing_reserve_nano_usd
    if limit is not None and reserve is not None and reserve >= limit:
        section.report(
            f"{usd_digits(reserve)} is not below max_cost_usd, {usd_digits(limit)}, "
            "and would leave nothing to work with. Lower it.",
            "closing_reserve_usd",
        )
    return settings


def _ending(section: Section, settings: BudgetSettings) -> BudgetSettings:
    """Reads how a session ends, which is written beside its budget."""
    return replace(settings, on_limit=section.read("on_limit", member(OnLimit)))


def _own_session(section: Section) -> BudgetSettings:
    """Reads a session's budget where it has a section of its own."""
    return replace(_session(section), on_store_error=read_on_store_error(section))


def _loop(section: Section) -> LoopRule:
    counts = {
        key: section.read(key, count)
        for key in (
            "repeats",
            "cycle_repeats",
            "error_repeats",
            "polling_repeats",
            "within",
            "refusals",
        )
    }
    written = {key: value for key, value in counts.items() if value is not None}
    ignore_arguments = section.read_each("ignore_arguments", name_text) or ()
    exempt = section.read_each("exempt", name_text) or ()
    try:
        rule = replace(LoopRule(), **written)
    except ValueError as error:
        key, _, message = str(error).removeprefix("loop.").partition(": ")
        section.report(message, key)
        return LoopRule()
    return replace(rule, ignore_arguments=ignore_arguments, exempt=exempt)


def _agents(agents: Section) -> tuple[tuple[str, BudgetSettings], ...]:
    return tuple(
        (pattern, _agent(agents.section(key))) for key, pattern in agents.names()
    )


def _agent(agent: Section) -> BudgetSettings:
    session = agent.section("session")
    settings = _ending(agent, _own_session(session))
    session.close(elsewhere={"on_limit": "the agent"})
    agent.close(elsewhere=dict.fromkeys(_SESSION_KEYS, "session"))
    return settings


def _tools(tools: Section) -> tuple[ToolRule, ...]:
    return tuple(_tool(pattern, tools.section(key)) for key, pattern in tools.names())


def _tool(pattern: str, tool: Section) -> ToolRule:
    rule = ToolRule(
        pattern=pattern,
        cost_nano_usd=tool.read("cost_per_call_usd", amount_nano_usd),
        cost_from_meta=tool.read("cost_from_meta", name_text),
        timeout_ms=tool.read("timeout_s", _timeout_ms),
        calls_max=tool.read("max_calls", count),
    )
    tool.require("cost_per_call_usd", "cost_from_meta", "timeout_s", "max_calls")
    tool.close(elsewhere={"max_tool_calls": "defaults.session; here it is max_calls"})
    return rule


def _models(models: Section) -> dict[str, ModelPrice]:
    prices = {name: _model(models.section(key)) for key, name in _model_names(models)}
    return {name: price for name, price in prices.items() if price is not None}


def _model_names(section: Section) -> list[tuple[str, str]]:
    """Returns keys and names, and reports what is the same in another case."""
    names = list(section.names())
    first_keys: dict[str, str] = {}
    for key, name in names:
        first = first_keys.setdefault(name.lower(), key)
        if first != key:
            message = f"the same name as {first!r}; case does not matter. Remove one."
            section.report(message, key)
    return names


def _model(model: Section) -> ModelPrice | None:
    input_usd = model.read("input_per_1m_usd", rate_usd)
    output_usd = model.read("output_per_1m_usd", rate_usd)
    cache_read_usd = model.read("cache_read_per_1m_usd", rate_usd)
    cache_write_usd = model.read("cache_write_per_1m_usd", rate_usd)
    cache_write_1h_usd = model.read("cache_write_1h_per_1m_usd", rate_usd)
    model.require("input_per_1m_usd")
    model.require("output_per_1m_usd")
    model.close()
    if input_usd is None or output_usd is None:
        return None
    try:
        return ModelPrice(
            input_per_1m_usd=input_usd,
            output_per_1m_usd=output_usd,
            cache_read_per_1m_usd=cache_read_usd,
            cache_write_per_1m_usd=cache_write_usd,
            cache_write_1h_per_1m_usd=cache_write_1h_usd,
        )
    except ConfigurationError as error:
        key, _, message = str(error).partition(": ")
        model.report(message, key)
        return None


def _aliases(aliases: Section, priced: Iterable[str]) -> dict[str, str]:
    """Reads what to look a model up as. One look-up: an alias of an alias is none."""
    names = _model_names(aliases)
    lower_names = {name.lower() for _, name in names}
    lower_priced = {name.lower() for name in priced}
    targets: dict[str, str] = {}
    for key, name in names:
        target = aliases.read(key, name_text)
        if target is None:
            continue
        targets[name] = target
        if target.lower() in lower_names:
            message = f"{target!r} is an alias too. Name the model that has a price."
            aliases.report(message, key)
        elif name.lower() in lower_priced:
            message = "models has rates for it, and they win. Remove one of the two."
            aliases.report(message, key)
    return targets
