"""Ports: what the guard needs from the outside, as small protocols."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from guardrails.core.accounts import Account, Stop
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.layers import TokenRates
from guardrails.core.loops import LoopFinding
from guardrails.core.operations import (
    Conflict,
    Crossing,
    Operation,
    Release,
    Released,
    Reserve,
    Reserved,
    Settle,
    Settled,
)
from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.core.reporting.groups import Every
from guardrails.core.reporting.rollups import Spend
from guardrails.core.retention import Forgotten, Pruned
from guardrails.core.usage import Charge, TokenUsage

__all__ = [
    "FOREVER_MS",
    "Clock",
    "ContextBook",
    "EventSink",
    "History",
    "Keeper",
    "KeptStore",
    "PriceBook",
    "RateBook",
    "RemoteStore",
    "Store",
]

R = TypeVar("R")

FOREVER_MS = 2**62
"""Later than any event."""


class Clock(Protocol):
    """The time."""

    def now_ms(self) -> int:
        """Returns milliseconds since 1970 (UTC)."""
        ...

    def monotonic_ms(self) -> int:
        """Returns milliseconds of a clock that is never set."""
        ...

    def sleep(self, seconds: float) -> None:
        """Blocks the calling thread."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Suspends the calling task."""
        ...

    def call_later(self, seconds: float, work: Callable[[], object]) -> None:
        """Does something once that much time has passed; the caller goes on."""
        ...


class History(Protocol):
    """What was spent, for reports. Readers never wait for writers."""

    def spend(
        self,
        *,
        project_id: str,
        by: str | Sequence[str],
        since_ms: int,
        until_ms: int,
        where: Mapping[str, Sequence[str]] | None = None,
        every: Every | None = None,
    ) -> Sequence[Spend]:
        """Sums whole hours per name, or per combination of names.

        A report by `provider`, `model`, `server` or `tool` is of the calls that can
        have one: by `tool` it is of tool calls, by `model` and `tool` of all.

        Args:
            project_id: The project.
            by: Of `SPEND_DIMENSIONS` in `guardrails.core.reporting.groups`: one,
                several, or none for the total.
            since_ms: The hour that contains this instant is the first.
            until_ms: The hour that contains this instant is the last.
            where: Patterns as of `fnmatch.fnmatchcase`, by dimension. In each, one
                has to match; an empty one matches what has no name.
            every: Makes it a series: apart for each hour, day or month (UTC).

        Returns:
            One entry per combination, most expensive first; of a series the oldest
            first. Nothing is told of what nothing was spent on.

        Raises:
            ValueError: If there is no such dimension.
        """
        ...

    def session_accounts(
        self, *, project_id: str, session_ids: Sequence[str]
    ) -> Sequence[Account]:
        """Returns the accounts of sessions that are known, in no order."""
        ...

    def events(
        self, *, project_id: str, session_id: str, limit: int
    ) -> Sequence[Event]:
        """Returns the last events of a session, oldest first."""
        ...

    def timeline(
        self, *, project_id: str, since_ms: int, until_ms: int
    ) -> Iterator[Event]:
        """Yields the events of a project that settled in a span, as they were booked.

        That is oldest first, but for those that a journal has booked later. They are
        read in pages, as far as they are kept.

        Args:
            project_id: The project.
            since_ms: The first instant.
            until_ms: The last instant.
        """
        ...

    def event_pages(
        self,
        *,
        project_id: str,
        since_ms: int = 0,
        until_ms: int = FOREVER_MS,
        session_id: str | None = None,
    ) -> Iterator[Sequence[FlatEvent]]:
        """Yields events as flat rows, page by page: all that are kept.

        In the order of `timeline`. SQLite keeps the events of a session together, so
        that reading one does not depend on how many others there are. Redis keeps one
        stream per project, of a bounded length: a session is looked for in all of it,
        and what has left the stream is not found.

        Args:
            project_id: The project.
            since_ms: The first instant.
            until_ms: The last instant.
            session_id: Of this session only.
        """
        ...


class Store(Protocol):
    """Applies ledger operations atomically.

    Raises from every method: `StoreUnavailable` when the store cannot be
    reached, read or written. An operation that raised may have been applied;
    applying it again under its id is safe.
    """

    @property
    def history(self) -> History:
        """What was spent."""
        ...

    def execute(self, operation: Operation[R]) -> R:
        """Applies an operation. Thread safe."""
        ...

    async def aexecute(self, operation: Operation[R]) -> R:
        """Applies an operation without blocking the event loop for long."""
        ...

    def secret(self) -> bytes:
        """Returns a random key, made once and the same for all who share the store."""
        ...

    def close(self) -> None:
        """Gives up what the store holds; a closed store may be used again."""
        ...


class RemoteStore(Store, Protocol):
    """A store on another machine: it can be away, and may lose what it had."""

    def execute_all(
        self, operations: Sequence[Reserve | Settle | Release]
    ) -> list[Reserved | Settled | Released | Conflict]:
        """Applies operations in few round trips, and returns their answers.

        The order may be another one than theirs.

        Raises:
            StoreUnavailable: As `execute`. Some of them may have been applied.
        """
        ...

    def watch(self, on_doubt: Callable[[], None]) -> None:
        """Has a function called whenever acknowledged changes may be lost.

        It may be called from any thread or event loop, and must not block.
        """
        ...

    def last_seen(self, account: str) -> Account | None:
        """Returns totals of an account as last told, without asking; a copy.

        With the limits that people have raised, as far as this process was told.
        """
        ...


class Keeper(Protocol):
    """Deletes what a store keeps: what is old, and what belongs to one customer.

    Agents go on meanwhile, and wait for no step longer than a few milliseconds. Each
    step leaves totals as they were, and what is broken off is completed by doing it
    again. A dry run counts, and changes nothing.
    """

    def prune(
        self,
        *,
        project_id: str,
        events_before_ms: int | None,
        rollups_before_ms: int | None,
        is_dry_run: bool,
    ) -> Pruned:
        """Deletes events and sums of before an instant; `None` keeps all.

        Of sums, whole hours are deleted.
        """
        ...

    def forget(
        self, *, project_id: str, customer_id: str, now_ms: int, is_dry_run: bool
    ) -> Forgotten:
        """Makes what was recorded of a customer anonymous; totals stay.

        Of its events the customer, user, session, run and tags go. Its sums, and
        those of its users and sessions, are added to what is not attributed. Its
        sessions are deleted unless they were active within a day, and so are alerts
        about it. What is still in force stays: shared budgets of the customer, and
        stops.
        """
        ...


@runtime_checkable
class KeptStore(Protocol):
    """A store that outlives its processes, and so needs somebody who deletes."""

    @property
    def keeper(self) -> Keeper:
        """Deletes what is in it."""
        ...


class PriceBook(Protocol):
    """What models cost."""

    def price(
        self, *, provider: str | None, model: str, usage: TokenUsage, now_ms: int
    ) -> Charge:
        """Prices reported usage; `unpriced` when no rate is known."""
        ...

    def bound(
        self,
        *,
        provider: str | None,
        model: str,
        input_tokens: int,
        output_tokens: int,
        now_ms: int,
    ) -> Charge:
        """Bounds the price of a call that uses at most these tokens."""
        ...

    def worst_case(
        self, *, provider: str | None, input_tokens: int, output_tokens: int
    ) -> Charge:
        """Prices a call of an unknown model at the rate of an expensive one."""
        ...


@runtime_checkable
class RateBook(Protocol):
    """A price book that also knows what a token costs."""

    def token_rates(
        self, *, provider: str | None, model: str, usage: TokenUsage, now_ms: int
    ) -> TokenRates | None:
        """Returns the rates by which `price` prices this usage, if it has any."""
        ...


@runtime_checkable
class ContextBook(Protocol):
    """A price book that also knows how much models read."""

    def context_tokens(
        self, *, provider: str | None, model: str, now_ms: int
    ) -> int | None:
        """Returns the most tokens that a model reads; `None` if that is not known."""
        ...


class EventSink(Protocol):
    """Is told what happened. Never blocks; what it raises is contained."""

    def settled(self, event: Event) -> None:
        """A call was booked."""
        ...

    def crossed(self, crossing: Crossing, attribution: Attribution) -> None:
        """A soft threshold was crossed; told once per account and threshold."""
        ...

    def stopped(self, stop: Stop, attribution: Attribution) -> None:
        """A session was stopped; told once."""
        ...

    def looped(self, finding: LoopFinding, attribution: Attribution) -> None:
        """A loop was recognised; told once per run of repetitions."""
        ...

    def observed(self, refused_by: str, attribution: Attribution) -> None:
        """In observe mode: a call was made that would have been refused.

        Told once per account and limit, by each process.

        Args:
            refused_by: By what, such as `max_cost_usd of session`.
            attribution: Whose call it was.
        """
        ...

    def unpriced(self, unpriced: Unpriced, attribution: Attribution) -> None:
        """The price of a model is not known.

        Told once per project, model and day, by each process.

        Args:
            unpriced: The model, and whether its calls are refused.
            attribution: Whose call it was.
        """
        ...

    def degraded(self, reason: str, *, seconds: float | None) -> None:
        """The store does not answer: limits are kept as `on_store_error` says.

        Args:
            reason: What is wrong with it, and how to mend it.
            seconds: `None` when it begins; how long it took when it is over.
        """
        ...
