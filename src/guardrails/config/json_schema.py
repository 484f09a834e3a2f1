"""JSON schema: the format for editors, which complete keys and mark what is wrong.

An editor that is told of it (`# yaml-language-server: $schema=…`) helps while the file
is written. It is a help and not the judge: what depends on other keys only loading
finds, and `guardrails check` says it.
"""

from collections.abc import Mapping
from enum import StrEnum

from guardrails.alerts.settings import KINDS
from guardrails.config.retention import DAYS_MAX, DAYS_MIN
from guardrails.config.values import TIMES_MAX
from guardrails.core.attribution import DIMENSIONS, NAME_BYTES_MAX
from guardrails.core.loops import LoopAction
from guardrails.core.money import LIMIT_NANO_USD_MAX
from guardrails.core.policy import BudgetAction, Mode, OnLimit, OnStoreError, OnUnpriced
from guardrails.core.windows import Window

__all__ = ["json_schema"]

Schema = Mapping[str, object]

_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
"""A value that comes from the environment is a text until it is read."""


def json_schema() -> dict[str, object]:
    """Returns the schema of `guardrails.yaml`, in JSON Schema 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "guardrails.yaml",
        "description": "What agents may spend, and what happens at the limit.",
        **_object(
            {
                "version": _said("Of this format.", {"enum": [1, "1"]}),
                "store": _text("sqlite, sqlite:///path, memory:// or redis://…"),
                "project_id": _name("Accounts of two projects never meet."),
                "mode": _choice(Mode, "enforce, record only, or nothing."),
                "defaults": _defaults(),
                "agents": _named(
                    "Budgets of single agents, by glob over their names.",
                    _object({"session": _session(), "on_limit": _on_limit()}),
                ),
                "budgets": _said(
                    "Shared budgets, charged together with the session.",
                    {"type": "array", "items": _budget()},
                ),
                "tools": _named("By glob over server/tool.", _tool()),
                "models": _named("Rates that are not known otherwise.", _model()),
                "alerts": _alerts(),
                "retention": _retention(),
                "aliases": _named(
                    "What to look a model up as.", _name("A model with a price.")
                ),
            }
        ),
    }


def _retention() -> Schema:
    def days(description: str) -> Schema:
        bounds = _scalar("integer", minimum=DAYS_MIN, maximum=DAYS_MAX)
        return _said(f"In days. {description}", bounds)

    return _object(
        {
            "events_days": days("guardrails prune deletes older events."),
            "rollups_days": days("guardrails prune deletes older hourly sums."),
        }
    )


def _defaults() -> Schema:
    loop = {
        "repeats": _count("Identical calls with identical results, in a row."),
        "cycle_repeats": _count("Identical rounds of several calls, in a row."),
        "error_repeats": _count("Calls of a tool with the same error, in a row."),
        "polling_repeats": _count("Identical calls whose results change."),
        "within": _count("How many calls are looked back on."),
        "action": _choice(LoopAction, "What a loop leads to."),
        "refusals": _count("How often block refuses before it stops the session."),
        "ignore_arguments": _names("Arguments that differ in calls that are alike."),
        "exempt": _names("Tools that may repeat as often as they like; globs."),
    }
    return _object(
        {
            "session": _session(),
            "on_limit": _on_limit(),
            "on_unpriced": _choice(OnUnpriced, "For models of unknown price."),
            "on_store_error": _on_store_error(),
            "estimate": _said(
                "How much output is held.",
                {"anyOf": [{"enum": ["default", "strict"]}, _VARIABLE]},
            ),
            "max_wait_s": _seconds("How long a call waits for holds of others."),
            "loop": _object(loop),
        },
        "What applies where nothing closer does.",
    )


def _session() -> Schema:
    seconds = _seconds("While the session is active; waiting for a person is free.")
    return _object(
        {
            **_limits(),
            "max_wall_time_s": seconds,
            "closing_reserve_usd": _amount("What finishing keeps for its answer."),
            "on_store_error": _on_store_error(),
        },
        "The budget of one session: one run of an agent, or one thread.",
    )


def _budget() -> Schema:
    return {
        **_object(
            {
                "name": _name("Of the budget, in messages and reports."),
                "per": _list_of(
                    {"enum": list(DIMENSIONS)}, "What an account is kept per."
                ),
                "every": _choice(Window, "When it starts anew; in UTC."),
                "action": _choice(BudgetAction, "Stop, or tell people only."),
                "on_store_error": _on_store_error(),
                **_limits(),
                "known": _named(
                    "Names of the one dimension with other limits.", _object(_limits())
                ),
                "unknown": _object(_limits(), "Limits all other names together."),
            }
        ),
        "required": ["name", "per", "every"],
    }


def _tool() -> Schema:
    return _object(
        {
            "cost_per_call_usd": _amount("The price of one call."),
            "cost_from_meta": _name("The key of _meta in which a result reports it."),
            "timeout_s": _seconds("How long a call of a wrapped session may take."),
            "max_calls": _count("In a session, of all tools that the glob matches."),
        }
    )


def _model() -> Schema:
    return {
        **_object(
            {
                f"{kind}_per_1m_usd": _amount("Per million tokens.")
                for kind in (
                    "input",
                    "output",
                    "cache_read",
                    "cache_write",
                    "cache_write_1h",
                )
            }
        ),
        "required": ["input_per_1m_usd", "output_per_1m_usd"],
    }


def _alerts() -> Schema:
    webhook = {
        "url": _secret("Of a receiver; https://…"),
        "secret": _secret("Signs: whsec_ and base64; several parted by commas."),
        "allow_http": _flag("Without TLS, to a receiver of your own."),
        "allow_private": _flag("At a private or loopback address."),
    }
    anomaly = {
        "customer_vs_14d_median": _times("A customer's day by its median."),
        "session_vs_median": _times("A session by the median of its agent."),
        "min_usd": _amount("What is less above the usual is no anomaly."),
    }
    kinds = {"enum": [kind.value for kind in KINDS]}
    return _object(
        {
            "slack": _secret("https://hooks.slack.com/services/…"),
            "webhook": _object(webhook, "Signed JSON, by Standard Webhooks."),
            "apprise": _secret("Addresses of apprise, parted by spaces: msteams://…"),
            "links": _named("Pages.", _text("https://…/{session_id}")),
            "on": _list_of({"anyOf": [kinds, _VARIABLE]}, "What people hear of."),
            "cooldown_s": _seconds("How long repetitions are held back."),
            "anomaly": _object(anomaly, "From when on spend is unusual."),
        },
        "Where people are told. Soft alerts, stops and loops are logged anyway.",
    )


def _limits() -> dict[str, Schema]:
    fraction = _scalar("number", exclusiveMinimum=0, maximum=1)
    return {
        "max_cost_usd": _amount("Models and tools together."),
        "max_tokens": _count("Input and output together."),
        "max_steps": _count("Model calls and tool calls together."),
        "max_model_calls": _count("Model calls."),
        "max_tool_calls": _count("Tool calls."),
        "soft_alert_usd": _amount("Where people are told."),
        "soft_alert_ratio": {
            "description": "Fractions of every limit at which people are told.",
            "anyOf": [fraction, {"type": "array", "items": fraction}],
        },
    }


def _on_store_error() -> Schema:
    return _choice(OnStoreError, "What holds while the store is away.")


def _on_limit() -> Schema:
    return _choice(OnLimit, "How an agent with GuardMiddleware ends at the limit.")


def _object(properties: Mapping[str, object], description: str = "") -> Schema:
    found: dict[str, object] = {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }
    return _said(description, found) if description else found


def _named(description: str, values: Schema) -> Schema:
    return _said(description, {"type": "object", "additionalProperties": values})


def _said(description: str, schema: Schema) -> Schema:
    return {"description": description, **schema}


def _choice(kind: type[StrEnum], description: str) -> Schema:
    values = [each.value for each in kind]
    return _said(description, {"anyOf": [{"enum": values}, _VARIABLE]})


def _scalar(kind: str, **bounds: object) -> Schema:
    """Returns a number, which may be written as a text or come from a variable."""
    return {"anyOf": [{"type": kind, **bounds}, {"type": "string", "minLength": 1}]}


def _amount(description: str) -> Schema:
    largest = LIMIT_NANO_USD_MAX // 10**9
    usd = _scalar("number", minimum=0, maximum=largest)
    return _said(f"In USD. {description}", usd)


def _count(description: str) -> Schema:
    return _said(description, _scalar("integer", minimum=0))


def _times(description: str) -> Schema:
    return _said(description, _scalar("number", exclusiveMinimum=1, maximum=TIMES_MAX))


def _seconds(description: str) -> Schema:
    return _said(f"In seconds. {description}", _scalar("number", minimum=0))


def _flag(description: str) -> Schema:
    values = {"enum": [True, False, "true", "false"]}
    return _said(description, {"anyOf": [values, _VARIABLE]})


def _secret(description: str) -> Schema:
    """Returns a text that may be empty, as from a variable that is not set."""
    return _said(description, {"type": "string"})


def _text(description: str) -> Schema:
    return _said(description, {"type": "string", "minLength": 1})


def _name(description: str) -> Schema:
    name = {"type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX}
    return _said(description, name)


def _names(description: str) -> Schema:
    return _list_of(_name("A name."), description)


def _list_of(item: Schema, description: str) -> Schema:
    """Returns a list; one item may stand for itself."""
    return _said(description, {"anyOf": [{"type": "array", "items": item}, item]})
