"""Tallies: what this process remembers of accounts, for when the store is away."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

from guardrails.core.accounts import Account, Hold, HoldState
from guardrails.core.limits import merged_limits
from guardrails.core.operations import (
    Operation,
    ReadStops,
    Release,
    Reserve,
    Reserved,
    Resume,
    ResumeScope,
    Settle,
    Settled,
    StopScope,
    Turn,
    Turned,
    Verdict,
)
from guardrails.core.policy import Limits
from guardrails.core.stops import StopOrder, project_in

__all__ = ["Tallies"]

TALLIES_MAX = 10_000
"""Accounts that are remembered; the least lately used is forgotten first."""

ORDERS_MAX = 1_000
"""Stops of people that are remembered: those that this process ran into, and read."""

_Orders = tuple[StopOrder, ...]

LastSeen = Callable[[str], Account | None]


class Tallies:
    """The totals that replies told of, and the open holds. Not thread safe.

    Args:
        last_seen: Returns an account's totals as the store last told them. Without
            it, only what this process settled is known.
    """

    def __init__(self, last_seen: LastSeen | None = None) -> None:
        self._last_seen = last_seen
        self._tallies: OrderedDict[str, Account] = OrderedDict()
        self._open: dict[str, Reserve] = {}
        self._orders: dict[str, StopOrder] = {}

    @property
    def orders(self) -> dict[str, StopOrder]:
        """Stops of people that the store told of, by their keys; a copy."""
        return dict(self._orders)

    @property
    def open_reserves(self) -> list[Reserve]:
        """Calls of this process that the store admitted and that are not over."""
        return list(self._open.values())

    def is_open(self, hold_id: str) -> bool:
        """Whether a hold is one of `open_reserves`."""
        return hold_id in self._open

    def open_holds(self) -> dict[str, Hold]:
        """Returns the holds of `open_reserves`."""
        return {
            op.hold_id: Hold(
                hold_id=op.hold_id,
                state=HoldState.OPEN,
                kind=op.kind,
                accounts=op.charging.accounts,
                cost_nano_usd=op.cost_nano_usd,
                tokens=op.tokens,
                expires_at_ms=op.expires_at_ms,
            )
            for op in self._open.values()
        }

    def account(self, key: str) -> Account | None:
        """Returns what is known of an account; a copy."""
        tally = self._tallies.get(key)
        seen = None if self._last_seen is None else self._last_seen(key)
        if seen is not None:
            if tally is not None:
                seen.stop = tally.stop
                if tally.raised is not None:  # By this process, maybe just now.
                    seen.raised = merged_limits(seen.raised or Limits(), tally.raised)
            return seen
        held = [op for op in self._open.values() if key in op.charging.accounts]
        if tally is None and not held:
            return None
        known = Account(key=key) if tally is None else tally.copy()
        for op in held:
            known.held_nano_usd += op.cost_nano_usd
            known.held_tokens += op.tokens
            known.count(op.kind, 1)
        return known

    def note(self, operation: Operation[Any], reply: object) -> None:
        """Remembers what the store answered."""
        if isinstance(operation, Resume):  # Maybe of a session without an account yet.
            self._orders.pop(operation.account, None)
        match operation, reply:
            case Turn(), Turned():
                self.note(operation.settle, reply.settled)
                self.note(operation.reserve, reply.reserved)
            case Settle(), _:
                self._open.pop(operation.hold_id, None)
                self._note_settled(operation, reply)
            case Reserve(), Reserved():
                self._note_reserved(operation, reply)
            case Release(), _:
                self._open.pop(operation.hold_id, None)
            case StopScope() | ResumeScope(), _:
                self._orders.pop(operation.target.key(operation.project_id), None)
                if isinstance(operation, StopScope) and isinstance(reply, StopOrder):
                    self._note_order(operation.project_id, reply)
            case ReadStops(), tuple():
                self._note_stops(operation.project_id, cast("_Orders", reply))
            case _, Account():
                tally = self._tally(reply.key)
                tally.stop, tally.raised = reply.stop, reply.raised
            case _:
                pass

    def forget_holds(self) -> None:
        """Forgets the open holds: in a child process they are the parent's."""
        self._open.clear()

    def _note_settled(self, op: Settle, reply: object) -> None:
        stop = reply.new_stop if isinstance(reply, Settled) else None
        for line in op.charging.lines:
            tally = self._tally(line.account)
            tally.posted_nano_usd += op.cost_nano_usd
            tally.posted_tokens += op.tokens
            tally.count(op.kind, 1)
            if stop is not None and line.is_session and line.scope == stop.scope:
                tally.stop = stop

    def _note_order(self, project_id: str, order: StopOrder) -> None:
        if len(self._orders) >= ORDERS_MAX:
            self._orders.clear()  # The next refusal tells of each again.
        self._orders[order.target.key(project_id)] = order

    def _note_stops(self, project_id: str, orders: "_Orders") -> None:
        """Remembers all that is stopped in a project, and nothing else there."""
        project = f"{project_in(project_id)}/"
        for key in [key for key in self._orders if key.startswith(project)]:
            del self._orders[key]
        for order in orders:
            self._note_order(project_id, order)

    def _note_reserved(self, op: Reserve, reply: Reserved) -> None:
        order = None if reply.refusal is None else reply.refusal.order
        if order is not None:
            self._note_order(op.charging.attribution.project_id, order)
        elif self._orders and op.charging.is_enforced:
            for key in op.charging.stop_keys:  # None of these keeps it from calling.
                self._orders.pop(key, None)
        if reply.refusal is not None and reply.refusal.stop is not None:
            self._tally(reply.refusal.line.account).stop = reply.refusal.stop
        elif reply.verdict is Verdict.ALLOW:
            self._open[op.hold_id] = op
            for line in op.charging.lines:
                # The store admitted a call: somebody has lifted the stop.
                if line.is_session and line.account in self._tallies:
                    self._tallies[line.account].stop = None

    def _tally(self, key: str) -> Account:
        """Returns what is remembered of an account, now the last to be forgotten."""
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Account(key=key)
        self._tallies.move_to_end(key)
        if len(self._tallies) > TALLIES_MAX:
            self._tallies.popitem(last=False)
        return tally
