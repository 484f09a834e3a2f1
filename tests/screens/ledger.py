"""The ledger that the screens show: eight days of a small shop, the same each time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from guardrails import Guard, SessionStopped, TokenUsage
from guardrails.core.alerting.deliveries import ClaimAlerts, DeliveryState, NoteAlerts
from guardrails.core.telling import AlertKind, Telling
from guardrails.testing import FakeClock

__all__ = ["NOW_MS", "at", "write_ledger"]

NOW_MS = 1_795_530_600_000
"""Tuesday, November 24, 2026, 14:30 UTC: the present of all screens."""

DAY_S = 86_400
DAYS = 8

CONFIGURATION = """\
version: 1
store: sqlite:///ledger.sqlite3
project_id: shop
defaults:
  session: { max_cost_usd: 1.00, max_steps: 60 }
  on_unpriced: allow
agents:
  analyst-agent: { session: { max_cost_usd: 0.30 } }
budgets:
  - { name: customer-month, per: [customer_id], every: month, max_cost_usd: 25 }
  - { name: feature-day, per: [customer_id, feature], every: day, max_cost_usd: 5,
      action: alert }
tools:
  geocoding-mcp/geocode: { cost_per_call_usd: 0.005 }
  search-mcp/search: { cost_per_call_usd: 0.0025 }
models:
  house-large: { input_per_1m_usd: 2.50, output_per_1m_usd: 10.00 }
  house-small: { input_per_1m_usd: 0.15, output_per_1m_usd: 0.60 }
retention: { events_days: 7, rollups_days: 400 }
"""

STRICTER = CONFIGURATION.replace("max_cost_usd: 1.00", "max_cost_usd: 0.12")

PRICES = """\
models:
  house-large: { input_per_1m_usd: 2.50, output_per_1m_usd: 10.00 }
  house-small: { input_per_1m_usd: 0.20, output_per_1m_usd: 0.60 }
tools:
  geocoding-mcp/geocode: { cost_per_call_usd: 0.005 }
"""

WATCHED = (
    CONFIGURATION.replace("ledger.sqlite3", "watched.sqlite3")
    + """\
alerts:
  webhook: { url: http://127.0.0.1:9/hook, allow_http: true, allow_private: true,
      secret: whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI= }
"""
)
"""Tells a receiver that is not there."""

EDITOR = """\
{
  "mcpServers": {
    "files": { "command": "npx", "args": ["-y", "server-files", "notes"] },
    "remote": { "url": "https://example.org/mcp" }
  }
}
"""
"""The MCP servers of an editor, which `init` guards."""

CUSTOMERS = ("acme", "globex", "شركة النور", "株式会社ひかりソリューションズ", None)
"""One is written from right to left, one in signs that are two columns wide."""

FEATURES = ("triage", "order-search", None)

CHAT = ("chat-1",)


def write_ledger(folder: Path) -> None:
    """Writes the ledger, and the files that commands read.

    Args:
        folder: Where whoever calls it works. Above it is the user's home.
    """
    (folder.parent / ".cursor").mkdir()
    for name, text in {
        "../.cursor/mcp.json": EDITOR,
        "guardrails.yaml": CONFIGURATION,
        "stricter.yaml": STRICTER,
        "watched.yaml": WATCHED,
        "clients.yaml": CONFIGURATION.replace("///", f"///{folder}/"),
        "prices.yaml": PRICES,
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    clock = FakeClock(now_ms=NOW_MS - (DAYS * DAY_S + 3 * 3_600) * 1_000)
    with at(clock):
        shop = _Shop(clock)
        for day in range(DAYS):
            shop.day(day)
        shop.today()
        shop.guard.close()


@contextmanager
def at(clock: FakeClock) -> Iterator[None]:
    """Lets the time of a clock be that of the system."""
    with patch("time.time_ns", lambda: clock.now_ms() * 1_000_000):
        yield


@dataclass
class _Shop:
    """Agents at work."""

    clock: FakeClock
    guard: Guard = field(init=False)
    calls: int = 0

    def __post_init__(self) -> None:
        self.guard = Guard(clock=self.clock)
        self.guard.engine.telling = Telling(kinds=tuple(AlertKind), places=CHAT)

    def day(self, day: int) -> None:
        """Lets a usual day pass, from half past eleven to the same."""
        ends_ms = self.clock.now_ms() + DAY_S * 1_000
        for number in range(10):
            self.clock.advance(seconds=7_000)
            self._support(day * 10 + number)
            if number % 5 == 2:
                self._analyst(day * 10 + number)
            if number % 5 == 4:
                self._onboarding(day * 10 + number)
        self.clock.advance(seconds=(ends_ms - self.clock.now_ms()) / 1_000)

    def today(self) -> None:
        """Lets happen what is not usual, and what still goes on."""
        self._deliver(200, DeliveryState.DELIVERED, "ok")
        self._outlier()
        self._analyst(DAYS * 10 + 1)
        self._deliver(404, DeliveryState.DEAD, "no_service")
        self._loop()
        self.guard.stop(customer_id="globex", by="ann", reason="invoice dispute")
        self.clock.advance(seconds=1_200)
        self.guard.resume(customer_id="globex", by="ann", reason="paid")
        self.guard.stop(
            agent="onboarding-agent",
            by="bob",
            reason="答えが間違っている",
            for_s=14_400,
        )
        self.guard.stop(customer_id="globex", by="ann", reason="has not paid again")
        self.guard.stop("ticket-4099", by="bob", reason="answered by hand")
        self.clock.advance(seconds=(NOW_MS - self.clock.now_ms()) / 1_000 - 120)
        for number in (2, 3, 4):
            # In a context of its own each, so that none is inside another.
            copy_context().run(self._begin, number)
        self.clock.advance(seconds=(NOW_MS - self.clock.now_ms()) / 1_000)

    def _outlier(self) -> None:
        with self.guard.session(
            "support-agent",
            customer_id="acme",
            feature="triage",
            session_id="ticket-4098",
        ):
            self.think("house-large", 3_000, 250)
            self.guard.raise_limit(
                "ticket-4098",
                max_cost_usd="6.00",
                max_steps=500,
                by="ann",
                reason="a large order",
            )
            for turn in range(58):
                self.think("house-large", 28_000 + 100 * turn, 400)
                self.use("geocoding-mcp", "geocode", f"place {turn}")
                self.use("geocoding-mcp", "geocode", f"district {turn}")

    def _loop(self) -> None:
        with (
            suppress(SessionStopped),
            self.guard.session(
                "support-agent",
                customer_id="globex",
                feature="triage",
                session_id="ticket-4101",
            ),
        ):
            for _ in range(5):
                self.think("house-large", 4_000, 100)
                self.use("geocoding-mcp", "geocode", "Atlantis")

    def _begin(self, number: int) -> None:
        """Begins a session that goes on."""
        self.guard.session(
            "support-agent",
            customer_id=CUSTOMERS[number],
            session_id=f"ticket-{4_110 + number}",
        ).__enter__()
        for turn in range(number * 4):
            self.think("house-large", 9_000 + 1_500 * turn, 500)

    def _deliver(self, status: int, state: DeliveryState, text: str) -> None:
        """Notes what came of the alerts that wait."""
        store, now_ms = self.guard.store, self.clock.now_ms()
        claimed = store.execute(
            ClaimAlerts(
                project_id="shop",
                place=CHAT[0],
                owner="screens",
                now_ms=now_ms,
                until_ms=now_ms + 9_000,
                singles_max=5,
            )
        )
        store.execute(
            NoteAlerts(
                project_id="shop",
                place=CHAT[0],
                label="hooks.slack.com/services/***",
                owner="screens",
                alert_ids=tuple(alert.alert_id for alert in claimed.alerts),
                now_ms=now_ms,
                state=state,
                due_ms=now_ms,
                cooldown_ms=0,
                status=status,
                text=text,
            )
        )

    def _support(self, number: int) -> None:
        with self.guard.session(
            "support-agent",
            customer_id=CUSTOMERS[number % 5],
            feature=FEATURES[number % 3],
            session_id=f"ticket-{4_000 + number}",
        ):
            for turn in range(2 + number % 3):
                self.think("house-large", 3_000 + 700 * turn, 250)
                self.use("search-mcp", "search", f"{number}/{turn}")
            if number % 9 == 4:
                self.use("crm-mcp", "update_ticket", f"{number}")

    def _analyst(self, number: int) -> None:
        with (
            suppress(SessionStopped),
            self.guard.session(
                "analyst-agent",
                customer_id=CUSTOMERS[number % 2],
                feature="monthly-report",
                session_id=f"quarterly-margins-of-all-regions-{number:03d}-2026",
            ),
        ):
            for turn in range(10 if number % 4 else 30):
                self.think("house-large", 6_000 + 900 * turn, 400)

    def _onboarding(self, number: int) -> None:
        name = f"welcome-{number}"
        with self.guard.session(
            "router", customer_id=CUSTOMERS[number % 5], session_id=name
        ):
            self.think("house-small", 900, 20)
            with self.guard.session(
                "onboarding-agent", feature="onboarding", session_id=name
            ):
                self.think("house-small", 4_000, 600)
                self.think("lab-preview", 2_000, 300)
                self.use(
                    "geocoding-mcp", "geocode", f"{number}", is_well=number % 2 > 0
                )

    def _id(self) -> str:
        """Returns an id of a call that is the same in each run: others are random."""
        self.calls += 1
        return f"call-{self.calls}"

    def think(self, model: str, tokens_in: int, tokens_out: int) -> None:
        """Calls a model."""
        with self.guard.call(
            model=model, input_tokens=tokens_in, reservation_id=self._id()
        ) as call:
            self.clock.advance(seconds=1.8)
            call.settle(TokenUsage(input_tokens=tokens_in, output_tokens=tokens_out))

    def use(self, server: str, tool: str, about: str, *, is_well: bool = True) -> None:
        """Calls a tool; one that fails raises, as tools do."""
        with (
            suppress(TimeoutError),
            self.guard.call(
                server=server, tool=tool, arguments=about, reservation_id=self._id()
            ) as call,
        ):
            self.clock.advance(seconds=0.3)
            if not is_well:
                raise TimeoutError
            call.settle(result=f"of {about}")
