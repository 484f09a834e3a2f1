"""`guard.spend` and `guard.sessions`: the rows of the reports, in Python."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from guardrails import BudgetExceeded, ConfigurationError, Guard, TokenUsage
from guardrails.testing import FakeClock
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server

HOUR_S = 3_600


@pytest.fixture(params=["memory", "sqlite", "server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "server":
        with Server(next(iter(BINARIES.values()))) as server:
            yield server.unix_url
    else:
        yield "memory://" if request.param == "memory" else f"{tmp_path}/l.sqlite3"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now_ms=1_764_001_800_000)


@pytest.fixture
def guard(url: str, clock: FakeClock) -> Iterator[Guard]:
    """Two days of calls: acme's grow, globex's end, the last have no customer."""
    config = {"store": url} if "://" in url else {"store": f"sqlite:///{url}"}
    with closing(Guard(config, max_cost_usd="0.10", clock=clock)) as guard:
        for customer, agent, calls, hours in (
            ("acme", "onboarding_bot", 1, 2),
            ("globex", "support", 2, 24),
            ("acme", "onboarding_mail", 3, 1),
            (None, "support", 1, 0),
        ):
            with guard.session(
                agent, customer_id=customer, session_id=f"{agent}-{calls}"
            ):
                for number in range(calls):
                    _call(guard, number)
            clock.advance(seconds=hours * HOUR_S)
        yield guard


def _call(guard: Guard, number: int) -> None:
    with guard.call(tool="find", server="maps", cost_usd="0.02", arguments=number) as c:
        c.settle(result=number)
    with guard.call(
        model="gpt-4o", provider="openai", input_tokens=500, max_output_tokens=9
    ) as call:
        call.settle(TokenUsage(input_tokens=400, output_tokens=0))


def test_says_what_each_customer_spent_on_each_agent(guard: Guard) -> None:
    rows = guard.spend(by=["customer_id", "agent"], since="7d")

    assert [(row.names, row.usd) for row in rows] == [
        (("acme", "onboarding_mail"), Decimal("0.063")),
        (("globex", "support"), Decimal("0.042")),
        ((None, "support"), Decimal("0.021")),
        (("acme", "onboarding_bot"), Decimal("0.021")),
    ]
    first = rows[0]
    assert (first.calls, first.model_calls, first.tokens) == (6, 3, 1_200)
    assert (first.model_usd, first.tool_usd) == (Decimal("0.003"), Decimal("0.06"))
    assert sum(row.share or 0 for row in rows) == pytest.approx(1)
    assert (first.before_usd, first.change, first.since) == (None, None, None)


def test_a_filter_takes_patterns_lists_and_what_has_no_name(guard: Guard) -> None:
    def spent(where: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [row.names for row in guard.spend(by="agent", since="3d", where=where)]

    assert spent({"agent": "onboarding_*"}) == [
        ("onboarding_mail",),
        ("onboarding_bot",),
    ]
    assert spent({"agent": ["*_bot", "support"], "customer_id": "*"}) == [
        ("support",),
        ("onboarding_bot",),
    ]
    assert spent({"customer": None}) == [("support",)]
    assert spent({"tool": "maps/*", "model": "gpt-*"}) == []


def test_compares_with_the_time_before(guard: Guard) -> None:
    """Of the last day: acme had one call before it, globex two and none in it."""
    acme, nobody = guard.spend(by="customer_id", since="24h", compare=True)

    assert (acme.names, acme.usd, acme.before_usd) == (
        ("acme",), Decimal("0.063"), Decimal("0.021"),
    )  # fmt: skip
    assert (acme.change_usd, acme.change) == (Decimal("0.042"), 2.0)
    assert (nobody.before_usd, nobody.change) == (Decimal("0.00"), None)


def test_a_series_has_no_holes(guard: Guard) -> None:
    rows = guard.spend(by="customer_id", since=timedelta(hours=2), every="hour")

    assert [(row.since, row.names, row.usd) for row in rows] == [
        (datetime(2025, 11, 25, 17, tzinfo=UTC), (None,), Decimal("0.00")),
        (datetime(2025, 11, 25, 18, tzinfo=UTC), ("acme",), Decimal("0.063")),
        (datetime(2025, 11, 25, 19, tzinfo=UTC), (None,), Decimal("0.021")),
    ]


def test_the_limit_hides_no_unattributed_cost(guard: Guard) -> None:
    rows = guard.spend(by="customer", since="7d", limit=1)

    assert [row.names for row in rows] == [("acme",), (None,)]


def test_lists_sessions_with_their_limits(guard: Guard, clock: FakeClock) -> None:
    with pytest.raises(BudgetExceeded), guard.session("wild", session_id="s-wild"):
        for number in range(9):
            _call(guard, number)
    guard.raise_limit("onboarding_mail-3", max_cost_usd="0.50")

    rows = {row.session_id: row for row in guard.sessions(since="2d")}
    assert len(rows) == 5
    assert rows["onboarding_mail-3"].limit_usd == Decimal("0.50")
    assert rows["support-2"].limit_usd == Decimal("0.10")
    assert rows["support-2"].status == rows["support-2"].end == "completed"
    assert rows["support-2"].whole_usd == rows["support-2"].usd == Decimal("0.042")

    (stopped,) = guard.sessions(since="2d", status="stopped")
    assert (stopped.session_id, stopped.end) == ("s-wild", "budget_exceeded")
    assert stopped.reason == "max_cost_usd"
    newest = guard.sessions(since="2d", sort="time", limit=2)
    assert [row.session_id for row in newest] == ["s-wild", "support-1"]
    assert guard.sessions(since="2d", where={"customer_id": "globex"})[0].calls == 4


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda g: g.spend(by="color"), "by: 'color' is not a dimension"),
        (lambda g: g.spend(by=[]), "names no dimension"),
        (lambda g: g.spend(by=7), "by: 7 names no dimension"),
        (lambda g: g.spend(by=["agent", 7]), "by: 7 is not a dimension"),
        (lambda g: g.spend(by=["agent"] * 2), "must name each dimension once"),
        (lambda g: g.spend(since="soon"), "since: 'soon' is no time"),
        (lambda g: g.spend(since=7), "since: 7 is no time"),
        (lambda g: g.spend(since=timedelta(0)), "is not between 1 hour and"),
        (lambda g: g.spend(where={"color": "red"}), "where: 'color' is not a dim"),
        (lambda g: g.spend(where={"agent": 7}), "where: agent: 7 is no pattern"),
        (lambda g: g.spend(where={"agent": []}), "where: agent has 0 patterns"),
        (lambda g: g.spend(where="agent"), "where: 'agent' is no mapping"),
        (lambda g: g.spend(limit=-1), "limit: -1 is no number of rows"),
        (lambda g: g.spend(limit=True), "limit: True is no number of rows"),
        (lambda g: g.spend(every="week"), "every: 'week' is not known"),
        (lambda g: g.spend(every="day", compare=True), "steps are not compared"),
        (lambda g: g.sessions(status="gone"), "status: 'gone' is not known"),
        (lambda g: g.sessions(sort="name"), "sort: 'name' is not known"),
        (lambda g: g.audit(limit="all"), "limit: 'all' is no number of rows"),
        (lambda g: g.audit(limit=-1), "limit: -1 is no number of rows"),
    ],
)
def test_a_bad_argument_is_named(read: Callable[[Any], object], said: str) -> None:
    with closing(Guard({}, store="memory://")) as guard:
        with pytest.raises(ConfigurationError, match=said):
            read(guard)


class Unwritable:
    """A value that cannot be written."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "read",
    [
        lambda g, value: g.spend(by=value),
        lambda g, value: g.spend(by=[value]),
        lambda g, value: g.spend(since=value),
        lambda g, value: g.spend(where=value),
        lambda g, value: g.spend(where={"agent": value}),
        lambda g, value: g.spend(limit=value),
        lambda g, value: g.sessions(status=value),
        lambda g, value: g.sessions(sort=value),
        lambda g, value: g.audit(limit=value),
    ],
)
@pytest.mark.parametrize("value", ["x" * 10**6, Unwritable()], ids=["long", "broken"])
def test_a_value_that_cannot_be_shown_is_described(
    read: Callable[[Any, Any], object], value: object
) -> None:
    with closing(Guard({}, store="memory://")) as guard:
        with pytest.raises(ConfigurationError) as error:
            read(guard, value)
    assert len(str(error.value)) < 500


def test_the_audit_is_whole_with_a_limit_of_0() -> None:
    with closing(Guard({}, store="memory://")) as guard:
        guard.stop("a")
        guard.stop("b")
        targets = [entry.target for entry in guard.audit(limit=0)]
    assert [target and target.name for target in targets] == ["b", "a"]


@pytest.mark.parametrize("store", [7, {}, object()])
def test_what_is_no_store_is_named(store: Any) -> None:
    with pytest.raises(ConfigurationError, match="neither a URL nor a store"):
        Guard({}, store=store)


def test_an_empty_store_has_no_rows() -> None:
    with closing(Guard({}, store="memory://")) as guard:
        assert guard.spend(by="agent", compare=True) == []
        assert guard.sessions() == []
        assert all(row.usd == 0 for row in guard.spend(by="agent", every="hour"))
