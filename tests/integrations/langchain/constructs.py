"""The constructs of the matrix: what users build, above all what eats errors.

Each function builds one on a rig and returns it with an input. Work in nodes
and tools has a sync and an async form, so that each mode stays in its world.
"""

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import langchain.agents.middleware as middlewares
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import RetryPolicy

from tests.integrations.langchain.rig import Rig, says, tool_calls

ASK: dict[str, Any] = {"messages": [("user", "go on")]}
NO_WAIT = {"initial_delay": 0.0, "jitter": False}


class Messages(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Turns(TypedDict):
    turns: Annotated[list[str], operator.add]


@dataclass(frozen=True, slots=True, kw_only=True)
class Construct:
    runnable: Runnable[Any, Any]
    value: Any
    """What to call it with."""


def node(run: Callable[[Any], Any], arun: Callable[[Any], Any]) -> Runnable[Any, Any]:
    """A node with both forms."""
    return RunnableLambda(run, afunc=arun)


def plain_model(rig: Rig) -> Construct:
    return Construct(runnable=rig.model(says()), value="go on")


def chain(rig: Rig) -> Construct:
    prompt = ChatPromptTemplate.from_messages([("user", "about {topic}")])
    return Construct(runnable=prompt | rig.model(says()), value={"topic": "tea"})


def with_retry(rig: Rig) -> Construct:
    model = rig.model(says()).with_retry(
        stop_after_attempt=3, wait_exponential_jitter=False
    )
    return Construct(runnable=model, value="go on")


def with_fallbacks(rig: Rig) -> Construct:
    model = rig.model(says()).with_fallbacks([rig.model(says()), rig.model(says())])
    return Construct(runnable=model, value="go on")


def runnable_parallel(rig: Rig) -> Construct:
    branches = {name: rig.model(says()) for name in ("one", "two", "three")}
    return Construct(runnable=RunnableParallel(branches), value="go on")


def agent(rig: Rig, *middleware: Any, times: int = 1) -> Construct:
    model = rig.model(rig.calls_tool(times=times))
    return Construct(
        runnable=create_agent(model, [rig.tool()], middleware=middleware), value=ASK
    )


def parallel_tools(rig: Rig) -> Construct:
    return agent(rig, times=3)


def tool_retry(rig: Rig) -> Construct:
    return agent(rig, middlewares.ToolRetryMiddleware(**NO_WAIT))


def tool_error(rig: Rig) -> Construct:
    return agent(rig, middlewares.ToolErrorMiddleware(lambda error, request: "broken"))


def model_retry(rig: Rig) -> Construct:
    return agent(rig, middlewares.ModelRetryMiddleware(**NO_WAIT))


def model_retry_error(rig: Rig) -> Construct:
    return agent(rig, middlewares.ModelRetryMiddleware(on_failure="error", **NO_WAIT))


def model_fallback(rig: Rig) -> Construct:
    spare = rig.model(rig.calls_tool())
    return agent(rig, middlewares.ModelFallbackMiddleware(spare, spare))


def summarization(rig: Rig) -> Construct:
    model = rig.model(says("a summary"))
    options: dict[str, Any] = {"trigger": ("messages", 4), "keep": ("messages", 2)}
    parameters = inspect.signature(middlewares.SummarizationMiddleware).parameters
    if "summarizer" in parameters:
        # langchain 1.5 retries summaries like this, but waits seconds in between.
        options["summarizer"] = (
            model.with_retry(wait_exponential_jitter=False) | StrOutputParser()
        )
    return agent(rig, middlewares.SummarizationMiddleware(model, **options))


def tool_node_errors(rig: Rig) -> Construct:
    model = rig.model(rig.calls_tool())

    def ask(state: Messages) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def aask(state: Messages) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(Messages)
    graph.add_node("model", node(ask, aask))
    graph.add_node("tools", ToolNode([rig.tool()], handle_tool_errors=True))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return Construct(runnable=graph.compile(), value=ASK)


def _around(
    run: Callable[[Turns], Any], arun: Callable[[Turns], Any], **options: Any
) -> Construct:
    """A graph that runs one node again and again, and another one after it."""
    graph = StateGraph(Turns)
    graph.add_node("work", node(run, arun), **options)
    graph.add_node("rest", node(lambda state: {}, _nothing))
    graph.add_edge(START, "work")
    graph.add_edge("work", "rest")
    graph.add_conditional_edges(
        "rest", lambda state: END if len(state["turns"]) > 9 else "work"
    )
    return Construct(runnable=graph.compile(), value={"turns": []})


async def _nothing(state: Turns) -> Any:
    return {}


def node_retry_policy(rig: Rig) -> Construct:
    model = rig.model(says())

    def work(state: Turns) -> Any:
        return {"turns": [model.invoke("go on").text]}

    async def awork(state: Turns) -> Any:
        return {"turns": [(await model.ainvoke("go on")).text]}

    policy = RetryPolicy(
        initial_interval=0, max_interval=0, jitter=False, retry_on=lambda error: True
    )
    return _around(work, awork, retry_policy=policy)


def except_in_node(rig: Rig) -> Construct:
    model = rig.model(says())

    def work(state: Turns) -> Any:
        try:
            return {"turns": [model.invoke("go on").text]}
        except Exception:  # noqa: BLE001 - what users write
            return {"turns": ["no answer"]}

    async def awork(state: Turns) -> Any:
        try:
            return {"turns": [(await model.ainvoke("go on")).text]}
        except Exception:  # noqa: BLE001 - what users write
            return {"turns": ["no answer"]}

    return _around(work, awork)


def subgraph_as_node(rig: Rig) -> Construct:
    inner = agent(rig).runnable
    graph = StateGraph(Messages)
    graph.add_node("inner", inner)
    graph.add_edge(START, "inner")
    return Construct(runnable=graph.compile(), value=ASK)


def subgraph_in_node(rig: Rig) -> Construct:
    inner = node_retry_policy(rig).runnable

    def work(state: Turns) -> Any:
        return {"turns": inner.invoke({"turns": []})["turns"]}

    async def awork(state: Turns) -> Any:
        return {"turns": (await inner.ainvoke({"turns": []}))["turns"]}

    return _around(work, awork)


def _agent_with_tool(
    rig: Rig, work: Callable[[str], str], awork: Callable[[str], Any]
) -> Construct:
    model = rig.model(rig.calls_tool())
    tool = rig.tool(work=work, awork=awork)
    return Construct(runnable=create_agent(model, [tool]), value=ASK)


def model_in_tool(rig: Rig) -> Construct:
    model = rig.model(says("nothing found"))

    def work(q: str) -> str:
        return model.invoke(q).text

    async def awork(q: str) -> str:
        return (await model.ainvoke(q)).text

    return _agent_with_tool(rig, work, awork)


def except_in_tool(rig: Rig) -> Construct:
    model = rig.model(says("nothing found"))

    def work(q: str) -> str:
        for _ in range(3):
            try:
                return model.invoke(q).text
            except Exception:  # noqa: BLE001 - what users write
                continue
        return "no answer"

    async def awork(q: str) -> str:
        for _ in range(3):
            try:
                return (await model.ainvoke(q)).text
            except Exception:  # noqa: BLE001 - what users write
                continue
        return "no answer"

    return _agent_with_tool(rig, work, awork)


def agent_in_tool(rig: Rig) -> Construct:
    inner = create_agent(
        rig.model(rig.calls_once("lookup")), [rig.tool("lookup")], name="inner"
    )

    def work(q: str) -> str:
        return inner.invoke(ASK)["messages"][-1].text

    async def awork(q: str) -> str:
        return (await inner.ainvoke(ASK))["messages"][-1].text

    return _agent_with_tool(rig, work, awork)


def deep_agent(rig: Rig) -> Construct:
    def delegates(number: int, messages: Any) -> AIMessage:
        answer = tool_calls(("task", ""), turn=number)
        answer.tool_calls[0]["args"] = {
            "description": "look it up" if rig.repeats else f"look up {number}",
            "subagent_type": "helper",
        }
        return answer

    class NotesTask(middlewares.AgentMiddleware):
        """Deepagents' own tool runs as often as the agent behind it starts."""

        def before_agent(self, state: Any, runtime: Any) -> None:
            rig.record.note("tool")

    helper = {
        "name": "helper",
        "description": "Looks things up.",
        "system_prompt": "Look it up.",
        "model": rig.model(rig.calls_once()),
        "tools": [rig.tool()],
        "middleware": [NotesTask()],
    }
    graph = create_deep_agent(rig.model(delegates), subagents=[helper])
    return Construct(runnable=graph, value=ASK)


CONSTRUCTS: dict[str, Callable[[Rig], Construct]] = {
    build.__name__: build
    for build in (
        plain_model,
        chain,
        with_retry,
        with_fallbacks,
        runnable_parallel,
        agent,
        parallel_tools,
        tool_retry,
        tool_error,
        model_retry,
        model_retry_error,
        model_fallback,
        summarization,
        tool_node_errors,
        node_retry_policy,
        except_in_node,
        subgraph_as_node,
        subgraph_in_node,
        model_in_tool,
        except_in_tool,
        agent_in_tool,
        deep_agent,
    )
    if build is not tool_error or hasattr(middlewares, "ToolErrorMiddleware")
}

TOOLLESS = frozenset(
    {
        "plain_model",
        "chain",
        "with_retry",
        "with_fallbacks",
        "runnable_parallel",
        "node_retry_policy",
        "except_in_node",
        "subgraph_in_node",
    }
)
"""Constructs that call no tools, so cannot repeat a tool call."""
