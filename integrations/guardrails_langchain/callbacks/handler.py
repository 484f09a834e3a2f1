"""The callback handler: enforces at every model and tool start.

It is synchronous, runs inline and raises (`raise_error`), because everything
else is not enforcement: LangChain swallows what asynchronous handlers raise on
synchronous paths, and ships handlers that are not inline to a thread pool that
can starve. Measured in microseconds, it does not hold up an event loop.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ParamSpec, Self, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from guardrails import Guard
from guardrails.core.attribution import clean_name
from guardrails.core.calls import CallStatus, ModelCall, Outcome, ToolCall
from guardrails.core.plain import size_bytes
from guardrails.core.tracebacks import interrupt_in
from guardrails.core.usage import TokenUsage
from guardrails.engine import Engine
from guardrails.errors import CallRefused, LoopRefused, SessionStopped
from guardrails.guards import checked_guard
from guardrails.sessions.guarded_call import GuardedCall
from guardrails_langchain.callbacks.bubbles import (
    as_answer,
    as_bubble,
    close_unstarted,
    is_control_flow,
    is_interrupt,
    is_left,
)
from guardrails_langchain.callbacks.decisions import (
    decision_call,
    is_decision,
    outcome_of_decision,
)
from guardrails_langchain.callbacks.offers import offer_to
from guardrails_langchain.callbacks.run import Run
from guardrails_langchain.callbacks.runs import RunTree, withdraw
from guardrails_langchain.reading import translate
from guardrails_langchain.reading.answers import Answer

__all__ = ["CallsHandler", "GuardCallbackHandler", "handler_for", "tree_of"]

P = ParamSpec("P")

CONTEXTS_MAX = 8
"""Errors behind an error that are looked at."""

_TREE = "guardrails_langchain.tree"
_HANDLER = "guardrails_langchain.handler"


def _contained(hook: Callable[P, None]) -> Callable[P, None]:
    """Lets only stops and refusals out of a hook; the host must not break.

    Where one ends in its middle, also by an interrupt, its call is booked all the same.
    """

    @functools.wraps(hook)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        handler = args[0]
        assert isinstance(handler, GuardCallbackHandler)
        run_id = cast("UUID", kwargs["run_id"])  # Or a text, as LangServe passes it.
        call = handler.call_of(run_id)  # At the end nobody else knows it any more.
        try:
            hook(*args, **kwargs)
        except (SessionStopped, CallRefused):
            raise
        except BaseException as error:
            if call is not None:
                call.leave_scope()
                call.finish(Outcome())
            elif interrupt_in(error) is not None:
                withdraw(run_id)  # The host makes no call then.
            handler.engine.contain(error, f"the hook {hook.__name__}")
            stop = _masked_by(error)
            if stop is not None:
                raise stop from None

    return run


def _masked_by(error: BaseException) -> SessionStopped | CallRefused | None:
    """Returns the stop that was on its way when something of ours failed."""
    for _ in range(CONTEXTS_MAX):
        context = error.__context__
        if context is None:
            return None
        if isinstance(context, SessionStopped):
            return as_bubble(context)
        if isinstance(context, CallRefused):
            return context
        error = context
    return None


class GuardCallbackHandler(BaseCallbackHandler):
    """Guards all runs that it is passed to, and everything below them.

    For `config={"callbacks": [GuardCallbackHandler(guard)]}`. Inside
    `guard.session(...)` nothing need be passed. Used several times on one run,
    also together with a session or `GuardMiddleware`, it counts once.

    A root run outside any session opens one: its id is `session_id` or
    `langfuse_session_id` of the run's metadata, else the thread's id, else new.

    Args:
        guard: The guard.
        agent: Who acts; chooses the budget. By default LangChain's agent name.
        names: `customer_id, user_id, feature, prompt_version, session_id,
            tags`, as for `Guard.session`. They win over metadata.
    """

    raise_error = True
    run_inline = True

    def __init__(self, guard: Guard, *, agent: str | None = None, **names: Any) -> None:
        checked_guard(guard, called="GuardCallbackHandler")
        guard.session(agent, **names)  # Refuses bad names here.
        given = {"agent": agent, **names}
        self._attach(guard.engine, {k: v for k, v in given.items() if v is not None})

    @classmethod
    def of_engine(
        cls, engine: Engine, options: Mapping[str, object] | None = None
    ) -> Self:
        """Returns a handler for the sessions of a guard, which bring their names."""
        handler = cls.__new__(cls)
        super(GuardCallbackHandler, handler).__init__()
        handler._attach(engine, options or {})
        return handler

    def _attach(self, engine: Engine, options: Mapping[str, object]) -> None:
        self.engine = engine
        self._options = options
        self._tree = tree_of(engine)

    def call_of(self, run_id: UUID) -> GuardedCall | None:
        """Returns the call of a run that is being followed, if it makes one."""
        run = self._tree.find(run_id)
        return None if run is None else run.call

    def __deepcopy__(self, memo: object) -> Self:
        """Returns itself: a copy of a configuration is guarded by the same."""
        return self

    # --- chains -------------------------------------------------------------

    @_contained
    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Follows the run, and reserves it if it is a model's; see `decisions.py`.

        Of another it raises only if a stop was swallowed above it.
        """
        run = self._start(run_id, parent_run_id, metadata)
        if run is None:
            return
        if run.above is not None and run.above.stop is not None:
            self._tree.end(run_id)  # It gets no end event.
            raise self._raised(run.above.stop, run)
        if is_decision(metadata, kwargs):
            run.is_decision = True
            self._gate(run, decision_call(inputs, metadata))
            self._tree.watch(run)

    @_contained
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Raises a stop again that this run swallowed."""
        run = self._tree.end(run_id)
        if run is None:
            return
        if run.is_decision:
            run.book(outcome_of_decision(outputs))
        has_code_around = run.above is not None or run.frame.is_entered
        if run.stop is not None and has_code_around and is_left():
            self._failed(run, GeneratorExit())
            return
        self._ended(run)
        if run.stop is not None:
            raise self._raised(run.stop, run)

    @_contained
    def on_chain_error(
        self, error: BaseException, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Follows a stop on its way out."""
        run = self._tree.end(run_id)
        if run is not None and run.is_decision:
            run.book(translate.outcome_of_llm_error(error, None))
        self._failed(run, error)

    # --- models -------------------------------------------------------------

    @_contained
    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reserves a model call."""
        run = self._start(run_id, parent_run_id, metadata)
        if run is not None:
            self._gate_model(run, serialized, metadata, kwargs, messages=messages)
            self._tree.watch(run)

    @_contained
    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reserves a call of a text-completion model."""
        run = self._start(run_id, parent_run_id, metadata)
        if run is not None:
            self._gate_model(run, serialized, metadata, kwargs, prompts=prompts)

    def on_llm_new_token(
        self, token: object, *, chunk: object = None, run_id: UUID, **kwargs: Any
    ) -> None:
        """Counts what a stream brings: it may be left without a word."""
        run = self._tree.find(run_id)
        if run is not None:
            try:
                run.received_tokens_max += translate.chunk_tokens_max(token, chunk)
                if translate.has_report(chunk):
                    run.reports.append(chunk)
                run.has_finished = run.has_finished or translate.is_last(chunk)
            except Exception as error:  # The stream goes on, and its call with it.
                self.engine.contain(error, "counting what a stream brings")

    @_contained
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Books a model call. Never raises: its answer is paid for."""
        run = self._tree.end(run_id)
        if run is None or run.call is None:
            return
        has_streamed, answer = run.received_tokens_max > 0, Answer(response)
        if not has_streamed and translate.is_cache_hit(answer, run_id=run_id):
            run.give_back()  # LangChain's own cache answered; nothing was sent.
        else:
            if translate.is_report_of_batch(answer):
                for other in self._tree.batch(run):
                    other.is_billed_in_batch = True
            outcome = translate.outcome_of_llm_end(response, run.reports)
            if run.is_billed_in_batch and outcome.usage is None:
                outcome = replace(outcome, usage=TokenUsage())
            run.book(outcome)
        self._ended(run)

    @_contained
    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Books a model call that failed or was broken off."""
        run = self._tree.end(run_id)
        if run is not None and run.call is not None:
            response = kwargs.get("response")
            run.book(translate.outcome_of_llm_error(error, response, run.reports))
        self._failed(run, error)

    # --- tools --------------------------------------------------------------

    @_contained
    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reserves a tool call."""
        run = self._start(run_id, parent_run_id, metadata)
        if run is not None:
            arguments = input_str if inputs is None else inputs
            self._gate(run, self._tool_call(run, serialized, arguments, kwargs))
            self._tree.watch(run)
            assert run.call is not None
            run.call.enter_scope(is_offered=True)

    @_contained
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Books a tool call."""
        run = self._tree.end(run_id)
        if run is None or run.call is None:
            return
        run.book(self._tool_outcome(run, output))
        if run.stop is not None and run.above is not None:
            run.above.stop = run.stop  # The tool swallowed it; its node may not.
        self._ended(run)

    @_contained
    def on_tool_error(
        self, error: BaseException, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Books a tool call that failed; one that waits for a person runs again."""
        run = self._tree.end(run_id)
        if run is not None and run.call is not None:
            if is_interrupt(error):
                run.give_back()
            else:
                run.book(self._tool_failure(run, error))
        self._failed(run, error)

    # --- the gate -----------------------------------------------------------

    def _start(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any] | None,
    ) -> Run | None:
        return self._tree.start(
            run_id,
            parent_run_id=parent_run_id,
            metadata=metadata,
            options=self._options,
        )

    def _gate_model(
        self,
        run: Run,
        serialized: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        kwargs: Mapping[str, Any],
        *,
        messages: list[list[BaseMessage]] | None = None,
        prompts: list[str] | None = None,
    ) -> None:
        call = translate.model_call(
            serialized=serialized,
            messages=messages,
            prompts=prompts,
            invocation_params=kwargs.get("invocation_params"),
            metadata=metadata,
        )
        run.batch = _batch(kwargs)
        self._gate(run, call)

    def _gate(self, run: Run, call: ModelCall | ToolCall) -> None:
        """Lets a call pass, or raises before it is made."""
        if isinstance(call, ModelCall):
            for above in run.deciding:
                above.give_back()  # It asks this model, and sends nothing itself.
        try:
            run.call = self._admitted(run, call)
        except SessionStopped as stop:
            self._refused(run)
            run.root.stops[run.session] = stop
            if (offer := offer_to(run.session)) is not None:
                offer.stop = stop
            raise self._raised(stop, run) from None
        except LoopRefused as refusal:
            self._refused(run)
            raise as_answer(refusal) from None
        except CallRefused:
            self._refused(run)
            raise

    def _admitted(self, run: Run, call: ModelCall | ToolCall) -> GuardedCall:
        """Reserves a call, as the middleware around it offers if one does."""
        offer = None if run.is_decision else offer_to(run.session)
        if offer is not None and isinstance(call, ModelCall):
            return offer.admit(run, call)
        if run.latched is not None:
            raise run.latched
        return run.session.begin(call, attribution=run.attribution)

    def _refused(self, run: Run) -> None:
        """Forgets a run that gets no end event, and gives back its batch.

        LangChain reports all starts of `generate([...])` before the first call, so
        one that is refused means that none of them is made.
        """
        close_unstarted()
        withdraw(run.run_id)
        for other in self._tree.batch(run):
            withdraw(other.run_id)

    def _raised(self, stop: SessionStopped, run: Run) -> SessionStopped:
        """Notes that a stop leaves a run, and returns it in the form to raise."""
        if run.above is None:
            run.frame.unsurfaced = None  # It reaches the code of the frame.
        else:
            run.above.stop = stop
            run.frame.unsurfaced = as_bubble(stop)
        return as_bubble(stop)

    def _failed(self, run: Run | None, error: BaseException) -> None:
        """Follows a stop through a run that ended with an error."""
        if run is None:
            return
        if run.stop is not None and run.above is not None:
            run.above.stop = run.stop
        elif run.stop is not None and isinstance(error, SessionStopped):
            run.frame.unsurfaced = None  # It reaches the code of the frame.
        if is_interrupt(error):
            run.root.is_waiting = True
        self._ended(run)

    def _ended(self, run: Run) -> None:
        """Stops the clock of a session that is over, or waits for a person.

        The end of a chain with the id of a call is all that is heard of that call.
        """
        run.book(Outcome())  # Does nothing if it is booked, as most are.
        if run.parent is None and (run.root.owns_session or run.root.is_waiting):
            run.session.pause()

    # --- translating --------------------------------------------------------

    def _tool_call(
        self,
        run: Run,
        serialized: Mapping[str, Any] | None,
        arguments: object,
        kwargs: Mapping[str, Any],
    ) -> ToolCall:
        name = (
            clean_name((serialized or {}).get("name") or kwargs.get("name")) or "tool"
        )
        origin = self.engine.charges.origin(name)
        call_id = kwargs.get("tool_call_id")
        call = ToolCall(
            tool=origin.tool,
            server=origin.server,
            call_id=call_id if isinstance(call_id, str) else None,
            bytes_in=size_bytes(arguments),
        )
        digest = self._digest(run, arguments, call.name)
        return replace(call, arguments_digest=digest)

    def _digest(self, run: Run, arguments: object, label: str) -> str | None:
        if run.session.is_exempt(label):
            return None
        return run.session.fingerprint(arguments, label=label, is_result=False)

    def _tool_outcome(self, run: Run, output: object) -> Outcome:
        assert run.call is not None
        assert isinstance(run.call.call, ToolCall)
        return translate.outcome_of_tool_end(
            output, key=self.engine.fingerprint_key, label=run.call.call.name
        )

    def _tool_failure(self, run: Run, error: BaseException) -> Outcome:
        assert run.call is not None
        assert isinstance(run.call.call, ToolCall)
        # Neither of these says anything about the tool's own result.
        if isinstance(error, SessionStopped):
            return Outcome(status=CallStatus.ERROR)
        if is_control_flow(error):
            return Outcome()
        return translate.outcome_of_tool_error(
            error, key=self.engine.fingerprint_key, label=run.call.call.name
        )


class CallsHandler(GuardCallbackHandler):
    """Guards calls alone, each as a run of its own."""

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Follows no chain that is no call."""
        if is_decision(metadata, kwargs):
            super().on_chain_start(serialized, inputs, metadata=metadata, **kwargs)


def _batch(kwargs: Mapping[str, Any]) -> object | None:
    """Returns what the starts of one `generate([...])` have in common."""
    size = kwargs.get("batch_size")
    return kwargs.get("invocation_params") if size and size > 1 else None


def tree_of(engine: Engine) -> RunTree:
    """Returns the one tree of runs of a guard."""
    tree = engine.attachments.setdefault(_TREE, RunTree(engine))
    assert isinstance(tree, RunTree)
    return tree


def handler_for(engine: Engine) -> GuardCallbackHandler:
    """Returns the one handler that a guard's sessions use."""
    known = engine.attachments.get(_HANDLER)
    if known is None:
        handler = GuardCallbackHandler.of_engine(engine)
        known = engine.attachments.setdefault(_HANDLER, handler)
    assert isinstance(known, GuardCallbackHandler)
    return known


_HANDLERS = frozenset({CallsHandler.__name__, GuardCallbackHandler.__name__})


class _StopFilter(logging.Filter):
    """Drops LangChain's warning about a stop: the stop itself says it better."""

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args
        return not (
            isinstance(args, tuple)
            and len(args) == 3
            and str(args[0]) in _HANDLERS
            and isinstance(args[2], str | SessionStopped | CallRefused)
        )


logging.getLogger("langchain_core.callbacks.manager").addFilter(_StopFilter())
