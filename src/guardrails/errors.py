"""What guardrails raises.

    GuardrailsError
    ├── SessionStopped            policy or a person stopped the session
    │   ├── BudgetExceeded        a hard limit
    │   └── LoopDetected          the agent repeats itself
    ├── CallRefused               policy refused this one call; a later one may pass
    │   ├── LoopRefused           it would go on with a loop (the model reads why)
    │   └── UnpricedModelError    its model has no known price (the developer mends it)
    ├── ConfigurationError        a limit, key or name is wrong (the developer mends it)
    ├── ReservationConflict       one id, two contents (the developer mends it)
    └── StoreUnavailable          the ledger cannot be reached (the operator mends it)

Stops and refusals are raised into the guarded program, before the call that
they prevent. Faults are raised where a guard is built or asked, or a call or session
is opened with what cannot be; else they are contained, counted and logged.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any, cast

from guardrails.core.attribution import Attribution

__all__ = [
    "BudgetExceeded",
    "CallRefused",
    "ConfigurationError",
    "GuardrailsError",
    "LoopDetected",
    "LoopRefused",
    "ReservationConflict",
    "SessionStopped",
    "StoreUnavailable",
    "UnpricedModelError",
]

_Costs = tuple[tuple[str, Decimal, int], ...]


class GuardrailsError(Exception):
    """Everything that guardrails raises on purpose."""


class ConfigurationError(GuardrailsError, ValueError):
    """A limit, key or name is wrong. The message names it, its value and the fix."""


class ReservationConflict(GuardrailsError):
    """A reservation id was used before: for another call, or for one given back."""


class StoreUnavailable(GuardrailsError):
    """The store cannot be reached, read or written."""

    may_return: bool = False
    """Whether it may be back by itself, as after a restart. Else somebody must mend
    something first, such as a password."""


class CallRefused(GuardrailsError):
    """This one call was refused before it was made. The session goes on."""

    limit: str | None = None
    """The limit's key if only calls in flight stand in the way: `max_cost_usd`."""


class LoopRefused(CallRefused):
    """This one call would go on with a loop.

    Its message is for the model: it says what was repeated, and what to do instead.
    A model that goes on all the same is stopped.
    """


class UnpricedModelError(CallRefused):
    """The model's price is not known while a cost limit applies to the call."""


class SessionStopped(GuardrailsError):
    """The session is over: no paid call starts in it until it is resumed.

    So it is while its agent, its customer or everything is stopped by a person. Only a
    shared budget, and one of an agent or tool inside, ends no session: it refuses what
    does not fit. Carries where the session stood. Pickles, and holds no content.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "stopped",
        session_id: str | None = None,
        agent: str | None = None,
        attribution: Attribution | None = None,
        steps: int = 0,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        """`budget_exceeded`, `loop_detected` or `killed`."""
        self.session_id = session_id
        """The session that made the call. One around it may be what is over: the
        message names both."""
        self.agent = agent
        self.attribution = attribution
        self.steps = steps
        """Steps that this session had made."""
        self.__dict__.update(details)

    def __reduce__(self) -> tuple[object, ...]:
        state: Mapping[str, object] = {
            key: value for key, value in self.__dict__.items() if key != "__notes__"
        }
        return (_rebuilt, (_public_type(type(self)), dict(state)))


class BudgetExceeded(SessionStopped):
    """A hard limit is reached, or the next call would pass it.

    Attributes:
        limit: The limit's key in the configuration, such as `max_cost_usd`.
        scope: What the budget is kept per, such as `session` or
            `customer_id=acme`; `session ID` for a session around the call's.
        spent: What counts against the limit: settled, held and unconfirmed.
            A `Decimal` in USD for money, seconds for wall time, else an `int`.
        allowed: The limit, in the same unit; with `on_limit: finish` that of the work,
            without what is kept for the answer.
        needed: What the refused call would have added at most; `None` when the
            limit was passed by a call that had already been made.
        part: Of an agent or a tool that has a limit inside a session: the session's
            id, `agent` or `tool`, and the agent or the pattern of the tool's rule.
            Nothing else is stopped then. Else `None`.
        top_costs: The most expensive tools and models of the session, as
            `(name, cost in USD, calls)`, most expensive first. Read from the store
            when it is first looked at, or pickled; empty if that does not answer.
    """

    limit: str
    scope: str
    spent: Decimal | int
    allowed: Decimal | int
    needed: Decimal | int | None
    part: tuple[str, str, str] | None

    def __init__(
        self, message: str, *, read_costs: Callable[[], _Costs] = tuple, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self._read_costs = read_costs

    @cached_property
    def top_costs(self) -> _Costs:
        """What the session spent most on."""
        # Not read when it is raised: a call that is refused waits for no report.
        return self._read_costs()

    def __reduce__(self) -> tuple[object, ...]:
        kind, (public, state) = cast("Any", super().__reduce__())
        left = {key: value for key, value in state.items() if key != "_read_costs"}
        return (kind, (public, left | {"top_costs": self.top_costs}))


class LoopDetected(SessionStopped):
    """The agent repeats the same call without getting anywhere.

    Attributes:
        kind: `identical`, `cycle`, `repeated_error` or `polling`.
        tool: `server/tool` of the call that repeats; of a cycle, of its last call.
        tools: The tools of one round of a cycle, in order. Else empty.
        count: How many calls of the repetition were seen, in all rounds of a cycle.
        cost: What they cost in USD, as far as it is known.
    """

    kind: str
    tool: str
    tools: tuple[str, ...]
    count: int
    cost: Decimal


def _public_type(kind: type) -> type:
    """Adapters raise subclasses that also are their framework's own kind."""
    return next(base for base in kind.__mro__ if base.__module__ == __name__)


def _rebuilt(kind: type[SessionStopped], state: dict[str, Any]) -> SessionStopped:
    return kind(**state)
