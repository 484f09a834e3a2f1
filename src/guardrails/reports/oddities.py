"""Oddities: money in loops and retries, and what agents call more, larger or dearer."""

from collections.abc import Callable, Iterable, Iterator

from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind, Unit
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.windows import DAY_MS
from guardrails.reports.anomaly_rows import (
    Row,
    Sum,
    Watched,
    an_anomaly,
    percent_of,
    summed,
)

__all__ = [
    "expensive_models",
    "large_contexts",
    "loops",
    "new_names",
    "retries",
    "tool_overuse",
]

REPEAT = "repeat"
RETRIES = ("error", "retry")
"""Kinds of waste; see `Event.waste`."""

NOW_SHARE = 5
"""Of the calls that say what was usual, this part is enough for a mean of now."""

_SCOPES: tuple[tuple[str, Callable[[Row], str | None]], ...] = (
    ("customer_id", lambda row: row.customer_id),
    ("agent", lambda row: row.agent),
    ("tool", lambda row: row.tool),
)


def loops(watched: Watched, rules: AnomalyRules) -> Iterator[Anomaly]:
    """Looks for calls that were made again, and for sessions stopped for that."""
    rows = watched.now
    spent = summed(rows, lambda row: (row.agent, row.called))
    lost = summed(
        (row for row in rows if row.waste == REPEAT),
        lambda row: (row.agent, row.called),
    )
    stopped: dict[tuple[str | None, str], Sum] = {}
    for account in watched.stopped:
        finding = account.stop.finding if account.stop else None
        if finding is None or account.session is None:
            continue
        key = (account.session.attribution.agent, finding.tool)
        known = stopped.setdefault(key, Sum())
        known.cost += finding.cost_nano_usd
        known.calls += finding.count
    for key in dict.fromkeys((*lost, *stopped)):
        found = max(
            (lost.get(key, Sum()), stopped.get(key, Sum())), key=lambda sum_: sum_.cost
        )
        cost = max(spent[key].cost if key in spent else 0, found.cost)
        percent = percent_of(found.cost, cost)
        if key not in stopped and percent < rules.loop_percent_min:
            continue
        agent, about = key
        yield an_anomaly(
            AnomalyKind.LOOP,
            "agent",
            agent,
            watched=watched,
            rules=rules,
            about=about,
            calls=found.calls,
            unit=Unit.PERCENT,
            measured=percent,
            n=found.calls,
            cost=cost,
            excess=found.cost,
        )


def retries(watched: Watched, rules: AnomalyRules) -> Iterator[Anomaly]:
    """Looks for money in errors and retries, by whom it concerns most.

    Of one tool or model it is told by customer, or else by agent, or else of itself.
    """
    told: set[str] = set()
    for dimension, name_of in _SCOPES:
        found = [
            anomaly
            for anomaly in _retries_by(dimension, name_of, watched, rules)
            if anomaly.about not in told
        ]
        told |= {anomaly.about for anomaly in found if anomaly.about}
        yield from found


def _retries_by(
    dimension: str,
    name_of: Callable[[Row], str | None],
    watched: Watched,
    rules: AnomalyRules,
) -> Iterator[Anomaly]:
    rows = watched.now
    spent = summed(rows, name_of)
    lost = summed(
        (row for row in rows if row.waste in RETRIES),
        lambda row: (name_of(row), row.called),
    )
    for (name, about), sums in lost.items():
        percent = percent_of(sums.cost, spent[name].cost)
        is_little = sums.cost <= rules.excess_nano_usd_min
        if name is None or is_little or percent < rules.retry_percent_min:
            continue
        yield an_anomaly(
            AnomalyKind.RETRIES,
            dimension,
            name,
            watched=watched,
            rules=rules,
            about=about,
            calls=sums.calls,
            unit=Unit.PERCENT,
            measured=percent,
            n=sums.calls,
            cost=spent[name].cost,
            excess=sums.cost,
        )


def tool_overuse(watched: Watched, rules: AnomalyRules) -> Iterator[Anomaly]:
    """Compares how often sessions call a tool."""
    before = summed(_in_sessions(watched.before), lambda row: row.tool)
    for tool, now in summed(_in_sessions(watched.now), lambda row: row.tool).items():
        earlier = before.get(tool)
        if earlier is None or len(earlier.sessions) < rules.tool_sessions_min:
            continue
        mean = now.calls / len(now.sessions)
        usual = earlier.calls / len(earlier.sessions)
        is_few = len(now.sessions) < rules.tool_sessions_now_min
        if is_few or mean <= rules.tool_times * usual:
            continue
        yield an_anomaly(
            AnomalyKind.TOOL_OVERUSE,
            "tool",
            tool,
            watched=watched,
            rules=rules,
            unit=Unit.CALLS,
            calls=now.calls,
            measured=round(mean),
            expected=round(usual),
            n=len(earlier.sessions),
            cost=now.cost,
            excess=round(now.cost * (1 - usual / mean)),
        )


def large_contexts(watched: Watched, rules: AnomalyRules) -> Iterator[Anomaly]:
    """Compares how much agents send with each model call.

    The excess is at most what it says: what was answered is part of the cost.
    """
    before = summed(_of_models(watched.before), lambda row: row.agent)
    for agent, now in summed(_of_models(watched.now), lambda row: row.agent).items():
        earlier, calls = before.get(agent), now.model_calls
        if earlier is None or earlier.model_calls < rules.context_calls_min:
            continue
        mean, usual = now.input_tokens / calls, earlier.input_tokens / earlier.calls
        is_few = calls * NOW_SHARE < rules.context_calls_min
        is_small = mean < rules.context_tokens_min
        if is_few or is_small or mean <= rules.context_times * usual:
            continue
        yield an_anomaly(
            AnomalyKind.LARGE_CONTEXTS,
            "agent",
            agent,
            watched=watched,
            rules=rules,
            unit=Unit.TOKENS,
            measured=round(mean),
            expected=round(usual),
            n=earlier.model_calls,
            calls=calls,
            cost=now.cost,
            excess=round(now.cost * (1 - usual / mean)),
        )


def expensive_models(watched: Watched, rules: AnomalyRules) -> Iterator[Anomaly]:
    """Looks for small work of a model that costs a multiple of another one's.

    What a token costs is what it did cost here, input and output together.
    """
    now = list(_of_models(watched.now))
    every = summed((*now, *_of_models(watched.before)), lambda row: row.model)
    prices = {
        model: sums.cost / tokens
        for model, sums in every.items()
        for tokens in [sums.input_tokens + sums.output_tokens]
        if model is not None and sums.cost and tokens and not sums.unpriced_calls
    }
    cheapest = min(prices, key=lambda model: (prices[model], model), default=None)
    if cheapest is None:
        return
    for (agent, model), sums in summed(now, lambda r: (r.agent, r.model)).items():
        calls = sums.model_calls
        is_small = (
            sums.input_tokens <= rules.small_input_tokens * calls
            and sums.output_tokens <= rules.small_output_tokens * calls
        )
        if model not in prices or calls < rules.small_calls_min or not is_small:
            continue
        share = prices[cheapest] / prices[model]
        if share * rules.dear_times > 1:
            continue
        yield an_anomaly(
            AnomalyKind.EXPENSIVE_MODEL,
            "agent",
            agent,
            watched=watched,
            rules=rules,
            about=model,
            instead=cheapest,
            calls=calls,
            measured=sums.cost,
            expected=round(sums.cost * share),
            n=calls,
            cost=sums.cost,
            excess=round(sums.cost * (1 - share)),
        )


def new_names(watched: Watched, rules: AnomalyRules) -> Iterator[Anomaly]:
    """Looks for tools and models that were not called in the two weeks before."""
    first = watched.span.since_ms // DAY_MS
    active = {(day.since_ms or 0) // DAY_MS for day in watched.days if day.steps}
    if sum(day < first for day in active) < rules.active_days_min:
        return  # Everything is new there.
    known = {_kind_and_name(row) for row in watched.before}
    for (kind, name), sums in summed(watched.now, _kind_and_name).items():
        if (kind, name) not in known:
            yield an_anomaly(
                AnomalyKind.NEW_NAME,
                kind,
                name,
                watched=watched,
                rules=rules,
                calls=sums.calls,
                measured=sums.cost,
                n=sums.calls,
                cost=sums.cost,
                excess=sums.cost,
            )


def _kind_and_name(row: Row) -> tuple[str, str]:
    return "model" if row.tool is None else "tool", row.called


def _in_sessions(rows: Iterable[Row]) -> Iterator[Row]:
    return (row for row in rows if row.tool is not None and row.session_id is not None)


def _of_models(rows: Iterable[Row]) -> Iterator[Row]:
    return (row for row in rows if row.spend.model_calls)
