"""Anomalies: each kind is found where it is, and clean traffic has none."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from guardrails.core.accounts import Account, SessionState, Stop, StopReason
from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind, Severity
from guardrails.core.alerting.anomaly_words import advice, command, reason
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.reporting.rollups import Spend
from guardrails.reports import AnomalyRules, Watched, find_anomalies
from tests.reports.traffic import (
    CENT,
    DAY,
    DAY_MS,
    SPAN,
    USD,
    Kind,
    bursty,
    costs_of,
    days_of,
    growing,
    row,
    sparse,
    steady,
    tiny,
    watched,
)

RULES = AnomalyRules()


def found(of: Watched) -> list[Anomaly]:
    return list(find_anomalies(of, RULES).found)


def the(of: Watched) -> Anomaly:
    (one,) = found(of)
    return one


def sessions(count: int, cost: int, **names: str) -> list[Spend]:
    """Sessions that cost about the same."""
    return [
        row(cost + n * cost // 100, session=f"old-{n}", model="gpt-4o", **names)
        for n in range(count)
    ]


USUAL_DAYS = [
    spend for day in range(DAY - 14, DAY) for spend in days_of("acme", {day: 2 * USD})
]


# --- customers ----------------------------------------------------------------


def test_a_day_of_many_usual_days_is_a_spike() -> None:
    """Also while it is not over."""
    costs = {day: 14 * USD + (day % 3) * CENT for day in range(DAY - 14, DAY)}
    anomaly = the(watched(days=days_of("acme", costs | {DAY: 58 * USD})))

    assert (anomaly.kind, anomaly.dimension, anomaly.name) == (
        AnomalyKind.CUSTOMER_SPIKE,
        "customer_id",
        "acme",
    )
    assert anomaly.since_ms == anomaly.began_ms == DAY * DAY_MS
    assert (anomaly.expected, anomaly.n) == (14 * USD + CENT, 10)
    assert anomaly.excess_nano_usd == 44 * USD - CENT
    assert anomaly.severity is Severity.MEDIUM
    assert reason(anomaly) == (
        "customer acme cost $58.00 on Nov 28, 4.1 times the usual $14.01 (median of "
        "10 days)."
    )
    assert command(anomaly) == (
        "guardrails costs --by agent,tool,model --where customer=acme"
    )


def test_a_weekend_is_compared_with_weekends() -> None:
    """Five times a quiet Saturday is a spike, though less than a weekday."""
    saturday = DAY + 1
    costs = {
        day: (2 if (day + 3) % 7 >= 5 else 20) * USD
        for day in range(saturday - 14, saturday)
    }
    span = replace(SPAN, until_ms=SPAN.until_ms + DAY_MS)
    days = list(days_of("acme", costs | {saturday: 10 * USD}))

    assert the(replace(watched(days=days), span=span)).expected == 2 * USD


@pytest.mark.parametrize(
    ("usual", "today"),
    [(14 * USD, 40 * USD), (14 * USD, 3 * USD), (20 * CENT, 119 * CENT)],
    ids=["less than three times", "less", "less than a dollar more"],
)
def test_no_other_day_is(usual: int, today: int) -> None:
    costs = dict.fromkeys(range(DAY - 14, DAY), usual)
    assert not found(watched(days=days_of("acme", costs | {DAY: today})))


def test_days_that_differ_a_lot_may() -> None:
    """More than three times, and yet within two scales."""
    costs = {day: [1, 4, 16][day % 3] * USD for day in range(DAY - 14, DAY)}
    assert not found(watched(days=days_of("acme", costs | {DAY: 15 * USD})))


def test_few_days_say_nothing_of_what_is_usual() -> None:
    """Four active ones are too few; that is said, if there is money in it."""
    costs = {DAY - 9 + n: USD for n in range(4)} | {DAY: 500 * USD}
    result = find_anomalies(watched(days=days_of("acme", costs)), RULES)
    (one,) = result.insufficient

    assert not result.found
    assert (one.kind, one.name, one.have, one.need) == (
        AnomalyKind.CUSTOMER_SPIKE,
        "acme",
        4,
        5,
    )
    little = watched(days=days_of("acme", costs | {DAY: 9 * CENT}))
    assert not find_anomalies(little, RULES).insufficient


def test_a_spike_that_stays_began_on_its_first_day() -> None:
    """A day of more than twice the usual goes on with it; a calm one ends it."""
    calm = dict.fromkeys(range(DAY - 20, DAY - 3), USD)
    high = {DAY - 3: 9 * USD, DAY - 2: 5 * USD // 2, DAY - 1: 8 * USD, DAY: 9 * USD}
    one = the(watched(days=days_of("acme", calm | high)))
    other = the(watched(days=days_of("acme", calm | high | {DAY - 2: USD})))

    assert one.began_ms == (DAY - 3) * DAY_MS
    assert other.began_ms == (DAY - 1) * DAY_MS


@pytest.mark.parametrize("kind", [steady, growing, sparse, tiny])
def test_clean_customers_hardly_ever_have_a_spike(kind: Kind) -> None:
    """At most once in 100 days of a customer, whose end each is looked at."""
    assert _false_alarms(kind) <= 1.0


def test_bursty_customers_have_some() -> None:
    """A rule that never speaks would pass the test above."""
    assert 1.0 < _false_alarms(bursty) < 12.0


@pytest.mark.parametrize("kind", [steady, growing])
def test_five_times_the_usual_is_found(kind: Kind) -> None:
    """On weekdays and on weekends, of at least 95 in 100."""
    hits = 0
    for seed in range(140):
        day = DAY - seed % 7
        costs = costs_of(kind, seed=seed, days=28)
        usual = [costs[d] for d in (day - 7, day - 14)]
        costs[day] = 5 * sum(usual) // 2
        hits += bool(_spikes_on(day, days_of("acme", costs)))
    assert hits >= 133


def _false_alarms(kind: Kind) -> float:
    """Per 100 days, of 50 customers."""
    customers, days = 50, 90
    alarms = 0
    spends = [
        spend
        for seed in range(customers)
        for spend in days_of(f"c-{seed}", costs_of(kind, seed=seed, days=days + 14))
    ]
    for day in range(DAY - days + 1, DAY + 1):
        alarms += len(_spikes_on(day, spends))
    return alarms * 100 / (customers * days)


def _spikes_on(day: int, spends: Iterable[Spend]) -> list[Anomaly]:
    span = replace(SPAN, until_ms=day * DAY_MS + 12 * 3_600_000)
    return found(Watched(span=span, days=list(spends)))


# --- sessions -----------------------------------------------------------------


def test_a_session_of_many_medians_stands_out_with_its_cause() -> None:
    now = [
        row(2 * USD, session="big", model="gpt-4o", calls=9),
        row(45 * USD, session="big", tool="maps/geocode", calls=8_930),
        row(12 * CENT, session="s-1", model="gpt-4o"),
    ]
    earlier = [*sessions(60, 12 * CENT), row(USD, session="old-0", tool="maps/geocode")]
    anomaly = the(watched(now, earlier=earlier))

    assert (anomaly.kind, anomaly.name) == (AnomalyKind.SESSION_OUTLIER, "big")
    assert (anomaly.about, anomaly.calls, anomaly.n) == ("maps/geocode", 8_930, 60)
    assert anomaly.cost_nano_usd == 47 * USD
    assert command(anomaly) == "guardrails session -- big"
    assert "mostly maps/geocode: 8,930 calls" in reason(anomaly)


def test_sessions_of_another_agent_are_no_measure() -> None:
    """An analyst costs more than a support agent, and rightly so."""
    now = [row(5 * USD, session=f"a-{n}", agent="analyst", model="m") for n in "12"]
    earlier = [*sessions(60, 12 * CENT), *sessions(60, 5 * USD, agent="analyst")]
    assert not found(watched(now, earlier=earlier))


def test_a_wide_distribution_has_no_outlier_within_it() -> None:
    """More than five medians, but not beyond what sessions do."""
    earlier = [*sessions(60, 50 * CENT)]
    earlier += [row(4 * USD, session=f"long-{n}", model="gpt-4o") for n in range(3)]
    assert not found(
        watched([row(5 * USD, session="s", model="gpt-4o")], earlier=earlier)
    )


def test_few_sessions_say_nothing_of_what_is_usual() -> None:
    """49 others are too few."""
    now = [row(50 * USD, session="big", model="gpt-4o")]
    result = find_anomalies(watched(now, earlier=sessions(49, CENT)), RULES)
    (one,) = result.insufficient

    assert not result.found
    assert (one.dimension, one.name, one.have, one.need) == ("agent", "support", 50, 51)
    assert found(watched(now, earlier=sessions(50, CENT)))


# --- the rest -----------------------------------------------------------------


def test_repeated_calls_are_a_loop() -> None:
    """If they are a good part of what the agent spent on that tool."""
    rows = [
        row(USD, tool="maps/geocode", calls=200),
        row(3 * USD, tool="maps/geocode", waste="repeat", calls=600),
    ]
    anomaly = the(watched(rows))

    assert (anomaly.kind, anomaly.name, anomaly.about) == (
        AnomalyKind.LOOP,
        "support",
        "maps/geocode",
    )
    assert (anomaly.measured, anomaly.excess_nano_usd) == (75, 3 * USD)
    assert not found(watched([row(99 * USD, tool="maps/geocode"), *rows[1:]]))


def test_sessions_that_were_stopped_in_a_loop_are_one_too() -> None:
    """With what the loop cost them, whatever else was spent there."""
    who = Attribution(agent="support", session_id="s-1", customer_id="acme")
    finding = LoopFinding(
        kind=LoopKind.CYCLE,
        tool="db/query",
        tools=("maps/geocode", "db/query"),
        arguments_digest="",
        count=40,
        cost_nano_usd=2 * USD,
    )
    state = SessionState(attribution=who, started_at_ms=0, last_active_at_ms=0)
    stop = Stop(reason=StopReason.LOOP_DETECTED, at_ms=0, finding=finding)
    account = Account(key="k", session=state, stop=stop)
    one = the(replace(watched([row(90 * USD, tool="db/query")]), stopped=[account]))

    assert (one.kind, one.about, one.calls) == (AnomalyKind.LOOP, "db/query", 40)
    assert one.excess_nano_usd == 2 * USD


def test_money_that_went_into_retries_is_named_by_customer_first() -> None:
    rows = [
        row(4 * USD, tool="search"),
        row(2 * USD, tool="maps/geocode", waste="error", calls=20),
        row(4 * USD, tool="maps/geocode", waste="retry", calls=40),
    ]
    anomaly = the(watched(rows))

    assert (anomaly.kind, anomaly.dimension, anomaly.name) == (
        AnomalyKind.RETRIES,
        "customer_id",
        "acme",
    )
    assert (anomaly.about, anomaly.measured, anomaly.calls) == ("maps/geocode", 60, 60)
    assert reason(anomaly).startswith(
        "60 % of what customer acme cost went into errors and retries of maps/geocode"
    )


def test_of_nobody_in_particular_retries_are_named_by_agent() -> None:
    rows = [row(4 * USD, tool="maps/geocode", waste="retry", customer=None)]
    assert the(watched(rows)).dimension == "agent"
    few = [row(20 * USD, tool="search"), *rows]
    assert the(watched(few)).dimension == "tool", "all of that tool"


def test_a_tool_that_is_called_far_more_often_is_named() -> None:
    """In sessions as many as make no single outlier."""
    earlier = [row(CENT, session=f"o-{n}", tool="geo", calls=5) for n in range(20)]
    now = [row(USD, session=f"n-{n}", tool="geo", calls=50) for n in range(5)]
    anomaly = the(watched(now, earlier=earlier))

    assert (anomaly.kind, anomaly.name) == (AnomalyKind.TOOL_OVERUSE, "geo")
    assert (anomaly.measured, anomaly.expected) == (50, 5)
    assert anomaly.excess_nano_usd == 4_500_000_000
    assert not found(watched(now[:4], earlier=earlier))
    assert not found(watched(now, earlier=earlier[:19]))


def test_contexts_that_have_grown_are_named() -> None:
    earlier = [row(USD, model="gpt-4o", calls=50, input_tokens=50 * 5_000)]
    now = [row(6 * USD, model="gpt-4o", calls=10, input_tokens=10 * 15_000)]
    anomaly = the(watched(now, earlier=earlier))

    assert (anomaly.kind, anomaly.name) == (AnomalyKind.LARGE_CONTEXTS, "support")
    assert (anomaly.measured, anomaly.expected) == (15_000, 5_000)
    assert anomaly.excess_nano_usd == 4 * USD
    small = [row(6 * USD, model="gpt-4o", calls=10, input_tokens=10 * 7_000)]
    tiny_ = [row(USD, model="gpt-4o", calls=50, input_tokens=50 * 2_000)]
    assert not found(watched(small, earlier=tiny_))


def test_a_dear_model_for_small_work_is_named_with_what_would_be_saved() -> None:
    now = [
        row(
            5 * USD, model="opus", calls=100, input_tokens=90_000, output_tokens=10_000
        ),
        row(
            CENT,
            model="mini",
            agent="x",
            calls=9,
            input_tokens=9_000,
            output_tokens=1_000,
        ),
    ]
    anomaly = the(watched(now))

    assert (anomaly.kind, anomaly.name, anomaly.about, anomaly.instead) == (
        AnomalyKind.EXPENSIVE_MODEL,
        "support",
        "opus",
        "mini",
    )
    assert anomaly.excess_nano_usd == 5 * USD - 10 * CENT
    large = replace(now[0], input_tokens=250_000)
    assert not found(watched([large, now[1]])), "no small work"
    assert not found(watched(now[:1])), "there is no other"
    four_times = replace(now[0], model_nano_usd=USD * 4)
    mini = replace(now[1], model_nano_usd=10 * CENT)
    assert not found(watched([four_times, mini])), "a class above is five times"


def test_what_was_not_called_before_is_named() -> None:
    """If it costs something, and if anything was called before."""
    now = [
        row(2 * USD, tool="maps/geocode"),
        row(2 * USD, model="gpt-4o"),
        row(9 * CENT, tool="cheap"),
    ]
    earlier = [row(CENT, tool="search"), row(CENT, model="gpt-4o")]
    anomaly = the(watched(now, earlier=earlier, days=USUAL_DAYS))

    assert (anomaly.kind, anomaly.dimension, anomaly.name) == (
        AnomalyKind.NEW_NAME,
        "tool",
        "maps/geocode",
    )
    assert not found(watched(now, earlier=earlier, days=USUAL_DAYS[-4:]))


def test_every_kind_has_advice_and_a_sentence_without_a_gap() -> None:
    """Also of what was not attributed."""
    for kind in AnomalyKind:
        one = replace(
            the(watched([row(4 * USD, tool="t", waste="repeat")])), kind=kind, name=None
        )
        assert reason(one).endswith(".")
        assert advice(one).endswith(".")
        assert command(one).startswith("guardrails costs --by ")


def test_a_pattern_in_a_name_is_a_name() -> None:
    one = the(watched([row(4 * USD, tool="t", waste="repeat", agent="bot*")]))
    assert command(one).endswith("--where 'agent=bot[*]'")


def test_nothing_and_a_clock_that_was_set_back_are_no_anomaly() -> None:
    """Days after the span, as of a clock that was wrong, are not looked at."""
    assert not found(watched())
    later = days_of("acme", {DAY + 2: 900 * USD})
    assert not found(watched(days=[*USUAL_DAYS, *later]))
