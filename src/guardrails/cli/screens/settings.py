"""Settings: a configuration as a sheet of values, each with where it came from."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from guardrails.alerts.addresses import MASK, masked
from guardrails.alerts.services import service_name
from guardrails.cli.formats.documents import document
from guardrails.cli.ledgers import shown_url
from guardrails.cli.screens.limits import alert_texts, limit_texts
from guardrails.cli.screens.names import safe
from guardrails.config import Configuration
from guardrails.config.problems import key_path
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.decisions import format_count
from guardrails.core.loops import LoopAction
from guardrails.core.money import usd_digits
from guardrails.core.policy import Budget, OnLimit, ToolRule

__all__ = ["PRECEDENCE", "Row", "Sheet", "sheet_json", "sheet_lines", "sheet_of"]

SCHEMA_VERSION = 1
"""Of the JSON. Keys may be added within a version; none changes its meaning."""

PRECEDENCE = "code > GUARDRAILS_* variables > file > defaults"

DEFAULT = "default"

NAMES_SHOWN_MAX = 20
"""Names with limits of their own that are listed of a budget."""

KEY_WIDTH = 24
VALUE_WIDTH = 30
ORIGIN_WIDTH = 22
GAP = "  "
WIDTH = KEY_WIDTH + VALUE_WIDTH + ORIGIN_WIDTH + 2 * len(GAP)
"""The 80 columns that every terminal has."""

_OPTIONS = {"Guard(store)": "--store", "Guard(project_id)": "--project"}
"""What the command line passes on as if code had given it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting."""

    key: str
    value: str
    origin: str
    """`guardrails.yaml:7`, the name of a variable or option, or `default`. Empty
    for what follows from the row above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Everything that is configured."""

    file: str | None
    """The file that was read."""
    groups: Mapping[str, Sequence[Row]]
    """Rows by heading. The first, with an empty heading, is about the guard."""
    notes: Sequence[str]


def sheet_of(configuration: Configuration, *, path: Path | None) -> Sheet:
    """Lists a configuration.

    Args:
        configuration: What was loaded.
        path: The file of the store, if it is one.
    """
    file = _file(configuration)
    origins = _Origins(configuration.origins, file)
    policy = configuration.policy
    groups: dict[str, list[Row]] = {"": _general(configuration, origins, path)}
    groups["session"] = _session(
        policy.session,
        lambda key: origins.of(key, f"defaults.session.{key}", f"defaults.{key}"),
    )
    for pattern, budget in policy.agents:
        base = key_path("agents", pattern)
        paths = (f"{base}.session", base, "defaults.session", "defaults")
        groups[f"agent {pattern}"] = _session(
            budget,
            lambda key, paths=paths: origins.of(key, *(f"{p}.{key}" for p in paths)),
        )
    for index, budget in enumerate(policy.budgets):
        groups[f"budget {budget.name}"] = _shared(budget, index, origins)
    groups["tools"] = _tools(configuration, origins)
    groups["models"] = _models(configuration, origins)
    groups["loop"] = _loop(configuration, origins)
    groups["alerts"] = _alerts(configuration, origins)
    groups["retention"] = _retention(configuration, origins)
    notes = ["nothing is limited"] if policy.limits_nothing else []
    budgets = (policy.session, *(budget for _, budget in policy.agents))
    if any(budget.on_limit is not OnLimit.RAISE for budget in budgets):
        notes.append(
            "on_limit: only agents of create_agent with GuardMiddleware finish or "
            "pause; all others raise. What finishing reserves is kept everywhere."
        )
    return Sheet(
        file=file,
        groups={heading: rows for heading, rows in groups.items() if rows},
        notes=notes,
    )


def sheet_json(sheet: Sheet) -> str:
    """Writes a sheet as one JSON object; values are texts, money in USD."""
    general, *others = sheet.groups.items()
    content = {
        "schema_version": SCHEMA_VERSION,
        "file": sheet.file,
        "precedence": PRECEDENCE,
        "notes": list(sheet.notes),
        "settings": _cells(general[1]),
        "groups": [
            {"name": heading, "settings": _cells(rows)} for heading, rows in others
        ],
    }
    return document(content)


def sheet_lines(sheet: Sheet) -> Iterator[tuple[str, str]]:
    """Yields the lines of a sheet, with the style of each."""
    file = safe(sheet.file or "none was found")
    for key, text in (("file", file), ("precedence", PRECEDENCE)):
        yield from ((line, "") for line in _wrapped(key, text))
    for note in sheet.notes:
        yield from ((line, "yellow") for line in _wrapped("note", note))
    for heading, rows in sheet.groups.items():
        yield "", ""
        if heading:
            yield safe(heading), "bold"
        for row in rows:
            yield from ((line, "") for line in _row_lines(row, is_below=bool(heading)))


def _wrapped(key: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{key:<{KEY_WIDTH}}{GAP}",
        subsequent_indent=" " * KEY_WIDTH + GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _row_lines(row: Row, *, is_below: bool) -> Iterator[str]:
    """Yields a line, or more if anything is too long for one."""
    key = f"{GAP if is_below else ''}{safe(row.key)}"
    if not row.origin:
        yield from _wrapped(key, safe(row.value))
        return
    if len(key) > KEY_WIDTH:  # A long pattern gets a line of its own.
        yield key
        key = ""
    values = textwrap.wrap(safe(row.value), VALUE_WIDTH, break_on_hyphens=False)
    origins = textwrap.wrap(safe(row.origin), ORIGIN_WIDTH, break_on_hyphens=False)
    cells = zip_longest((key,), values, origins, fillvalue="")
    for first, value, origin in cells:
        line = f"{first:<{KEY_WIDTH}}{GAP}{value:<{VALUE_WIDTH}}{GAP}{origin}"
        yield line.rstrip()


def _cells(rows: Sequence[Row]) -> dict[str, object]:
    return {row.key: {"value": row.value, "from": row.origin} for row in rows}


class _Origins:
    """Where settings came from, by the paths of their keys."""

    def __init__(self, origins: Mapping[str, str], file: str | None) -> None:
        self._origins = origins
        self._file = file

    def of(self, *paths: str) -> str:
        """Returns the origin of the first path that is written anywhere."""
        for path in paths:
            if path in self._origins:
                origin = self._origins[path]
                if self._file and origin.startswith(f"{self._file}:"):
                    # The folder is said once, above all rows.
                    return Path(self._file).name + origin.removeprefix(self._file)
                return _OPTIONS.get(origin, origin)
        return DEFAULT


def _file(configuration: Configuration) -> str | None:
    """Returns the file that was read, which the weakest source names."""
    for source in configuration.sources[:1]:
        if not source.startswith(("GUARDRAILS_", "MCPSPEND_", "Guard(")):
            return source
    return None


def _general(
    configuration: Configuration, origins: _Origins, path: Path | None
) -> list[Row]:
    policy = configuration.policy
    estimate = "strict" if policy.is_estimate_strict else "default"
    wait = f"{policy.wait_ms_max / 1000:g}"
    store = [_row("store", shown_url(configuration.store), origins.of("store"))]
    if path is not None:
        store.append(_row("store_file", str(path), ""))
    return [
        *store,
        _row("project_id", configuration.project_id, origins.of("project_id")),
        _row("mode", policy.mode.value, origins.of("mode")),
        *(
            _row(key, value, origins.of(key, f"defaults.{key}"))
            for key, value in (
                ("on_store_error", policy.on_store_error.value),
                ("on_unpriced", policy.on_unpriced.value),
                ("estimate", estimate),
                ("max_wait_s", wait),
            )
        ),
    ]


def _budget(budget: Budget, origin: Callable[[str], str]) -> list[Row]:
    texts = (*limit_texts(budget.limits), *alert_texts(budget.soft_alerts))
    rows = [_row(key, value, origin(key)) for key, value in texts]
    return rows or [_row("no limit", "", DEFAULT)]


def _session(budget: Budget, origin: Callable[[str], str]) -> list[Row]:
    """Returns the rows of a session's budget: its limits, and how it ends."""
    rows = _budget(budget, origin)
    if budget.on_limit is not OnLimit.RAISE:
        key = "on_limit"
        rows.append(_row(key, budget.on_limit.value, origin(key)))
    limit, work = budget.limits.cost_nano_usd, budget.work_limits.cost_nano_usd
    if limit is not None and work is not None and work != limit:
        key = "closing_reserve_usd"
        rows.append(_row(key, usd_digits(limit - work), origin(key)))
    return rows


def _shared(budget: Budget, index: int, origins: _Origins) -> list[Row]:
    def origin(key: str) -> str:
        return origins.of(f"budgets[{index}].{key}")

    return [
        _row("per", ", ".join(budget.per) or "project", origin("per")),
        _row("every", budget.every.value, origin("every")),
        *_budget(budget, origin),
        _row("action", budget.action.value, origin("action")),
        *_names(budget, origin),
    ]


def _names(budget: Budget, origin: Callable[[str], str]) -> Iterator[Row]:
    """Yields the names of a shared budget that have other limits."""
    for name, known in budget.known[:NAMES_SHOWN_MAX]:
        path = key_path("known", name)
        yield _row(path, _limits_text(known), origin(path))
    if (more := len(budget.known) - NAMES_SHOWN_MAX) > 0:
        yield _row("known", f"and {more:,} more", origin("known"))
    if budget.unknown is not None:
        text = f"{_limits_text(budget.unknown)} together"
        yield _row("unknown", text, origin("unknown"))


def _limits_text(budget: Budget) -> str:
    return ", ".join(f"{key} {value}" for key, value in limit_texts(budget.limits))


def _tools(configuration: Configuration, origins: _Origins) -> list[Row]:
    return [_tool(rule, origins) for rule in configuration.policy.tools]


def _tool(rule: ToolRule, origins: _Origins) -> Row:
    cost, calls = rule.cost_nano_usd, rule.calls_max
    text = "no price" if cost is None else usd_digits(cost)
    if calls is not None:
        text += f", {format_count(calls, 'call')} at most"
    path = key_path("tools", rule.pattern)
    keys = ("cost_per_call_usd", "max_calls")
    return _row(rule.pattern, text, origins.of(*(f"{path}.{key}" for key in keys)))


def _models(configuration: Configuration, origins: _Origins) -> list[Row]:
    rates = [
        _row(
            name,
            f"{price.input_per_1m_usd:f} in, {price.output_per_1m_usd:f} out",
            origins.of(key_path("models", name)),
        )
        for name, price in configuration.model_prices.items()
    ]
    aliases = [
        _row(name, f"as {target}", origins.of(key_path("aliases", name)))
        for name, target in configuration.aliases.items()
    ]
    return rates + aliases


def _loop(configuration: Configuration, origins: _Origins) -> list[Row]:
    rule = configuration.policy.loop
    values = {
        "action": rule.action.value,
        "repeats": str(rule.repeats),
        "cycle_repeats": str(rule.cycle_repeats),
        "error_repeats": str(rule.error_repeats),
        "polling_repeats": str(rule.polling_repeats),
        "within": str(rule.within),
        "refusals": str(rule.refusals) if rule.action is LoopAction.BLOCK else "",
        "ignore_arguments": ", ".join(rule.ignore_arguments),
        "exempt": ", ".join(rule.exempt),
    }
    return [
        _row(key, value, origins.of(f"defaults.loop.{key}"))
        for key, value in values.items()
        if value
    ]


def _retention(configuration: Configuration, origins: _Origins) -> list[Row]:
    retention = configuration.retention
    days = {
        "events_days": retention.events_days,
        "rollups_days": retention.rollups_days,
    }
    return [
        _row(key, f"{value}", origins.of(f"retention.{key}"))
        for key, value in days.items()
        if value is not None
    ]


def _alerts(configuration: Configuration, origins: _Origins) -> list[Row]:
    """Lists where alerts go; what is secret about that is not shown."""
    alerts, found = configuration.alerts, dict[str, str]()
    if alerts.slack is not None:
        found["slack"] = masked(alerts.slack)
    if alerts.webhook is not None:
        secrets = ", ".join(MASK for _ in alerts.webhook.secrets)
        found |= {"webhook.url": masked(alerts.webhook.url), "webhook.secret": secrets}
    if alerts.services:
        found["apprise"] = " ".join(map(service_name, alerts.services))
    if found:
        found["on"] = ", ".join(kind.value for kind in alerts.on) or "nothing"
        links = {key_path("links", link.text): link.template for link in alerts.links}
        found |= links
        found["cooldown_s"] = f"{alerts.cooldown_ms / 1000:g}"
    rules = alerts.anomaly
    if found or rules != AnomalyRules():
        found["anomaly.customer_vs_14d_median"] = f"{rules.customer_times:g}"
        found["anomaly.session_vs_median"] = f"{rules.session_times:g}"
        found["anomaly.min_usd"] = usd_digits(rules.excess_nano_usd_min)
    return [_row(key, text, origins.of(f"alerts.{key}")) for key, text in found.items()]


def _row(key: str, value: str, origin: str) -> Row:
    return Row(key=key, value=value, origin=origin)
