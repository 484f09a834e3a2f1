"""`guardrails prune` and `forget`: what goes is gone, and all totals are as before."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import pytest
import redis

from guardrails import Guard, TokenUsage
from guardrails.core.alerting.daily import Daily
from guardrails.core.alerting.deliveries import TellAlerts
from guardrails.core.alerting.watch_alerts import alert_of_anomaly, alert_of_day
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind
from guardrails.core.lines import account_key
from guardrails.core.loops import LoopRule, ToolTrace
from guardrails.core.operations import (
    ReadAccount,
    Release,
    Resume,
    StopSession,
    Sweep,
)
from guardrails.core.reporting.rollups import ROLLUP_DIMENSIONS
from guardrails.core.windows import Window
from guardrails.stores import open_store
from guardrails.system.clock import SystemClock
from guardrails.testing import FakeClock
from guardrails.testing.conformance import (
    CENT,
    PLACES,
    TELLING,
    charging,
    reserve,
    settle,
)
from guardrails.testing.conformance import NOW_MS as LONG_AGO_MS
from tests.cli.conftest import Run
from tests.cli.reports import OUTLIER
from tests.servers.configured import ConfiguredServer
from tests.servers.processes import Cluster, Server
from tests.servers.proxy import Fault, Proxy
from tests.stores.running import SESSION
from tests.stores.running import SHARED as SHARED_BUDGET

DAY_MS = 86_400_000
NOW_MS = SystemClock().now_ms()
SPAN = {
    "project_id": "default",
    "since_ms": NOW_MS - 120 * DAY_MS,
    "until_ms": NOW_MS + DAY_MS,
}
ACME = 'acmé "1"/a'
SECRETS = (ACME, "u-acme", "s-acme", "ticket-77")
SHARED = "u-both"
"""A user of both customers."""

NOTHING = {
    "schema_version": 1,
    "project_id": "default",
    "dry_run": False,
    "events": 0,
    "rollups": 0,
    "sessions": 0,
    "sessions_in_use": 0,
    "alerts": 0,
}
CELLS, CELLS_FORGOTTEN = 72, 57
"""Sums of the three oldest days in a file, and there after a customer was forgotten."""


class Place(Protocol):
    """Where a ledger is kept, and all that can be read there by whoever looks."""

    @property
    def url(self) -> str: ...

    def content(self) -> dict[str, bytes]:
        """Returns all that is kept, so that two instants can be compared."""
        ...

    def traces(self) -> bytes:
        """Returns what is still readable of what was deleted, too."""
        ...


class File:
    """A SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def content(self) -> dict[str, bytes]:
        with closing(sqlite3.connect(self.path)) as connection:
            return {"all": "\n".join(connection.iterdump()).encode()}

    def traces(self) -> bytes:
        return self.path.read_bytes()


class Servers:
    """One server, or the masters of a cluster."""

    def __init__(self, url: str, nodes: list[Server]) -> None:
        self.url = url
        self.nodes = nodes

    def content(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for node in self.nodes:
            node.ask("CONFIG", "SET", "rdbcompression", "no")
            with redis.Redis(unix_socket_path=str(node.socket)) as client:
                names = client.keys("*")
                pipeline = client.pipeline(transaction=False)
                for name in names:  # With entries that are only marked as deleted.
                    pipeline.dump(name)
                texts = pipeline.execute()
            found |= {
                name.decode(): text for name, text in zip(names, texts, strict=True)
            }
        return found

    def traces(self) -> bytes:
        return b"\n".join([key.encode() + text for key, text in self.content().items()])


def record(url: str) -> None:
    """Two customers who share a user, and one who is nobody, over three months."""
    clock = FakeClock(now_ms=SystemClock().now_ms() - 100 * DAY_MS)
    guard = Guard({}, store=url, clock=clock)
    for day in range(0, 100, 10):
        for customer, user in (
            (ACME, "u-acme"),
            (ACME, SHARED),
            ("globex", SHARED),
            (None, None),
        ):
            with guard.session(
                "support",
                customer_id=customer,
                user_id=user,
                feature="triage",
                session_id=f"s-{customer or ''}-{user}-{day}".replace(ACME, "acme"),
                tags={"ticket": "ticket-77"} if customer == ACME else {},
            ):
                for number in range(2):
                    with guard.call(model="gpt-4o", provider="openai") as call:
                        call.settle(TokenUsage(input_tokens=1_000 + day + number))
                    with guard.call(tool="geocode", cost_usd="0.01") as call:
                        call.settle()
        clock.advance(seconds=10 * 86_400)
    guard.close()
    with closing(open_store(url)) as store:
        # The log of what people did stays, so the session has no name of anybody.
        for number, customer in enumerate((ACME, "globex")):
            who = Attribution(session_id=f"s-{number}", customer_id=customer)
            key = account_key(who, per=("session_id",), every=Window.SESSION, now_ms=0)
            store.execute(
                StopSession(
                    account=key,
                    attribution=who,
                    now_ms=NOW_MS - 90 * DAY_MS,
                    telling=TELLING,
                )
            )
            store.execute(Resume(account=key, now_ms=NOW_MS - 89 * DAY_MS))


def totals(place: Place) -> dict[str, tuple[int, int]]:
    """What each dimension adds up to: money and calls."""
    with closing(open_store(place.url)) as store:
        found = {by: store.history.spend(by=by, **SPAN) for by in ROLLUP_DIMENSIONS}
    return {
        by: (sum(s.total_nano_usd for s in spends), sum(s.steps for s in spends))
        for by, spends in found.items()
    }


def events(place: Place) -> list[tuple[str, int, int | None]]:
    """Ids, times and costs of events as they were booked."""
    with closing(open_store(place.url)) as store:
        return [
            (event.event_id, event.time_ms, event.charge.cost_nano_usd)
            for event in store.history.timeline(**SPAN)
        ]


def found(secret: str, text: bytes) -> bool:
    """Whether a name is there: as it is, in JSON, or in a key."""
    forms = (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))
    forms = (*forms, json.dumps(secret, ensure_ascii=False)[1:-1])
    return any(form.encode() in text for form in forms)


@pytest.fixture
def config(folder: Path) -> Iterator[Path]:
    file = folder / "guardrails.yaml"
    file.write_text("retention: { events_days: 45, rollups_days: 75 }")
    return file


class Retention:
    """What is the same wherever a ledger is kept."""

    @pytest.fixture
    def empty(self) -> Place:
        raise NotImplementedError

    @pytest.fixture
    def place(self, empty: Place) -> Place:
        record(empty.url)
        return empty

    def test_forgets_a_customer_and_keeps_every_total(
        self, command: Run, place: Place
    ) -> None:
        """No name of the customer is left, and no sum and no event has changed."""
        before, booked, content = totals(place), events(place), place.content()
        words = ("forget", "--customer", ACME, "--store", place.url)
        dry = command(*words, "--dry-run")

        assert dry.code == 0
        assert "80 events to be made anonymous" in dry.out
        assert "40 hourly sums to be moved" in dry.out
        assert "21 sessions to be deleted" in dry.out
        assert "1 alert to be deleted" in dry.out
        assert place.content() == content
        assert all(found(secret, place.traces()) for secret in SECRETS)

        done = command(*words, "--yes")

        assert done.code == 0
        assert dry.out.replace("to be ", "") == done.out
        assert "budgets" in done.err
        assert not [secret for secret in SECRETS if found(secret, place.traces())]
        assert found("globex", place.traces())
        assert found(SHARED, place.traces())  # Of the other customer.
        assert totals(place) == before
        assert events(place) == booked

        content = place.content()
        again = command(*words, "--yes", "--json")
        assert json.loads(again.out) == NOTHING
        assert place.content() == content

    def test_sums_of_single_and_of_all_names_agree_afterwards(
        self, command: Run, place: Place
    ) -> None:
        """A user of two customers keeps what the other one spent on them."""
        command("forget", "--customer", ACME, "--store", place.url, "--yes")
        with closing(open_store(place.url)) as store:
            for by in ("user_id", "customer_id", "session_id"):
                single = store.history.spend(by=by, **SPAN)
                mixed = store.history.spend(by=(by, "project_id"), **SPAN)
                assert {s.name: (s.total_nano_usd, s.steps) for s in single} == {
                    s.name: (s.total_nano_usd, s.steps) for s in mixed
                }
            users = store.history.spend(by="user_id", **SPAN)

        assert {s.name: s.steps for s in users} == {None: 120, SHARED: 40}

    def test_anonymous_events_keep_together_by_session(
        self, command: Run, place: Place
    ) -> None:
        """Each session has another name, and nobody's; of others nothing changes."""
        with closing(open_store(place.url)) as store:
            before = list(store.history.timeline(**SPAN))
        command("forget", "--customer", ACME, "--store", place.url, "--yes")
        with closing(open_store(place.url)) as store:
            after = list(store.history.timeline(**SPAN))

        pairs = list(zip(before, after, strict=True))
        mine = [pair for pair in pairs if pair[0].attribution.customer_id == ACME]
        names = {
            (old.attribution.session_id, new.attribution.session_id)
            for old, new in mine
        }
        assert len(names) == len({new for _, new in names}) == 20
        assert all(
            new
            == replace(
                old,
                attribution=replace(
                    old.attribution,
                    session_id=new.attribution.session_id,
                    customer_id=None,
                    user_id=None,
                    agent_run_id=None,
                    tags=(),
                ),
            )
            for old, new in mine
        )
        assert all(old == new for old, new in pairs if (old, new) not in mine)

    def test_a_session_in_use_stays(self, command: Run, empty: Place) -> None:
        """Its account is its limit, and it may go on."""
        guard = Guard({}, store=empty.url)
        with (
            guard.session("a", customer_id=ACME, session_id="s-now"),
            guard.call(tool="t", cost_usd="0.01") as call,
        ):
            call.settle()
        guard.close()
        done = command("forget", "--customer", ACME, "--store", empty.url, "--yes")
        with closing(open_store(empty.url)) as store:
            accounts = store.history.session_accounts(
                project_id="default", session_ids=["s-now"]
            )

        assert "1 session stay" in done.err
        assert [account.posted_nano_usd for account in accounts] == [10_000_000]

    def test_prunes_what_is_older_than_it_may_be(
        self, command: Run, place: Place, config: Path
    ) -> None:
        """Events by the instant, sums by the hour; what is younger stays."""
        before, booked, content = totals(place), events(place), place.content()
        dry = command("prune", "--store", place.url, "--dry-run", "--json")
        counts = json.loads(dry.out)

        assert totals(place) == before
        assert place.content() == content
        assert counts["dry_run"] is True
        assert counts["events"] == 6 * 16
        assert counts["rollups"] == CELLS

        done = command("prune", "--store", place.url)

        assert done.out == f"Deleted 96 events and {CELLS} hourly sums.\n"
        assert events(place) == booked[-4 * 16 :]
        after = totals(place)
        assert len(set(after.values()) - {after["model"], after["tool"]}) == 1
        assert after["project_id"][1] == 7 * 16
        again = command("prune", "--store", place.url)
        assert again.out == "Deleted 0 events and 0 hourly sums.\n"

    @pytest.mark.parametrize(
        ("kept", "counts"),
        [("events_days: 45", (96, 0)), ("rollups_days: 75", (0, CELLS))],
    )
    def test_prunes_one_kind_alone(
        self,
        command: Run,
        place: Place,
        config: Path,
        kept: str,
        counts: tuple[int, int],
    ) -> None:
        """What has no number of days is kept for ever."""
        config.write_text(f"retention: {{ {kept} }}")
        done = json.loads(command("prune", "--store", place.url, "--json").out)

        assert (done["events"], done["rollups"]) == counts

    def test_prunes_as_much_after_a_customer_was_forgotten(
        self, command: Run, place: Place, config: Path
    ) -> None:
        """What is not attributed is counted too."""
        command("forget", "--customer", ACME, "--store", place.url, "--yes")
        done = json.loads(command("prune", "--store", place.url, "--json").out)

        assert (done["events"], done["rollups"]) == (96, CELLS_FORGOTTEN)

    def test_an_unknown_customer_changes_nothing(
        self, command: Run, place: Place
    ) -> None:
        """Names are compared as they are, whatever they hold."""
        before = place.content()
        for name in ("nobody", "ac%", "acm*", "acme' OR '1'='1"):
            done = command("forget", "--customer", name, "--store", place.url, "--yes")
            assert done.code == 0
            assert "  0 events made anonymous" in done.out
        assert place.content() == before

    def test_an_empty_ledger_has_nothing_to_forget(
        self, command: Run, empty: Place, config: Path
    ) -> None:
        for words in (("forget", "--customer", ACME, "--yes"), ("prune",)):
            done = command(*words, "--store", empty.url, "--json")
            assert done.code == 0
            assert NOTHING.items() >= json.loads(done.out).items()

    def test_forgets_what_a_watch_told_of_the_customer(
        self, command: Run, place: Place
    ) -> None:
        """Also a report of a day that names it beside others, and an odd session."""
        shares = (("globex", 2), (ACME, 1))
        daily = Daily(
            day_ms=0,
            cost_nano_usd=3,
            before_nano_usd=2,
            sessions=1,
            wasted_nano_usd=0,
            anomalies=0,
            customers=shares,
        )
        others = replace(daily, day_ms=DAY_MS, customers=shares[:1])
        session = replace(OUTLIER, customer_id=ACME)
        told = TellAlerts(
            project_id="default",
            alerts=(
                alert_of_day(daily, "default", now_ms=NOW_MS),
                alert_of_day(others, "default", now_ms=NOW_MS),
                alert_of_anomaly(session, "default", now_ms=NOW_MS),
            ),
            places=PLACES,
        )
        with closing(open_store(place.url)) as store:
            store.execute(told)
        done = command("forget", "--customer", ACME, "--store", place.url, "--yes")

        assert "3 alerts deleted" in done.out
        assert not found(ACME, place.traces())
        assert found(others.customers[0][0], place.traces())

    def test_a_session_goes_as_a_whole_and_shared_budgets_keep_what_was_lost(
        self, command: Run, empty: Place
    ) -> None:
        """Its parts too; a call whose owner died counts on, and the books are right."""
        session, shared = charging().lines
        part = replace(session, account=f"{SESSION}/of_tool=t", is_session=False)
        to = replace(charging(), lines=(session, shared, part))
        with closing(open_store(empty.url)) as store:
            for number in range(3):
                store.execute(reserve(f"h{number}", to, kind=CallKind.TOOL))
            trace = ToolTrace(tool="t", arguments_digest="a", result_digest="r")
            done = settle("h0", to, kind=CallKind.TOOL, trace=trace)
            store.execute(replace(done, charging=replace(to, loop=LoopRule())))
            store.execute(Release(hold_id="h1", account=SESSION, now_ms=LONG_AGO_MS))
            store.execute(Sweep(now_ms=LONG_AGO_MS + 3_600_000))
            before = store.execute(ReadAccount(account=SHARED_BUDGET))
            done = command(
                "forget", "--customer", "acme", "--store", empty.url, "--yes"
            )
            after = store.execute(ReadAccount(account=SHARED_BUDGET))

        assert "1 session deleted" in done.out
        assert not found(SESSION.rpartition("/")[2], empty.traces())
        assert before == after
        assert before is not None
        assert (before.posted_nano_usd, before.unconfirmed_nano_usd) == (CENT, CENT)
        assert "1 hold add up" in command("doctor", "--store", empty.url).out

    def test_calls_meanwhile_are_neither_lost_nor_doubled(
        self, command: Run, empty: Place
    ) -> None:
        """Threads book for the customer and for others while it is forgotten."""
        threads, calls = 4, 30
        guard = Guard({}, store=empty.url)

        def work(number: int) -> None:
            with guard.session("a", customer_id=(ACME, "globex")[number % 2]):
                for _ in range(calls):
                    with guard.call(tool="t", cost_usd="0.000000007") as call:
                        call.settle()

        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        words = ("forget", "--customer", ACME, "--store", empty.url, "--yes", "--json")
        forgotten = 0
        while any(worker.is_alive() for worker in workers):
            forgotten += json.loads(command(*words).out)["events"]
        for worker in workers:
            worker.join()
        guard.close()
        forgotten += json.loads(command(*words).out)["events"]

        assert forgotten == threads // 2 * calls
        booked = events(empty)
        assert len(booked) == len(set(booked)) == threads * calls
        assert set(totals(empty).values()) - {(0, 0)} == {
            (7 * threads * calls, threads * calls)
        }
        with closing(open_store(empty.url)) as store:
            for by in ("customer_id", ("customer_id", "project_id")):
                spends = store.history.spend(by=by, **SPAN)
                assert {s.name: s.steps for s in spends} == {None: 60, "globex": 60}


class TestSQLite(Retention):
    """In a file."""

    @pytest.fixture
    def empty(self, tmp_path: Path) -> File:
        return File(tmp_path / "ledger.sqlite3")


@pytest.mark.usefixtures("patient")
class TestServer(Retention):
    """On one server, of each kind that there is."""

    @pytest.fixture
    def empty(self, server: Server) -> Servers:
        return Servers(server.unix_url, [server])


@pytest.mark.usefixtures("patient")
class TestCluster(Retention):
    """On three masters."""

    @pytest.fixture
    def empty(self, cluster: Cluster) -> Servers:
        return Servers(cluster.url, cluster.nodes)


def test_who_may_only_delete_can_do_both(
    command: Run, configured: ConfiguredServer, config: Path
) -> None:
    """The access list has a user for it, which needs to do nothing else."""
    record(configured.url_of("guardrails"))
    url = configured.url_of("guardrails-keeper")
    told = command("forget", "--customer", ACME, "--store", url, "--yes")
    done = command("prune", "--store", url)

    assert "80 events made anonymous" in told.out
    assert "21 sessions deleted" in told.out
    assert done.out == f"Deleted 96 events and {CELLS_FORGOTTEN} hourly sums.\n"


# --- the command line -------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> File:
    file = File(tmp_path / "ledger.sqlite3")
    record(file.url)
    return file


def test_says_that_nothing_is_configured(command: Run, file: File) -> None:
    done = command("prune", "--store", file.url)

    assert done.code == 2
    assert "retention: { events_days: 90" in done.err


def test_asks_before_it_forgets(command: Run, file: File) -> None:
    """And where there is nobody to ask, it does nothing."""
    before = file.content()
    done = command("forget", "--customer", ACME, "--store", file.url)

    assert done.code == 2
    assert "--yes" in done.err
    assert file.content() == before


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 300])
def test_a_name_that_is_none_is_refused(command: Run, file: File, name: str) -> None:
    done = command("forget", "--customer", name, "--store", file.url, "--yes")

    assert done.code == 2
    assert "--customer" in done.err


def test_what_ends_with_its_process_has_nothing_to_delete(
    command: Run, config: Path
) -> None:
    for words in (("forget", "--customer", ACME, "--yes"), ("prune",)):
        done = command(*words, "--store", "memory://")
        assert done.code == 2
        assert "memory://" in done.err


@pytest.mark.parametrize("requests", [3, 8, 14])
def test_what_is_broken_off_is_completed_by_doing_it_again(
    command: Run, server: Server, requests: int
) -> None:
    """The server is gone in the middle; no total is wrong then, nor afterwards."""
    place = Servers(server.unix_url, [server])
    record(place.url)
    before, booked = totals(place), events(place)
    words = ("forget", "--customer", ACME, "--yes", "--store")
    with Proxy(server.port) as proxy:
        proxy.play(lambda at: Fault.CLOSE if at > requests else Fault.PASS)
        done = command(*words, proxy.url)

    assert done.code == 4
    assert totals(place) == before
    assert events(place) == booked

    server.ask("DEL", "gr:{default}:events/turn")  # It ends by itself in a while.
    assert command(*words, place.url).code == 0
    assert not [secret for secret in SECRETS if found(secret, place.traces())]
    assert totals(place) == before
    assert events(place) == booked


def test_agents_may_not_delete(
    command: Run, configured: ConfiguredServer, config: Path
) -> None:
    """Their user has no right to; what is missing is said."""
    url = configured.url_of("guardrails")
    for words in (("forget", "--customer", ACME, "--yes"), ("prune",)):
        done = command(*words, "--store", url)
        assert done.code == 4
        assert "right" in done.err
