"""The guard: what a program holds, and all that it offers."""

import atexit
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, ParamSpec, TypeVar, cast

from guardrails.adapters import load_adapters, loaded_adapters
from guardrails.charges import ToolPrice
from guardrails.config import (
    Configuration,
    environment_of,
    load_configuration,
)
from guardrails.config.problems import shown
from guardrails.config.reloading import ConfigFile, kept
from guardrails.core.accounts import Account
from guardrails.core.calls import ModelCall, ToolCall
from guardrails.core.money import EXACT, usd_digits
from guardrails.core.operations import Operation
from guardrails.core.policy import Mode, OnStoreError, Policy
from guardrails.core.stops import AUDIT_MAX, AuditEntry, StopOrder
from guardrails.engine import Engine
from guardrails.errors import ConfigurationError, StoreUnavailable
from guardrails.orders import Orders, target_of
from guardrails.ports import Clock, EventSink, PriceBook, Store
from guardrails.prices import Prices
from guardrails.reports import Span
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.sessions.opening import Around, Opener
from guardrails.sessions.planning import (
    checked_amount,
    checked_name,
    model_call,
    refuse_given,
    tool_call,
)
from guardrails.sessions.scope import call_of, session_of
from guardrails.sessions.session import Session
from guardrails.sessions.tools import guarded_tool
from guardrails.sinks import LogSink, StoreListener
from guardrails.spend.asking import (
    checked_by,
    checked_every,
    checked_hours,
    checked_limit,
    checked_where,
)
from guardrails.spend.reading import Asked, read_series, read_sessions, read_spend
from guardrails.spend.rows import (
    SessionSpend,
    SpendRow,
    session_rows,
    spend_rows,
    step_rows,
)
from guardrails.stores import open_journal, open_store, shared_url
from guardrails.stores.memory import MemoryStore
from guardrails.stores.resilient import ResilientStore
from guardrails.system.clock import SystemClock
from guardrails.system.ids import new_id
from guardrails.system.logs import host_log
from guardrails.system.one_process import OfOneProcess
from guardrails.system.threads import may_block, new_lock, off_event_loop

if TYPE_CHECKING:
    from guardrails.alerts.sink import AlertSink

__all__ = ["Guard"]

_log = host_log()

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Amount = Decimal | str | int | float


_INSTEAD = (
    "Build a Guard in each process, from the same configuration and store: for a pool "
    "in its initializer. Guard.child_env() takes the running session along."
)


class Guard(OfOneProcess, instead=_INSTEAD):
    """Stops agents at their limits and records where the money went.

    Without arguments it reads `guardrails.yaml`, searched upwards from the
    working directory, and `GUARDRAILS_*` from the environment; arguments win.
    Without any limit nothing is limited and everything is recorded.

    A guard may be shared by all threads and tasks of a process, and several
    guards may live side by side. Each process builds its own, or inherits it by a fork.

    Args:
        config: A path to a YAML file, or its content as a mapping.
        policy: A ready policy, instead of `config` and the limits below.
        store: `sqlite` (one file in the user's data directory, the default),
            `sqlite:///path`, `redis://host:6379/0`, `memory://`, or a store of
            your own.
        project_id: The project; accounts of two projects never meet.
        mode: `enforce`, `observe` (decide and record, block nothing) or `off`.
        max_cost_usd: Hard limit of a session: a decimal string or `Decimal`.
        soft_alert_usd: The amount at which people are told.
        soft_alert_ratio: Fractions of every limit at which people are told.
        max_steps: Hard limit of model calls and tool calls together.
        max_model_calls: Hard limit of model calls.
        max_tool_calls: Hard limit of tool calls.
        max_tokens: Hard limit of input and output tokens together.
        max_wall_time_s: Hard limit of the time a session is active, in seconds.
        on_limit: How an agent with `GuardMiddleware` ends at a limit: `raise`,
            `finish` (with an answer) or `pause` (for a person). All others raise.
        closing_reserve_usd: The part of `max_cost_usd` that `finish` keeps for the
            answer; a tenth by default.
        on_unpriced: `refuse`, `worst_case` or `allow` for models whose price is
            not known.
        on_store_error: `closed`, `local` or `open` while the store is away, also when
            the guard is built.
        prices: A price book of your own, instead of the built-in one.
        clock: For tests: `guardrails.testing.FakeClock`.
        sinks: Who else is told what happens, beside the log.

    Raises:
        ConfigurationError: If a limit, key or name is wrong. All that is wrong
            is named at once.
        StoreUnavailable: If the store cannot be opened: what somebody must mend first,
            such as a wrong password, and with `on_store_error="closed"` anything.
    """

    @may_block
    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, object] | None = None,
        *,
        policy: Policy | None = None,
        store: str | os.PathLike[str] | Store | None = None,
        project_id: str | None = None,
        mode: str | None = None,
        max_cost_usd: Amount | None = None,
        soft_alert_usd: Amount | None = None,
        soft_alert_ratio: Sequence[float] | float | None = None,
        max_steps: int | None = None,
        max_model_calls: int | None = None,
        max_tool_calls: int | None = None,
        max_tokens: int | None = None,
        max_wall_time_s: float | None = None,
        on_limit: str | None = None,
        closing_reserve_usd: Amount | None = None,
        on_unpriced: str | None = None,
        on_store_error: str | None = None,
        prices: PriceBook | None = None,
        clock: Clock | None = None,
        sinks: Sequence[EventSink] = (),
        **unknown: Never,
    ) -> None:
        overrides: dict[str, object] = {
            "project_id": project_id,
            "mode": mode,
            "max_cost_usd": max_cost_usd,
            "soft_alert_usd": soft_alert_usd,
            "soft_alert_ratio": soft_alert_ratio,
            "max_steps": max_steps,
            "max_model_calls": max_model_calls,
            "max_tool_calls": max_tool_calls,
            "max_tokens": max_tokens,
            "max_wall_time_s": max_wall_time_s,
            "on_limit": on_limit,
            "closing_reserve_usd": closing_reserve_usd,
            "on_unpriced": on_unpriced,
            "on_store_error": on_store_error,
            "store": os.fspath(store) if isinstance(store, str | os.PathLike) else None,
            **unknown,
        }
        overrides = {k: v for k, v in overrides.items() if v is not None}
        if policy is not None:
            _refuse_beside_policy(config=config, **overrides)
        load = partial(
            load_configuration,
            config if policy is None else {},
            environ=os.environ,
            cwd=_directory(),
            overrides=overrides,
        )
        self._configuration = configuration = load()
        self._file = ConfigFile(configuration.path, load)
        self._has_own_policy, self._has_own_prices = policy is not None, bool(prices)
        clock = clock or SystemClock()
        policy = policy or configuration.policy
        url: str | None = None
        if store is None or _is_url(store):
            url = configuration.store or "sqlite"
            real_store = open_store(url)
        else:
            real_store = _checked_store(store)
        key, away = _first_asked(real_store, policy)
        resilient = ResilientStore(
            real_store,
            on_error=policy.on_store_error,
            clock=clock,
            journal=None if url is None else open_journal(url, clock),
            begin_journal=None
            if url is None
            else partial(open_journal, url, clock, has_failed=True),
            key=key,
        )
        self._engine = Engine(
            policy=policy,
            store=resilient,
            prices=prices or _prices_of(configuration),
            clock=clock,
            open_session=self._open,
            sinks=(LogSink(), *sinks),
            telling=None if policy.mode is Mode.OFF else configuration.alerts.telling,
        )
        self._engine.refresh = self._refresh
        self._resilient = resilient
        self._alerts = self._opened_alerts(real_store, clock)
        resilient.listener = StoreListener(
            emit=self._engine.emit, contain=self._engine.contain
        )
        if away is not None:
            resilient.begin_outage(away)
        self._orders = Orders(
            resilient,
            project_id=configuration.project_id,
            clock=clock,
            policy=policy,
            telling=self._engine.telling,
            told=self._wake,
        )
        self._store_url = None if url is None else shared_url(url)
        self._opener = Opener(
            self._engine, project_id=configuration.project_id, environ=os.environ
        )
        self._own_session: Session | None = None
        self._own_lock = new_lock()
        atexit.register(_close_at_exit, weakref.ref(self))
        load_adapters()

    @property
    def engine(self) -> Engine:
        """For adapters: executes the operations of this guard."""
        return self._engine

    @property
    def configuration(self) -> Configuration:
        """What was configured, and where each part came from."""
        return self._configuration

    @property
    def store(self) -> ResilientStore:
        """The store, with the policy for its failures around it."""
        return self._resilient

    # --- guarding -----------------------------------------------------------

    def session(
        self,
        agent: str | None = None,
        /,
        *,
        customer_id: str | None = None,
        user_id: str | None = None,
        feature: str | None = None,
        prompt_version: str | None = None,
        project_id: str | None = None,
        session_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Session:
        """Opens a session: one agent interaction with one budget.

        Use it as a context manager, sync or async. Inside another session of
        this guard it inherits the names that are not given, and is charged to
        both: neither budget is passed. It holds for the task that enters it, and for
        the tasks that this one starts: open it around what reads a generator, and
        not in the generator; in FastAPI in a dependency that is `async def`.

        Args:
            agent: Who acts; chooses the budget.
            customer_id: For whom.
            user_id: On whose behalf.
            feature: What for.
            prompt_version: With which prompt.
            project_id: In which project.
            session_id: Joins an existing session, in any process. Without it a
                session takes the thread id of the first LangGraph run inside,
                or a new id.
            tags: Free pairs, at most 16.

        Raises:
            ConfigurationError: If a name is empty, too long or has control
                characters.
        """
        names = {
            "agent": agent,
            "customer_id": customer_id,
            "user_id": user_id,
            "feature": feature,
            "prompt_version": prompt_version,
            "project_id": project_id,
            "session_id": session_id,
        }
        given = {key: name for key, name in names.items() if name is not None}
        return self._opener.open(given, tags, around=self.around())

    def call(
        self,
        *,
        model: str | None = None,
        provider: str | None = None,
        input_bytes: int | None = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        tool: str | None = None,
        server: str | None = None,
        arguments: object = None,
        cost_usd: Amount | None = None,
        call_id: str | None = None,
        reservation_id: str | None = None,
    ) -> GuardedCall:
        """Guards one call that no integration knows: reserve before, settle after.

        Belongs to the session around it; without one, to a session that this
        guard keeps for the process. Inside a tool's call it is charged to whom that is.

        Args:
            model: The model, for a model call.
            provider: Its provider, such as `openai`; makes its price certain.
            input_bytes: The prompt's length in UTF-8: an upper bound of tokens.
            input_tokens: An upper bound of the input, if you know a closer one.
            max_output_tokens: The request's own bound on output.
            tool: The tool, for a tool call.
            server: The server or service that offers it.
            arguments: The tool's arguments, for recognising loops; only a
                digest is kept.
            cost_usd: The price of this tool call, if the policy has none.
            call_id: The model's id of this tool call.
            reservation_id: Makes a repeated reservation of the same call count
                once, also after it was settled. A call that is made once more, or
                that was given back before, needs a new id.

        Raises:
            ConfigurationError: If it is not clear which call is meant, or an
                argument is wrong or belongs to the other kind of call.
        """
        if (model is None) == (tool is None):
            raise ConfigurationError(
                "call: give either model= or tool=, and not both "
                f"(model={shown(model)}, tool={shown(tool)})."
            )
        for_models: dict[str, Any] = {
            "provider": provider,
            "input_bytes": input_bytes,
            "input_tokens": input_tokens,
            "max_output_tokens": max_output_tokens,
        }
        for_tools: dict[str, Any] = {
            "server": server,
            "arguments": arguments,
            "cost_usd": cost_usd,
            "call_id": call_id,
        }
        if reservation_id is not None:
            reservation_id = checked_name(reservation_id, "reservation_id")
        session, who = self._here()
        if model is not None:
            refuse_given(kind="model", **for_tools)
            call: ModelCall | ToolCall = model_call(model, **for_models)
        else:
            refuse_given(kind="tool", **for_models)
            call = tool_call(cast("str", tool), session=session, **for_tools)
        return GuardedCall(session, call, attribution=who, hold_id=reservation_id)

    def tool(
        self,
        *,
        name: str | None = None,
        server: str | None = None,
        cost_usd: Amount | None = None,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Guards a function as a tool, sync or async: limits, price and loops.

        The price also holds where a framework calls the function as a tool of
        the same name; the call is then counted once. One that returns a coroutine is
        over when that has ended, and held for ten minutes if nobody awaits it.

        Args:
            name: The tool's name; the function's by default.
            server: The server or service that it calls.
            cost_usd: The price of one call, if `tools:` of the configuration has none.

        Raises:
            ConfigurationError: If the price is wrong, or the function is a
                generator: its work happens after the call has returned.
        """
        cost = None if cost_usd is None else checked_amount(cost_usd, "tool.cost_usd")
        if server is not None:
            server = checked_name(server, "tool.server")

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            own = getattr(function, "__name__", None)
            tool = checked_name(own if name is None else name, "tool.name")
            price = ToolPrice(server=server, cost_nano_usd=cost)
            self._engine.charges.tools[tool] = price
            return guarded_tool(
                function,
                tool=tool,
                engine=self._engine,
                price=price,
                call=lambda arguments: self.call(
                    tool=tool, server=server, arguments=arguments, cost_usd=cost_usd
                ),
            )

        return decorate

    def wrap(
        self,
        target: T,
        *,
        agent: str | None = None,
        server: str | None = None,
        customer_id: str | None = None,
        user_id: str | None = None,
        feature: str | None = None,
        prompt_version: str | None = None,
        session_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> T:
        """Returns the object, guarded: a LangChain runnable, or a client of MCP.

        Of MCP these are `ClientSession`, `ClientSessionGroup`, the SDK's `Client` and
        `fastmcp.Client`, connected or not: the very object, whose tool calls are
        guarded, however they are made. Inside a session of this guard they are
        charged to that, and the names given here apply where it has none. Elsewhere
        the object has a session of its own. Wrapped again, it is guarded once, and
        the names that are given again win; by another guard, it is guarded by both.

        Args:
            target: What to guard.
            agent: Who acts; chooses the budget of a session of its own.
            server: What an MCP server is called, by default as it calls itself.
            customer_id: For whom.
            user_id: On whose behalf.
            feature: What for.
            prompt_version: With which prompt.
            session_id: Joins an existing session where the object has its own.
            tags: Free pairs, at most 16.

        Raises:
            ConfigurationError: If no installed integration knows such objects, or a
                name is wrong.
        """
        load_adapters()
        names = {
            "agent": agent,
            "customer_id": customer_id,
            "user_id": user_id,
            "feature": feature,
            "prompt_version": prompt_version,
            "session_id": session_id,
        }
        options = {
            **{key: name for key, name in names.items() if name is not None},
            **({"tags": tags} if tags else {}),
            **({"server": server} if server else {}),
        }
        for adapter in loaded_adapters():
            wrapped = adapter.wrap_object(self, target, options)
            if wrapped is not None:
                return cast("T", wrapped)
        raise ConfigurationError(
            f"wrap: no integration for {type(target).__module__}."
            f"{type(target).__qualname__}. Install the extra that knows it, for "
            "example guardrails-runtime[langchain], or use guard.call(...)."
        )

    def unwrap(self, target: T) -> T:
        """Returns the object as it was before this guard wrapped it.

        A LangChain runnable is wrapped as a copy: keep the original instead.

        Raises:
            ConfigurationError: If this guard has not wrapped it.
        """
        for adapter in loaded_adapters():
            if adapter.unwrap_object(self, target) is not None:
                return target
        raise ConfigurationError(
            f"unwrap: this {type(target).__qualname__} was not wrapped by this guard, "
            "or is a copy. Pass what guard.wrap has changed."
        )

    def child_env(self) -> dict[str, str]:
        """Returns the environment that takes the session of here into a child process.

        For `StdioServerParameters(env=guard.child_env())` and the `env` of an
        `mcpServers` entry: neither passes the parent's environment on. It names the
        session and those around it, whom they are charged to, the agents at work, the
        store, the configuration's file and the limits that code or the environment
        set. A store's password is in its URL. A configuration that is a dict, and a
        store in memory, cannot be taken along.
        """
        session, who = self._here()
        named = replace(
            who, session_id=session.session_id, agent=session.attribution.agent
        )
        configuration, url = self._configuration, self._store_url
        # A child only works: the closing call is made here.
        limits = configuration.policy.session.work_limits
        wall_time_ms, cost = limits.wall_time_ms, limits.cost_nano_usd
        quick: dict[str, str | None] = {
            "mode": self._engine.policy.mode.value,
            "max_cost_usd": None if cost is None else usd_digits(cost),
            "max_wall_time_s": None
            if wall_time_ms is None
            else f"{Decimal(wall_time_ms).scaleb(-3, EXACT):f}",
        }
        counts = {
            "max_steps": limits.steps,
            "max_model_calls": limits.model_calls,
            "max_tool_calls": limits.tool_calls,
            "max_tokens": limits.tokens,
        }
        quick |= {key: str(n) for key, n in counts.items() if n is not None}
        return environment_of(
            named,
            {
                **{key: quick[key] for key in quick if key in configuration.origins},
                "config": configuration.path and str(configuration.path),
                "project_id": session.attribution.project_id,
                "store": url,
            },
            agent_path=who.agent_path,
            around=[(s.session_id, s.attribution.agent) for s in session.around],
        )

    def reload(self) -> None:
        """Reads the configuration anew, and goes on with its limits and prices.

        A file that changes is taken up by itself, seconds after it was written; one
        that is wrong is not, and the log says why. Calls in flight settle as they were
        reserved, and a session that was stopped stays stopped. The store, the project,
        alerts and the mode `off` take a new guard.

        Raises:
            ConfigurationError: If anything is wrong. Nothing has changed then.
        """
        if self._has_own_policy:
            raise ConfigurationError(
                "reload: this guard was given policy=, so there is nothing to read. "
                "Make another guard."
            )
        self._adopt(self._file.load())

    def _refresh(self) -> None:
        configuration = self._file.changed(self._engine.clock.now_ms())
        if configuration is not None:
            self._adopt(configuration)
            _log.info("guardrails: took up the changed %s", configuration.path)

    def _adopt(self, configuration: Configuration) -> None:
        configuration = kept(configuration, self._configuration)
        prices: PriceBook | None = None
        if not self._has_own_prices:
            prices = _prices_of(configuration)
        self._engine.adopt(configuration.policy, prices)
        self._orders.adopt(configuration.policy)
        self._resilient.on_error = configuration.policy.on_store_error
        self._configuration = configuration

    # --- operating ----------------------------------------------------------

    def raise_limit(
        self,
        session_id: str,
        *,
        max_cost_usd: Amount | None = None,
        max_steps: int | None = None,
        max_model_calls: int | None = None,
        max_tool_calls: int | None = None,
        max_tokens: int | None = None,
        max_wall_time_s: float | None = None,
        agent: str | None = None,
        tool: str | None = None,
        by: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Raises limits of one session above the policy's, in every process.

        Lifts a stop that a budget set. A value below the policy's, or below what it
        was raised to before, lowers nothing.

        Args:
            session_id: The session.
            max_cost_usd: In USD, as a decimal string or `Decimal`.
            max_steps: Model calls and tool calls together.
            max_model_calls: Model calls.
            max_tool_calls: Tool calls.
            max_tokens: Input and output tokens together.
            max_wall_time_s: Seconds during which it is active.
            agent: Raises what this agent may use inside the session instead.
            tool: Raises how often this tool (`server/tool`) may be called instead, by
                `max_tool_calls` alone.
            by: Who raises them, for the audit.
            reason: Why.

        Raises:
            ConfigurationError: If an amount is wrong, or the agent or tool has no
                limit of its own, or none of that kind.
            StoreUnavailable: If the store cannot be reached.
        """
        given = {
            "max_cost_usd": max_cost_usd,
            "max_steps": max_steps,
            "max_model_calls": max_model_calls,
            "max_tool_calls": max_tool_calls,
            "max_tokens": max_tokens,
            "max_wall_time_s": max_wall_time_s,
        }
        self._orders.raise_limits(
            session_id, given, agent=agent, tool=tool, by=by, reason=reason
        )
        _log.info(
            "guardrails: limits of session %s raised by %s to %s",
            session_id,
            by or "somebody",
            {key: value for key, value in given.items() if value is not None},
        )

    def stop(
        self,
        session_id: str | None = None,
        *,
        agent: str | None = None,
        customer_id: str | None = None,
        everything: bool = False,
        reason: str | None = None,
        by: str | None = None,
        for_s: float | None = None,
    ) -> None:
        """Stops a session, an agent, a customer or everything, at the next call.

        In every process, and for agents also inside others. Calls in flight settle.
        Only a session that is stopped without `for_s` is over; all else goes on once
        it is resumed, or its time is up. The longer of two stops counts; a repeated
        one changes nothing.

        Args:
            session_id: One session, also one that has not begun.
            agent: All calls that this agent makes, or agents below it.
            customer_id: All calls for this customer.
            everything: All calls in the project.
            reason: Why; the stopped program and the audit say so.
            by: Who stops it.
            for_s: For how many seconds, a year at most; without it until it is resumed.

        Raises:
            ConfigurationError: If it is not clear what to stop, or a name is wrong.
            StoreUnavailable: If the store cannot be reached.
        """
        target = target_of(
            session_id=session_id,
            agent=agent,
            customer_id=customer_id,
            everything=everything,
        )
        self._orders.stop(target, for_s=for_s, by=by, reason=reason)

    def resume(
        self,
        session_id: str | None = None,
        *,
        agent: str | None = None,
        customer_id: str | None = None,
        everything: bool = False,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Lifts a stop: of a session any, of all else that of a person.

        Resuming everything lifts the stop of everything, not those of single
        sessions, agents and customers.

        Raises:
            ConfigurationError: If it is not clear what to resume.
            StoreUnavailable: If the store cannot be reached.
        """
        target = target_of(
            session_id=session_id,
            agent=agent,
            customer_id=customer_id,
            everything=everything,
        )
        self._orders.resume(target, by=by, reason=reason)

    def stops(self) -> Sequence[StopOrder]:
        """Returns what people have stopped in the project, oldest first.

        Raises:
            StoreUnavailable: If the store cannot be reached.
        """
        return self._orders.stops()

    def audit(self, *, limit: int = 100) -> Sequence[AuditEntry]:
        """Returns who stopped, resumed and raised what, and why, newest first.

        Args:
            limit: Entries to return; 0 returns all that are kept.

        Raises:
            ConfigurationError: If the limit is no whole number of at least 0.
            StoreUnavailable: If the store cannot be reached.
        """
        return self._orders.audit(checked_limit(limit) or AUDIT_MAX)

    # --- reading spend ------------------------------------------------------

    def spend(
        self,
        by: str | Sequence[str] = ("session_id",),
        *,
        since: str | timedelta = "24h",
        where: Mapping[str, str | Sequence[str] | None] | None = None,
        limit: int = 0,
        compare: bool = False,
        every: str | None = None,
    ) -> list[SpendRow]:
        """Returns what was spent, by any names, most expensive first.

        What was not attributed has a row whatever the limit. Rows by `provider`,
        `model`, `server` or `tool` are of the calls that can have one.

        Args:
            by: The dimensions: `session_id`, `agent`, `root_agent`, `customer_id`,
                `user_id`, `feature`, `prompt_version`, `kind`, `provider`, `model`,
                `server`, `tool`, `project_id`, `waste` or `refused_by` (of observe
                mode); at most four. Or `layer` alone, without `where`: what tokens were
                for, which counts no calls.
            since: How far to look back: `24h`, `7d` or a timedelta. Whole hours
                count; the first one counts in full.
            where: Patterns by dimension, as of `fnmatch.fnmatchcase`: one or several
                of which one has to match. `None` matches what has no name.
            limit: Rows to return; 0 returns all. Of a series: names per step.
            compare: Whether to say what each cost in as many hours before.
            every: `hour`, `day` or `month` (UTC): a row per step and name, oldest
                first, also where nothing was spent.

        Raises:
            ConfigurationError: If an argument is wrong.
            StoreUnavailable: If the store cannot be read.
        """
        asked = self._asked(since=since, where=where, limit=limit)
        step = checked_every(every)
        if step is not None and compare:
            raise ConfigurationError("compare: steps are not compared. Leave one out.")
        asked = replace(asked, by=checked_by(by), every=step)
        if step is not None:
            return step_rows(read_series(self.store.history, asked))
        return spend_rows(read_spend(self.store.history, asked, compares=compare))

    def sessions(
        self,
        *,
        since: str | timedelta = "24h",
        where: Mapping[str, str | Sequence[str] | None] | None = None,
        status: str | None = None,
        sort: str = "cost",
        limit: int = 0,
    ) -> list[SessionSpend]:
        """Returns the sessions that made a call, and what each spent.

        Args:
            since: How far to look back, as for `spend`.
            where: Patterns by dimension, as for `spend`.
            status: `active`, `idle`, `completed` or `stopped`; `None` for all.
            sort: `cost`, `time` (of the last call, newest first) or `steps`.
            limit: Rows to return; 0 returns all.

        Raises:
            ConfigurationError: If an argument is wrong.
            StoreUnavailable: If the store cannot be read.
        """
        asked = self._asked(since=since, where=where, limit=limit)
        policy = self._engine.policy
        return session_rows(
            read_sessions(self.store.history, asked, policy, sort=sort, state=status)
        )

    def _asked(
        self, *, since: object, where: Mapping[str, object] | None, limit: object
    ) -> Asked:
        return Asked(
            project_id=self._configuration.project_id,
            span=Span(hours=checked_hours(since), until_ms=self._engine.clock.now_ms()),
            limit=checked_limit(limit),
            where=checked_where(where),
        )

    def account(self, session_id: str) -> Account | None:
        """Returns the totals of a session; `None` before its first call."""
        return self._orders.account(session_id)

    @may_block
    def close(self) -> None:
        """Books what is left, sends alerts that wait, and closes the store.

        The guard can be used again. Sending takes two seconds at most; what a
        receiver does not take in that time waits in the store, and is sent by another
        process that shares it, or by the next.
        """
        if self._own_session is not None:
            self._own_session.pause()
            self._own_session = None
        if self._alerts is not None:
            self._alerts.close()
        self._engine.store.close()

    def current_session(self) -> Session:
        """Returns the session around the running code, else the guard's own."""
        return self._here().session

    def _here(self) -> Around:
        around = self.around()
        if around is not None:
            return around
        with self._own_lock:
            if self._own_session is None:
                session_id = self._opener.joined or new_id("proc")
                self._own_session = self.session(session_id=session_id)
                self._own_session.activate()
            return Around.of(self._own_session)

    def _wake(self) -> None:
        """Has people told of what a person did."""
        if self._alerts is not None:
            self._alerts.dispatcher.wake(self._configuration.project_id)

    def _opened_alerts(self, store: Store, clock: Clock) -> "AlertSink | None":
        """Has people told, if it is configured where."""
        configuration, policy = self._configuration, self._engine.policy
        if not configuration.alerts.is_on or policy.mode is Mode.OFF:
            return None
        from guardrails.alerts.sink import AlertSink

        sink = AlertSink(
            configuration.alerts,
            project_id=configuration.project_id,
            ask=_Asking(store, self._resilient),
            history=lambda: store.history,
            clock=clock,
            is_shared=not isinstance(store, MemoryStore),
            release=store.close,
        )
        self._engine.sinks = (*self._engine.sinks, sink)
        self._engine.refused = lambda who: sink.dispatcher.wake(who.project_id)
        # Its thread knows no guard: one that is dropped unclosed ends it, too.
        weakref.finalize(self, sink.dispatcher.end).atexit = False
        return sink

    def _open(self, names: Mapping[str, object], *, is_served: bool = False) -> Session:
        """Opens a session for an adapter."""
        return self._opener.open_for_adapter(names, is_served=is_served)

    def enclosing_session(self) -> Session | None:
        """Returns the session around the running code; `None` if there is none."""
        around = self.around()
        return None if around is None else around.session

    def around(self) -> Around | None:
        """Returns what is around the running code; `None` if no session is.

        That is the innermost open session, else that of the tool call around the code,
        else that of the framework's run. A call or a run of that session that is around
        as well knows whom the agent works for, which the session may not; a run that a
        call does not know of has begun inside it.
        """
        session, call = session_of(self._engine), call_of(self._engine)
        around = None if session is None else Around.of(session)
        if call is not None and session in (None, call.session):
            around = Around(call.session, call.attribution)
            if call.attribution.agent_run_id is not None:
                return around
        for adapter in loaded_adapters():
            running = adapter.running(self._engine)
            if running is not None and session in (None, running[0]):
                return Around(*cast("Around", running))
        return around


def _directory() -> Path | None:
    """Returns the working directory; `None` if it has been deleted."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _refuse_beside_policy(**given: object) -> None:
    """Refuses what a ready policy replaces: it would be ignored."""
    for key, value in given.items():
        if value is not None and key not in ("store", "project_id"):
            raise ConfigurationError(
                f"{key}: {shown(value)} is given together with policy=, which replaces "
                "it. Set it in the policy, or leave policy= out."
            )


def _prices_of(configuration: Configuration) -> PriceBook:
    return Prices(models=configuration.model_prices, aliases=configuration.aliases)


def _first_asked(
    store: Store, policy: Policy
) -> tuple[bytes | None, StoreUnavailable | None]:
    """Returns a store's key, or why the guard has to begin without the store.

    Raises:
        StoreUnavailable: If that is not for the policy to decide: it says now, and not
            in the agent, what somebody must mend.
    """
    if policy.mode is Mode.OFF:
        return None, None
    try:
        return off_event_loop(store.secret), None
    except StoreUnavailable as error:
        if not error.may_return or policy.on_store_error is OnStoreError.CLOSED:
            store.close()  # Nobody else will, and the host may try again.
            raise
        return None, error


class _Asking:
    """Asks the store what no call depends on; a failure of that is no outage.

    It holds no guard: alerts are sent in a thread that may live longer.
    """

    def __init__(self, store: Store, resilient: ResilientStore) -> None:
        self._store = store
        self._resilient = weakref.ref(resilient)

    def __call__(self, operation: Operation[R], /) -> R:
        if self._is_away():
            raise StoreUnavailable("store: away. Alerts wait until it is back.")
        return self._store.execute(operation)

    def _is_away(self) -> bool:
        resilient = self._resilient()
        return resilient is not None and resilient.is_degraded


def _checked_store(store: object) -> Store:
    """Returns a store of the user's own, or says that it is none."""
    # Asked of the class: a store is not touched before it is needed.
    if not any(hasattr(type(store), name) for name in ("execute", "__getattr__")):
        raise ConfigurationError(
            f"store: {shown(store)} is neither a URL nor a store. Use "
            '"sqlite", "redis://host:6379/0", or an object with the methods of '
            "guardrails.ports.Store."
        )
    return cast("Store", store)


def _is_url(store: object) -> bool:
    return isinstance(store, str | os.PathLike)


def _close_at_exit(reference: "weakref.ref[Guard]") -> None:
    guard = reference()
    if guard is not None:
        guard.close()
