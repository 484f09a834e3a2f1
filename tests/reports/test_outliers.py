"""Outliers: which sessions stand out, and what they spent it on."""

from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.rollups import Spend
from guardrails.core.usage import UNPRICED, Charge, PriceStatus
from guardrails.reports import Cause, Outlier, find_outliers, with_cause

CENT = 10_000_000


def sessions(*cents: int) -> list[Spend]:
    return [
        Spend(name=f"s-{n}", tool_nano_usd=amount * CENT)
        for n, amount in enumerate(cents)
    ]


def event(name: str, cents: int | None, *, is_model: bool = False) -> Event:
    charge = Charge(cost_nano_usd=(cents or 0) * CENT, status=PriceStatus.PRICED)
    return Event(
        event_id=name,
        time_ms=0,
        attribution=Attribution(),
        kind=CallKind.MODEL if is_model else CallKind.TOOL,
        model=name if is_model else None,
        server=None if is_model else "maps",
        tool=None if is_model else name,
        status=CallStatus.OK,
        charge=UNPRICED if cents is None else charge,
        reserved_nano_usd=0,
    )


def test_a_session_of_many_medians_stands_out() -> None:
    """Five times the median, and at least a dollar."""
    (outlier,) = find_outliers(sessions(12, 4_700, 12, 11, 13))

    assert outlier.session_id == "s-1"
    assert outlier.median_nano_usd == 12 * CENT
    assert round(outlier.times_median) == 392


def test_sessions_of_a_kind_do_not_stand_out() -> None:
    """However expensive they are."""
    assert not find_outliers(sessions(4_700, 4_800, 4_900, 9_900))


def test_cents_are_not_worth_a_word() -> None:
    """Fifty times the median is still only fifty cents."""
    assert not find_outliers(sessions(1, 1, 1, 50))


def test_two_sessions_have_no_middle() -> None:
    """Nobody knows which of the two is odd; nor where nothing was spent."""
    assert not find_outliers(sessions(1, 900))
    assert not find_outliers(sessions(0, 0, 0, 900))
    assert not find_outliers([])


def test_the_three_most_expensive_are_named() -> None:
    """A longer list would be read by nobody."""
    found = find_outliers(sessions(*[1] * 20, 200, 500, 300, 400))

    assert [outlier.cost_nano_usd // CENT for outlier in found] == [500, 400, 300]


def test_the_cause_is_what_cost_most() -> None:
    """Not what was called most; what has no price adds nothing."""
    outlier = Outlier(session_id="s", cost_nano_usd=9, median_nano_usd=1)
    events = [
        *[event("search", None)] * 9,
        *[event("geocode", 2)] * 3,
        event("gpt-4o", 5, is_model=True),
    ]

    cause = with_cause(outlier, events).cause

    assert cause == Cause(name="maps/geocode", calls=3, cost_nano_usd=6 * CENT)


def test_without_events_there_is_no_cause() -> None:
    """They may be gone while the sums are kept."""
    outlier = Outlier(session_id="s", cost_nano_usd=9, median_nano_usd=1)

    assert with_cause(outlier, []).cause is None
