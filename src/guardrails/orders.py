"""Orders: what people tell a ledger to stop, to let go on and to raise."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from guardrails.config import load_configuration
from guardrails.config.problems import shown
from guardrails.core.accounts import Account
from guardrails.core.attribution import Attribution
from guardrails.core.lines import account_key, part_key
from guardrails.core.operations import (
    RaiseLimits,
    ReadAccount,
    ReadAudit,
    ReadStops,
    Resume,
    ResumeScope,
    StopScope,
    StopSession,
)
from guardrails.core.policy import Limits, Measure, Policy
from guardrails.core.stops import AuditEntry, StopKind, StopOrder, StopTarget
from guardrails.core.telling import Telling
from guardrails.core.windows import Window
from guardrails.errors import ConfigurationError, GuardrailsError
from guardrails.ports import Clock, Store
from guardrails.sessions.planning import checked_name

__all__ = ["Orders", "target_of"]

FOR_S_MAX = 366 * 86_400.0
"""A year. What is to stop for longer stops until it is resumed."""

_WILD = frozenset("*?")


class Orders:
    """Gives a ledger the orders of people, about one project.

    Args:
        store: The ledger.
        project_id: The project.
        clock: The time.
        policy: What limits sessions, for the audit of raised limits.
        telling: What the ledger tells people of.
        told: Called when there is something to tell.
    """

    def __init__(
        self,
        store: Store,
        *,
        project_id: str,
        clock: Clock,
        policy: Policy,
        telling: Telling | None = None,
        told: Callable[[], object] | None = None,
    ) -> None:
        self._store = store
        self._project_id = project_id
        self._clock = clock
        self._policy = policy
        self._telling = telling
        self._told = told or (lambda: None)

    def adopt(self, policy: Policy) -> None:
        """Goes on with another policy."""
        self._policy = policy

    def stop(
        self,
        target: StopTarget,
        *,
        for_s: float | None = None,
        by: str | None = None,
        reason: str | None = None,
    ) -> StopOrder:
        """Stops a target, and returns the order in force.

        That is an earlier one, if it lasts as long.

        Raises:
            ConfigurationError: If the time or a name is wrong.
            GuardrailsError: If as many stops are in force as a ledger keeps.
            StoreUnavailable: If the store cannot be reached.
        """
        now_ms = self._clock.now_ms()
        until_ms = None if for_s is None else now_ms + _checked_ms(for_s)
        by, note = _checked(by, "by"), _checked(reason, "reason")
        if target.kind is StopKind.SESSION and until_ms is None:
            assert target.name is not None
            account = self._store.execute(
                StopSession(
                    account=self.account_key(target.name),
                    attribution=self._session(target.name),
                    now_ms=now_ms,
                    by=by,
                    note=note,
                    telling=self._telling,
                )
            )
            self._told()
            stop = account.stop
            assert stop is not None
            return StopOrder(
                target=target, at_ms=stop.at_ms, by=stop.by, note=stop.note
            )
        order = self._store.execute(
            StopScope(
                project_id=self._project_id,
                target=target,
                now_ms=now_ms,
                until_ms=until_ms,
                by=by,
                note=note,
                telling=self._telling,
            )
        )
        self._told()
        if order is None:
            raise GuardrailsError(
                f"stop: {target.label} was not stopped: as many stops are in force as "
                "a ledger keeps. Lift some with guard.resume(...)."
            )
        return order

    def resume(
        self, target: StopTarget, *, by: str | None = None, reason: str | None = None
    ) -> bool:
        """Lifts the stop of a target. Of a session it lifts any stop.

        Returns:
            Whether it was stopped; of a session, whether it is known.

        Raises:
            ConfigurationError: If a name is wrong.
            StoreUnavailable: If the store cannot be reached.
        """
        now_ms = self._clock.now_ms()
        by, note = _checked(by, "by"), _checked(reason, "reason")
        if target.kind is StopKind.SESSION:
            assert target.name is not None
            key = self.account_key(target.name)
            op = Resume(account=key, now_ms=now_ms, by=by, note=note)
            return self._store.execute(op) is not None
        lifted = self._store.execute(
            ResumeScope(
                project_id=self._project_id,
                target=target,
                now_ms=now_ms,
                by=by,
                note=note,
            )
        )
        return lifted is not None

    def raise_limits(
        self,
        session_id: str,
        given: Mapping[str, object],
        *,
        agent: str | None = None,
        tool: str | None = None,
        by: str | None = None,
        reason: str | None = None,
    ) -> Account:
        """Raises limits of a session, by the keys of the configuration.

        Args:
            session_id: The session.
            given: The limits; `None` leaves one as it is.
            agent: Raise those of this agent inside the session instead.
            tool: Raise that of this tool, or of a rule's pattern, instead.
            by: Who raises them.
            reason: Why.

        Raises:
            ConfigurationError: If none is given, or an amount or name is wrong.
            StoreUnavailable: If the store cannot be reached.
        """
        given = {key: value for key, value in given.items() if value is not None}
        if not given:
            raise ConfigurationError(
                f"raise_limit: name a limit, such as {Measure.COST.value}='2.00'."
            )
        configuration = load_configuration({}, environ={}, cwd=None, overrides=given)
        by, note = _checked(by, "by"), _checked(reason, "reason")
        key, policy = self.limited(session_id, agent=agent, tool=tool)
        if tool is not None:
            _refuse_all_but_calls(given, tool)
        account = self._store.execute(
            RaiseLimits(
                account=key,
                limits=configuration.policy.session.limits,
                now_ms=self._clock.now_ms(),
                by=by,
                note=note,
                policy=policy,
                telling=self._telling,
            )
        )
        self._told()
        return account

    def limited(
        self, session_id: str, *, agent: str | None = None, tool: str | None = None
    ) -> tuple[str, Limits]:
        """Returns the key of a session, or of a part of it, and the policy's limits.

        Raises:
            ConfigurationError: If the agent or tool has no limit of its own.
        """
        key = self.account_key(session_id)
        if agent is not None and tool is not None:
            raise ConfigurationError(
                f"raise_limit: agent={shown(agent)} and tool={shown(tool)} are two "
                "things. Raise one after the other."
            )
        if agent is not None:
            budget = self._policy.agent_budget(checked_name(agent, "agent"))
            if budget is None:
                raise ConfigurationError(
                    f"agent: {shown(agent)} has no budget under agents. Raise the "
                    "session's own limits: leave agent out."
                )
            return part_key(key, "agent", agent), budget.limits
        if tool is not None:
            limit = self._policy.tool_limit(checked_name(tool, "tool"))
            if limit is None:
                raise ConfigurationError(
                    f"tool: {shown(tool)} has no max_calls under tools. Name a tool or "
                    "pattern that has."
                )
            return part_key(key, "tool", limit.name), limit.limits
        return key, self.policy_limits(self.account(session_id))

    def account(self, session_id: str) -> Account | None:
        """Returns the totals of a session; `None` before its first call."""
        return self.account_of(self.account_key(session_id))

    def account_of(self, key: str) -> Account | None:
        """Returns the totals of any account, by its key."""
        return self._store.execute(ReadAccount(account=key))

    def policy_limits(self, account: Account | None) -> Limits:
        """Returns the limits that the policy gives to a session."""
        session = None if account is None else account.session
        agent = None if session is None else session.attribution.agent
        return self._policy.session_budget(agent).limits

    def stops(self) -> Sequence[StopOrder]:
        """Returns what people have stopped and is still stopped, oldest first."""
        now_ms = self._clock.now_ms()
        return self._store.execute(
            ReadStops(project_id=self._project_id, now_ms=now_ms)
        )

    def audit(self, limit: int) -> Sequence[AuditEntry]:
        """Returns what people did last, newest first."""
        return self._store.execute(ReadAudit(project_id=self._project_id, limit=limit))

    def account_key(self, session_id: str) -> str:
        """Returns the key of a session's account.

        Raises:
            ConfigurationError: If the id is no name.
        """
        who = self._session(session_id)
        return account_key(who, per=("session_id",), every=Window.SESSION, now_ms=0)

    def _session(self, session_id: str) -> Attribution:
        name = checked_name(session_id, "session_id")
        return Attribution(project_id=self._project_id, session_id=name)


def target_of(
    *,
    session_id: str | None = None,
    agent: str | None = None,
    customer_id: str | None = None,
    everything: bool = False,
) -> StopTarget:
    """Returns what is meant.

    Raises:
        ConfigurationError: If it is not exactly one thing, or no name.
    """
    names = {
        StopKind.SESSION: session_id,
        StopKind.AGENT: agent,
        StopKind.CUSTOMER: customer_id,
    }
    given = {kind: name for kind, name in names.items() if name is not None}
    if len(given) + everything != 1:
        raise ConfigurationError(
            "stop and resume are about one thing: give one of session_id, agent, "
            "customer_id, or everything."
        )
    for kind, name in given.items():
        checked = checked_name(name, kind.value)
        if kind is StopKind.AGENT and _WILD & set(checked):
            raise ConfigurationError(
                f"agent: {shown(name)} is a pattern. Name one agent; a call is stopped "
                "by any agent that it runs in."
            )
        return StopTarget(kind=kind, name=checked)
    return StopTarget(kind=StopKind.EVERYTHING)


def _refuse_all_but_calls(given: Mapping[str, object], tool: str) -> None:
    """Refuses to raise what no tool has a limit of: nothing would change."""
    for key in given:
        if key != Measure.TOOL_CALLS.value:
            raise ConfigurationError(
                f"{key}: {shown(given[key])} cannot be raised for tool {shown(tool)}: "
                "only its calls are limited. Use max_tool_calls, or leave tool out to "
                "raise the session's own limit."
            )


def _checked(name: str | None, key: str) -> str | None:
    return None if name is None else checked_name(name, key)


def _checked_ms(seconds: object) -> int:
    if type(seconds) in (int, float):  # A bool is no time.
        number = cast("float", seconds)
        if 0 < number <= FOR_S_MAX:  # What is not finite is not.
            return math.ceil(number * 1000)
    raise ConfigurationError(
        f"for_s: {shown(seconds)} is no time to stop for. Pass seconds, more than 0 "
        f"and at most {FOR_S_MAX:.0f}, or leave it out to stop until it is resumed."
    )
