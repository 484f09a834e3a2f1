"""An outage: what is admitted while the store cannot be asked. Pure.

Each budget has its own answer. `closed` refuses. `open` lets pass. `local` goes on
enforcing here, from the last totals that are known:

* A session, which one process mostly has to itself, may use all that is left of it.
* A shared budget may use a tenth of its limit more than was last seen, here and in
  this outage. So `p` processes pass it by `p` tenths at most, and by nothing while
  that much is left.
* A shared budget of which nothing is known here is closed.

What people had stopped stays so, as far as this process was told; only the store can
lift it.

Thresholds are not told: the store tells each once in the fleet, when it learns what
happened.
"""

from collections.abc import Sequence
from dataclasses import replace

from guardrails.core.accounts import Account, Line
from guardrails.core.ledger import Ledger
from guardrails.core.limits import effective_limits
from guardrails.core.operations import (
    Conflict,
    Refusal,
    Release,
    Released,
    Reserve,
    Reserved,
    Settle,
    Settled,
    Verdict,
)
from guardrails.core.policy import Limits, Measure, OnStoreError
from guardrails.core.stops import Stops
from guardrails.errors import StoreUnavailable
from guardrails.stores.resilient.tallies import Tallies

__all__ = ["SHARE", "Outage"]

SHARE = 10
"""A process may use one in so many parts of a shared limit, per outage."""

_SHARED_MEASURES = {
    Measure.COST: "cost_nano_usd",
    Measure.TOKENS: "tokens",
    Measure.STEPS: "steps",
    Measure.MODEL_CALLS: "model_calls",
    Measure.TOOL_CALLS: "tool_calls",
}


class Outage:
    """Answers for the store until it is back. Not thread safe."""

    def __init__(
        self, tallies: Tallies, *, on_error: OnStoreError, reason: str, since_ms: int
    ) -> None:
        self._tallies = tallies
        self._on_error = on_error
        self._ledger = Ledger(
            holds=dict(tallies.open_holds()), stops=Stops(tallies.orders)
        )
        self._bases: dict[str, Account | None] = {}
        self._limits: dict[str, Limits] = {}
        self._shares: dict[str, Limits] = {}
        self.reason: str = reason
        """What is wrong with the store, as its first failure said."""
        self.since_ms: int = since_ms
        """When it began, on the monotonic clock."""
        self.is_told: bool = False
        """Whether people know of it, so that they are told of its end, too."""
        self.denied: list[Reserve] = []
        """Calls whose refusal stopped a session: the store must stop it too."""

    def reserve(self, op: Reserve) -> Reserved | Conflict:
        """Answers a reservation.

        Raises:
            StoreUnavailable: If the call may not be made without the store.
        """
        self._seed(op.charging.accounts)
        lines = op.charging.lines
        if op.charging.is_enforced:
            lines = tuple(self._line(line, op) for line in op.charging.lines)
        # The store tells people, when it learns what happened.
        charging = replace(op.charging, lines=lines, telling=None)
        reply = self._ledger.apply(replace(op, charging=charging))
        if isinstance(reply, Conflict):
            return reply
        refusal = reply.refusal
        if refusal is not None and reply.verdict is not Verdict.ALLOW:
            if self._is_share(refusal):
                raise StoreUnavailable(
                    f"{self.reason} Until it is back, this process may use a "
                    f"{SHARE}th of the limit of {refusal.line.scope}, and has."
                )
            if reply.new_stop is not None:
                self.denied.append(op)
        return replace(reply, crossings=())

    def settle(self, op: Settle) -> Settled | Conflict:
        """Answers a settlement."""
        self._seed(op.charging.accounts)
        charging = replace(op.charging, telling=None)
        reply = self._ledger.apply(replace(op, charging=charging))
        return replace(reply, crossings=()) if isinstance(reply, Settled) else reply

    def release(self, op: Release) -> Released:
        """Answers a release."""
        hold = self._ledger.holds.get(op.hold_id)
        self._seed(() if hold is None else hold.accounts)
        return self._ledger.apply(op)

    def _seed(self, accounts: Sequence[str]) -> None:
        """Starts accounts from what was last known of them."""
        for key in accounts:
            if key not in self._bases:
                known = self._bases[key] = self._tallies.account(key)
                copy = Account(key=key) if known is None else known.copy()
                self._ledger.accounts.setdefault(key, copy)

    def _share(self, line: Line) -> Limits | None:
        """Returns how far a shared account may go here; `None` if it is not known."""
        share, known = self._shares.get(line.account), self._bases[line.account]
        if share is None and known is not None:
            limits = self._limits[line.account] = effective_limits(
                line.limits, known.raised
            )
            share = self._shares[line.account] = _part(limits, known)
            self._ledger.accounts[line.account].raised = None  # It is in the share.
        return share

    def _line(self, line: Line, op: Reserve) -> Line:
        """Returns the line as it binds without the store."""
        is_own = line is op.charging.lines[0]
        is_limited = line.is_binding and not line.limits.is_empty
        match line.on_store_error or self._on_error:
            case OnStoreError.OPEN:
                return replace(line, is_binding=False)
            case OnStoreError.CLOSED if is_own or is_limited:
                raise StoreUnavailable(
                    f"{self.reason} Calls are refused until it is back: "
                    f"on_store_error is closed for {line.scope}."
                )
            case OnStoreError.LOCAL if is_limited and not line.is_session:
                share = self._share(line)
                if share is None:
                    raise StoreUnavailable(
                        f"{self.reason} Calls are refused until it is back: what "
                        f"{line.scope} has used is not known here."
                    )
                return replace(line, limits=share)
            case _:
                return line

    def _is_share(self, refusal: Refusal) -> bool:
        """Whether the limit itself would not have refused."""
        limits = self._limits.get(refusal.line.account)
        if limits is None or refusal.measure is None:
            return False
        limit = limits.of(refusal.measure)
        return limit is not None and refusal.allowed < limit


def _part(limits: Limits, known: Account) -> Limits:
    """Returns how far an account may go without the store."""
    parts: dict[str, int] = {}
    for measure, name in _SHARED_MEASURES.items():
        limit = limits.of(measure)
        if limit is not None:
            parts[name] = min(limit, known.used(measure) + limit // SHARE)
    return replace(limits, **parts)
