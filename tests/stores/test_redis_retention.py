"""Retention in Redis: what only a server of many processes has to be tested for."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from guardrails.core.alerting.deliveries import ClaimAlerts, DeliveryState, NoteAlerts
from guardrails.core.calls import CallKind
from guardrails.core.operations import ReadAccount, Settled, StopSession, Sweep
from guardrails.errors import StoreUnavailable
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.keeping.rewriting import Keeping
from guardrails.stores.redis.keeping.walks import PAGE, entries_in, keys_in
from guardrails.stores.sqlite import SQLiteStore
from guardrails.testing.conformance import (
    NOW_MS,
    TELLING,
    charging,
    reserve,
    settle,
)
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.servers.waiting import until
from tests.stores.running import SESSION, SHARED

pytestmark = pytest.mark.usefixtures("patient")

PREFIX = keys.project_prefix("default")
EVENTS = keys.events(PREFIX)
EVENTS_MAX = 10_000
DAY_MS = 86_400_000
LATER_MS = NOW_MS + 2 * DAY_MS


@pytest.fixture
def store(server: Server) -> Iterator[RedisStore]:
    with closing(RedisStore(server.unix_url, events_max=EVENTS_MAX)) as store:
        yield store


@pytest.fixture
def keeping(store: RedisStore) -> Keeping:
    return Keeping(store.client, PREFIX)


def forget(store: RedisStore, *, now_ms: int = LATER_MS) -> tuple[int, int, int]:
    """Forgets the customer, and returns how many events, sessions and sessions stay."""
    done = store.keeper.forget(
        project_id="default", customer_id="acme", now_ms=now_ms, is_dry_run=False
    )
    return done.events, done.sessions, done.sessions_in_use


def book(store: RedisStore, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        store.execute(settle(f"e{number}", charging()))


def ids(server: Server) -> list[bytes]:
    return [entry_id for entry_id, _ in server.ask("XRANGE", EVENTS, "-", "+")]


# --- sums -------------------------------------------------------------------


def test_tools_that_are_called_alike_are_counted_as_one_sum(
    store: RedisStore, tmp_path: Path
) -> None:
    """As a file does: a report by tool has one row of them."""
    counts: list[int] = []
    with closing(SQLiteStore(tmp_path / "ledger.sqlite3")) as file:
        for each in (store, file):
            for number, (server, tool) in enumerate((("a", "b/c"), ("a/b", "c"))):
                made = settle(f"e{number}", charging(), kind=CallKind.TOOL)
                event = replace(made.event, server=server, tool=tool)
                each.execute(replace(made, event=event))
            done = each.keeper.prune(
                project_id="default",
                events_before_ms=None,
                rollups_before_ms=LATER_MS,
                is_dry_run=True,
            )
            counts.append(done.rollups)

    assert counts[0] == counts[1]


# --- the stream of events ---------------------------------------------------


def test_events_keep_their_places_in_the_stream(
    server: Server, store: RedisStore
) -> None:
    """Over several pages: whoever reads goes on where it was."""
    book(store, PAGE + 20)
    before = ids(server)
    pages = entries_in(store.client, PREFIX, EVENTS)
    first = next(pages)

    version = int(server.ask("GET", keys.version(PREFIX)))

    assert forget(store)[0] == PAGE + 20
    assert int(server.ask("GET", keys.version(PREFIX))) > version
    assert ids(server) == before
    read = [entry_id for page in (first, *pages) for entry_id, _ in page]
    assert read == before
    assert server.ask("TTL", EVENTS) == -1
    assert not server.ask("KEYS", "*events/*")


def test_events_that_are_booked_during_the_last_page_are_kept(
    server: Server, store: RedisStore, keeping: Keeping
) -> None:
    """The last step takes what came since, up to as many as take no time."""
    book(store, 3)
    with keeping.turn() as turn:

        def changed(text: bytes) -> bytes | None:
            event_id = json.loads(text)[2]
            if event_id == "e2":
                book(store, 5, first=3)
            return text.replace(b"acme", b"nobody") if event_id == "e0" else None

        assert turn.rewrite(changed) == 1
    events = store.history.events(project_id="default", session_id="s", limit=100)

    assert [event.event_id for event in events] == [f"e{n}" for n in range(8)]
    names = [event.attribution.customer_id for event in events]
    assert names == ["nobody", *["acme"] * 7]


def test_more_events_than_that_are_copied_in_another_page(
    server: Server, store: RedisStore, keeping: Keeping
) -> None:
    """The last step never takes long, however fast agents book."""
    book(store, 3)
    with keeping.turn() as turn:

        def changed(text: bytes) -> bytes | None:
            if json.loads(text)[2] == "e2":
                book(store, 300, first=3)
            return text.replace(b"acme", b"nobody")

        assert turn.rewrite(changed) == 303
    events = store.history.events(project_id="default", session_id="s", limit=1_000)

    assert [event.event_id for event in events] == [f"e{n}" for n in range(303)]
    assert {event.attribution.customer_id for event in events} == {"nobody"}


def test_one_process_at_a_time_changes_the_stream(
    server: Server, store: RedisStore, keeping: Keeping
) -> None:
    """Another one waits for its turn."""
    book(store, 3)
    done: list[int] = []
    other = threading.Thread(target=lambda: done.append(forget(store)[0]))
    with keeping.turn() as turn:
        server.ask("CONFIG", "RESETSTAT")
        other.start()
        until(lambda: _asks_for_the_turn(server), "the other to ask for its turn")
        assert turn.rewrite(lambda text: text.replace(b'"m"', b'"n"')) == 3
        assert not done
    other.join()

    assert done == [3]


def _asks_for_the_turn(server: Server) -> bool:
    """Whether somebody has tried in vain, and tried again."""
    stats = server.ask("INFO", "commandstats").get("cmdstat_set", {"calls": 0})
    return stats["calls"] > 1


def test_whoever_lost_the_turn_changes_nothing(
    server: Server, store: RedisStore, keeping: Keeping
) -> None:
    """It slept while another one began: its copy is not taken."""
    book(store, 3)
    before = server.ask("DUMP", EVENTS)
    with keeping.turn() as turn:

        def changed(text: bytes) -> bytes:
            server.ask("SET", keys.turn(PREFIX), "turn_of_another")
            return b"[]"

        with pytest.raises(StoreUnavailable, match="do it again"):
            turn.rewrite(changed)
        with pytest.raises(StoreUnavailable, match="do it again"):
            turn.delete(ids(server))

    assert server.ask("DUMP", EVENTS) == before
    assert server.ask("GET", keys.turn(PREFIX)) == b"turn_of_another"


def test_a_copy_that_was_lost_is_not_gone_on_with(
    server: Server, store: RedisStore, keeping: Keeping
) -> None:
    """A failover can lose a page: names of it would come back with the next."""
    book(store, PAGE + 20)
    before = server.ask("DUMP", EVENTS)
    with keeping.turn() as turn:

        def changed(text: bytes) -> bytes:
            server.ask("DEL", keys.new_events(PREFIX))
            return b"[]"

        with pytest.raises(StoreUnavailable, match="do it again"):
            turn.rewrite(changed)

    assert server.ask("DUMP", EVENTS) == before


def test_the_last_step_may_be_asked_for_twice(
    server: Server, store: RedisStore, keeping: Keeping
) -> None:
    """Its reply can be lost: the stream was put in place all the same."""
    book(store, 3)
    last = ids(server)[-1]
    with keeping.turn():
        owner = server.ask("GET", keys.turn(PREFIX))
        assert keeping.step("copy", owner, "", last) == last
        assert server.ask("TTL", keys.new_events(PREFIX)) > 0
        assert keeping.step("copy", owner, "", last) == last
        assert [keeping.step("swap", owner, last, 9) for _ in range(2)] == [1, 1]

    assert len(ids(server)) == 3


def test_nothing_is_rewritten_where_nothing_is(
    server: Server, store: RedisStore, keeping: Keeping
) -> None:
    with keeping.turn() as turn:
        assert turn.rewrite(lambda text: text) == 0

    assert not server.ask("EXISTS", EVENTS)


# --- alerts -----------------------------------------------------------------


def test_what_became_of_an_alert_goes_with_it(
    server: Server, store: RedisStore
) -> None:
    """One was delivered and keeps others back for a while; one is waiting."""
    place, owner = TELLING.places[0], "process"
    for number in range(2):
        to = charging(session=f"s{number}", telling=TELLING)
        stop = StopSession(
            account=to.accounts[0],
            attribution=to.attribution,
            now_ms=NOW_MS + number,
            telling=TELLING,
        )
        store.execute(stop)
    claimed = store.execute(
        ClaimAlerts(
            project_id="default",
            place=place,
            owner=owner,
            now_ms=NOW_MS + 5,
            until_ms=NOW_MS + 1_000,
            singles_max=1_000,
        )
    )
    noted = NoteAlerts(
        project_id="default",
        place=place,
        owner=owner,
        now_ms=NOW_MS + 6,
        alert_ids=tuple(alert.alert_id for alert in claimed.alerts),
        state=DeliveryState.DELIVERED,
        cooldown_ms=DAY_MS,
        label="it",
        due_ms=0,
    )
    assert store.execute(noted) == 1
    assert server.ask("KEYS", "*outbox/calm/*")
    forget(store)

    assert server.ask("KEYS", "*outbox*") == [f"{keys.outbox(PREFIX)}/places".encode()]


# --- sessions and holds -----------------------------------------------------


def test_a_session_that_became_active_meanwhile_stays(
    store: RedisStore, keeping: Keeping
) -> None:
    """It is looked at again by the script that deletes, so no budget starts anew."""
    book(store, 1)
    key = keys.account_of(SESSION)
    arguments = (key, keys.traces_of(SESSION), 0)

    assert keeping.step("sessions", NOW_MS - 1, *arguments) == 1
    store.execute(reserve("h", charging()))
    assert keeping.step("sessions", LATER_MS, *arguments) == 1
    assert store.execute(ReadAccount(account=SESSION)) is not None
    store.execute(settle("h", charging()))
    assert keeping.step("sessions", LATER_MS, *arguments) == 0
    assert store.execute(ReadAccount(account=SESSION)) is None


def test_a_session_that_holds_money_is_in_use(store: RedisStore) -> None:
    """However long ago its call began."""
    book(store, 1)
    store.execute(reserve("h", charging()))

    dry = store.keeper.forget(
        project_id="default", customer_id="acme", now_ms=LATER_MS, is_dry_run=True
    )
    assert (dry.sessions, dry.sessions_in_use) == (0, 1)
    assert forget(store) == (1, 0, 1)


def test_a_late_settlement_corrects_shared_budgets_exactly(store: RedisStore) -> None:
    """Its session is gone, and what it was charged to else is not charged twice."""
    store.execute(reserve("h", charging()))
    store.execute(Sweep(now_ms=LATER_MS))

    assert forget(store, now_ms=LATER_MS + DAY_MS) == (0, 1, 0)
    late = store.execute(settle("h", charging(), cost=7))
    shared = store.execute(ReadAccount(account=SHARED))

    assert isinstance(late, Settled)
    assert late.is_applied
    assert shared is not None
    assert (shared.posted_nano_usd, shared.unconfirmed_nano_usd) == (7, 0)
    assert shared.steps == 1


# --- looking ----------------------------------------------------------------


def test_a_walk_begins_again_when_another_server_answers() -> None:
    """Only the run of a server that has given a cursor knows what it means."""
    names = [f"session/session_id=s{number}" for number in range(3 * PAGE)]
    with (
        Server(next(iter(BINARIES.values()))) as server,
        closing(RedisStore(server.unix_url)) as store,
    ):
        pairs = [one for name in names for one in (f"{PREFIX}{name}", "")]
        store.client.query(PREFIX, [("MSET", *pairs)])
        pages = keys_in(store.client, PREFIX, "session/*")
        assert len(next(pages)) < len(names)
        server.ask("SAVE")
        server.restart()
        found = {name for page in pages for name in page}

    assert found == set(names)
