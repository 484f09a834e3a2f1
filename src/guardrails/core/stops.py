"""Stops by people: what they order, what is in force, and the audit. Pure.

Theory of operation
-------------------
A person stops one session, an agent, a customer or everything in a project, for
good or until an instant. Such a **stop order** is looked at by every reservation
before any limit. It ends no session: lifted, or past its time, calls go on. Only a
session that is stopped for good keeps that in its own account, like any other
stop; its order is then only a line in the list of stops.

Of two orders about the same the one that lasts longer counts, so a repeated order
changes nothing and no order shortens another. What did change something leaves an
entry in the project's audit, as does a raised limit. Both lists are bounded.

Orders are kept by a key like those of accounts: the project, then what is stopped.
"""

import enum
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import assert_never
from urllib.parse import quote, unquote

from guardrails.core.attribution import Attribution
from guardrails.core.policy import Limits
from guardrails.core.windows import DAY_MS

__all__ = [
    "AUDIT_MAX",
    "LISTED_MS",
    "SESSIONS_LISTED_MAX",
    "STOPS_MAX",
    "AuditAction",
    "AuditEntry",
    "StopKind",
    "StopOrder",
    "StopTarget",
    "Stops",
    "project_in",
    "project_of",
    "stop_keys",
]

STOPS_MAX = 2_000
"""Orders in force per project: more than people oversee, and quickly read."""

SESSIONS_LISTED_MAX = 1_000
"""Orders beyond which a session that is stopped for good is not listed: it is
stopped all the same, and must not keep an agent or a customer from being stopped."""

LISTED_MS = 30 * DAY_MS
"""How long a session that was stopped for good is listed: as long as a session that
nobody takes up again is kept."""

AUDIT_MAX = 1_000
"""Entries kept per project, the newest: years of what people do by hand."""


class StopKind(enum.StrEnum):
    """What a person can stop. The values are the arguments of `Guard.stop`."""

    SESSION = "session_id"
    AGENT = "agent"
    CUSTOMER = "customer_id"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTarget:
    """What a person stops."""

    kind: StopKind
    name: str | None = None
    """The session, agent or customer; `None` for everything."""

    @classmethod
    def of_key(cls, key: str) -> "StopTarget | None":
        """Returns what an order's key is about; `None` if it is no such key."""
        kind, _, name = key.rpartition("/")[2].partition("=")
        if kind not in StopKind.__members__.values():
            return None
        return cls(kind=StopKind(kind), name=unquote(name) or None)

    def key(self, project_id: str) -> str:
        """Returns the key of an order about this; of a session that of its account."""
        project = project_in(project_id)
        if self.name is None:
            return f"{project}/{self.kind.value}"
        window = "session/" if self.kind is StopKind.SESSION else ""
        return f"{project}/{window}{self.kind.value}={quote(self.name, safe='')}"

    @property
    def label(self) -> str:
        """Names it for people: `customer acme`."""
        if self.kind is StopKind.EVERYTHING:
            return "everything"
        return f"{self.kind.value.removesuffix('_id')} {self.name}"

    @property
    def argument(self) -> str:
        """Writes it as an argument of `Guard.resume`."""
        match self.kind:
            case StopKind.SESSION:
                return repr(self.name)
            case StopKind.AGENT | StopKind.CUSTOMER:
                return f"{self.kind.value}={self.name!r}"
            case StopKind.EVERYTHING:
                return "everything=True"
            case _:
                assert_never(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """A person's order that something stops."""

    target: StopTarget
    at_ms: int
    until_ms: int | None = None
    """The first instant at which it is over; `None` lasts until it is lifted."""
    by: str | None = None
    note: str | None = None

    @property
    def stops_for_good(self) -> bool:
        """Whether the account of its session says the same, and decides."""
        return self.target.kind is StopKind.SESSION and self.until_ms is None

    def is_over(self, now_ms: int) -> bool:
        """Whether its time has passed, or that of its place in the list."""
        if self.stops_for_good:
            return now_ms >= self.at_ms + LISTED_MS
        return self.until_ms is not None and now_ms >= self.until_ms

    def outlasts(self, other: "StopOrder") -> bool:
        """Whether it ends later."""
        if self.until_ms is None or other.until_ms is None:
            return other.until_ms is not None
        return self.until_ms > other.until_ms


class AuditAction(enum.StrEnum):
    """What a person did."""

    STOP = "stop"
    RESUME = "resume"
    RAISE = "raise"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Something that a person did, and that had an effect."""

    at_ms: int
    action: AuditAction
    key: str
    """Of the order, or of the account whose limits were raised."""
    by: str | None = None
    note: str | None = None
    until_ms: int | None = None
    """Of a stop with an end."""
    policy: Limits | None = None
    """Of a raise: the limits of the policy, as far as whoever raised knew them."""
    raised_before: Limits | None = None
    raised_after: Limits | None = None

    @property
    def target(self) -> StopTarget | None:
        """What it is about; `None` if it is no session, agent or customer."""
        return StopTarget.of_key(self.key.partition("/of_")[0])

    @property
    def part(self) -> str | None:
        """What of a session, where it is about a part of one: `tool=geo/*`."""
        return unquote(self.key.partition("/of_")[2]) or None

    @property
    def subject(self) -> str:
        """Names for people what it is about."""
        target, part = self.target, self.part
        whole = self.key.partition("/")[2] if target is None else target.label
        return whole if part is None else f"{whole}, {part.replace('=', ' ', 1)}"


class Stops:
    """The orders in force and the audit: rows of a ledger. Not thread safe.

    Args:
        orders: By key.
        audit: By project, oldest first.
    """

    def __init__(
        self,
        orders: MutableMapping[str, StopOrder] | None = None,
        audit: MutableMapping[str, list[AuditEntry]] | None = None,
    ) -> None:
        self.orders: MutableMapping[str, StopOrder] = {} if orders is None else orders
        self._audit: MutableMapping[str, list[AuditEntry]] = (
            {} if audit is None else audit
        )
        # What the last operation added or changed, removed and noted.
        self.changed: list[str] = []
        self.removed: list[str] = []
        self.noted: list[AuditEntry] = []

    def begin(self) -> None:
        """Forgets what the last operation did."""
        if self.changed or self.removed or self.noted:
            self.changed, self.removed, self.noted = [], [], []

    def hitting(self, keys: Iterable[str], now_ms: int) -> StopOrder | None:
        """Returns the first order in force that keeps a call from being made."""
        for key in keys:
            order = self.orders.get(key)
            if order and not order.stops_for_good and not order.is_over(now_ms):
                return order
        return None

    def add(self, key: str, order: StopOrder) -> StopOrder | None:
        """Puts an order in force, unless one that lasts as long is.

        Returns:
            The order in force; `None` if there is no room for it.
        """
        self._tidy(key, order.at_ms)
        known = self.orders.get(key)
        if known is not None and not order.outlasts(known):
            return known
        project = f"{project_of(key)}/"
        count = sum(other.startswith(project) for other in self.orders)
        room = SESSIONS_LISTED_MAX if order.stops_for_good else STOPS_MAX
        if known is None and count >= room:
            return None
        self.orders[key] = order
        self.changed.append(key)
        return order

    def lift(self, key: str, now_ms: int) -> StopOrder | None:
        """Removes an order, and returns it if it was in force."""
        self._tidy(key, now_ms)
        order = self.orders.pop(key, None)
        if order is not None:
            self.removed.append(key)
        return order

    def note(self, entry: AuditEntry) -> None:
        """Adds to the audit."""
        entries = self._audit.setdefault(project_of(entry.key), [])
        entries.append(entry)
        del entries[:-AUDIT_MAX]
        self.noted.append(entry)

    def in_force(self, project: str, now_ms: int) -> tuple[StopOrder, ...]:
        """Returns the orders of a project that are not over, oldest first."""
        found = [
            (order.at_ms, key, order)
            for key, order in self.orders.items()
            if project_of(key) == project and not order.is_over(now_ms)
        ]
        return tuple([order for _, _, order in sorted(found, key=lambda one: one[:2])])

    def audit(self, project: str, limit: int) -> tuple[AuditEntry, ...]:
        """Returns the last entries of a project, newest first."""
        return tuple(self._audit.get(project, ())[: -limit - 1 : -1])

    def _tidy(self, key: str, now_ms: int) -> None:
        """Forgets the orders of a project that are over."""
        project = f"{project_of(key)}/"
        for other, order in list(self.orders.items()):
            if other.startswith(project) and order.is_over(now_ms):
                del self.orders[other]
                self.removed.append(other)


def project_in(project_id: str) -> str:
    """Writes a project as it is in keys."""
    return quote(project_id, safe="")


def project_of(key: str) -> str:
    """Returns the project of a key, encoded as it is there."""
    return key.partition("/")[0]


def stop_keys(who: Attribution, sessions: Iterable[str]) -> tuple[str, ...]:
    """Returns the keys of the orders that a call falls under, the widest first.

    Args:
        who: Whom the call is charged to: an order about any agent of its path
            stops it.
        sessions: The keys of the accounts of its session, and of those around it.
    """
    targets = [StopTarget(kind=StopKind.EVERYTHING)]
    if who.customer_id is not None:
        targets.append(StopTarget(kind=StopKind.CUSTOMER, name=who.customer_id))
    path = who.agent_path if who.agent is None else (*who.agent_path, who.agent)
    targets += [StopTarget(kind=StopKind.AGENT, name=name) for name in path]
    keys = [target.key(who.project_id) for target in targets]
    return tuple(dict.fromkeys((*keys, *sessions)))
