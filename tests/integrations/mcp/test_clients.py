"""Clients: guarded whenever they connect, and the same objects to their users."""

import asyncio
import copy
from typing import Any

import pytest
from mcp import ClientSession, ClientSessionGroup, types

from guardrails import BudgetExceeded, ConfigurationError, Guard, SessionStopped
from tests.integrations.mcp.peers import (
    FIRST,
    Seen,
    connected,
    events,
    own_session,
    second_only,
    server,
    session_of,
    text_of,
)

NAMES: dict[str, Any] = {"agent": "support", "server": "geo-mcp", "session_id": "s-1"}


def guarded(**limits: Any) -> Guard:
    return Guard({}, store="memory://", **limits)


def clients(app: Any) -> "dict[str, Any]":
    """A client of every kind."""
    import fastmcp
    from mcp import Client

    return {
        "auto": Client(app),
        "legacy": Client(app, mode="legacy"),
        "fastmcp": fastmcp.Client(app),
        "fastmcp-legacy": fastmcp.Client(app, mode="legacy"),
    }


KINDS = ["auto", "legacy", "fastmcp", "fastmcp-legacy"]


# --- clients of SDK 2.x and FastMCP -----------------------------------------


@second_only
@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_wrapped_before_it_connects_is_guarded(kind: str) -> None:
    seen, guard = Seen(), guarded(max_steps=3)
    client = clients(server(seen))[kind]
    bare = type(client)

    assert guard.wrap(client, **NAMES) is client
    assert isinstance(client, bare)
    async with client as entered:
        assert entered is client
        calls = [client.call_tool("echo", {"q": f"{n}"}) for n in range(9)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(SessionStopped):
            await client.session.call_tool("echo", {"q": "below"})

    assert sum(isinstance(result, SessionStopped) for result in results) == 6
    assert len(seen.calls) == 3
    assert own_session(guard).status == "budget_exceeded"


@second_only
@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_wrapped_while_connected_is_guarded(kind: str) -> None:
    seen, guard = Seen(), guarded(max_steps=2)
    client = clients(server(seen))[kind]

    async with client:
        held = client.session
        await client.call_tool("echo", {"q": "before"})
        guard.wrap(client, **NAMES)
        await client.call_tool("echo", {"q": "a"})
        await held.call_tool("echo", {"q": "b"})
        with pytest.raises(BudgetExceeded):
            await client.call_tool("echo", {"q": "c"})

    assert len(seen.calls) == 3


@second_only
async def test_a_client_that_connects_again_keeps_its_budget() -> None:
    import fastmcp

    seen, guard = Seen(), guarded(max_steps=2)
    client = guard.wrap(fastmcp.Client(server(seen)), server="geo-mcp")

    for q in "ab":
        async with client:
            await client.call_tool("echo", {"q": q})
    async with client:
        with pytest.raises(BudgetExceeded):
            await client.call_tool("echo", {"q": "c"})


@second_only
async def test_a_clone_is_no_way_around_the_budget() -> None:
    import fastmcp

    seen, guard = Seen(), guarded(max_steps=3)
    client = guard.wrap(fastmcp.Client(server(seen)), server="geo-mcp")
    clones = [client.new(), client.new()]

    async with client, clones[0], clones[1]:
        for one in (client, *clones):
            await one.call_tool("echo", {"q": one.name})
        for one in (client, *clones):
            with pytest.raises(SessionStopped):
                await one.call_tool("echo", {"q": one.name})
    assert clones[0].new().name != client.name


@second_only
async def test_a_clone_may_be_given_names_of_its_own() -> None:
    import fastmcp

    guard = guarded()
    client = guard.wrap(fastmcp.Client(server(Seen())), customer_id="acme")
    clone = guard.wrap(client.new(), customer_id="globex", session_id="s-1")

    async with client, clone:
        await client.call_tool("echo", {"q": "a"})
        await clone.call_tool("echo", {"q": "b"})

    assert [event.attribution.customer_id for event in events(guard)] == ["globex"]


@second_only
async def test_a_group_of_fastmcp_is_guarded_member_by_member() -> None:
    import fastmcp
    from fastmcp.client.group import ClientGroup

    seen, guard = Seen(), guarded(max_steps=2)
    group = ClientGroup({"geo": fastmcp.Client(server(seen))})

    assert guard.wrap(group, session_id="s-1") is group
    async with group:
        await group.list_tools()
        for q in "ab":
            await group.call_tool("geo_echo", {"q": q})
        with pytest.raises(BudgetExceeded):
            await group.call_tool("geo_echo", {"q": "c"})

    assert len(seen.calls) == 2
    assert {(event.server, event.tool) for event in events(guard)} == {("geo", "echo")}


@second_only
async def test_over_http_a_client_is_guarded_too() -> None:
    import uvicorn
    from mcp import Client

    from tests.servers.processes import free_port

    seen, guard, port = Seen(), guarded(max_steps=2), free_port()
    app = server(seen).streamable_http_app()
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="error")
    http = uvicorn.Server(config)
    task = asyncio.create_task(http.serve())
    while not http.started:
        await asyncio.sleep(0.01)

    async with guard.wrap(Client(f"http://127.0.0.1:{port}/mcp"), **NAMES) as client:
        for q in "ab":
            await client.call_tool("echo", {"q": q})
        with pytest.raises(BudgetExceeded):
            await client.call_tool("echo", {"q": "c"})
    http.should_exit = True
    await task

    assert len(seen.calls) == 2


# --- sessions and groups ----------------------------------------------------


async def test_a_session_wrapped_before_it_is_entered_is_guarded() -> None:
    seen, guard = Seen(), guarded(max_steps=1)
    early = connected(
        server(seen), lambda s: guard.wrap(s, session_id="s-1"), early=True
    )

    async with early as session:
        await session.call_tool("echo", {"q": "a"})
        with pytest.raises(BudgetExceeded):
            await session.call_tool("echo", {"q": "b"})

    (event,) = events(guard)
    assert event.server == "geo"  # As it calls itself.


async def test_every_session_of_a_group_is_guarded_also_later_ones() -> None:
    seen, guard = Seen(), guarded(max_steps=3)
    apps = [server(seen, name) for name in ("one", "other")]
    group = ClientSessionGroup(
        component_name_hook=lambda name, info: f"{info.name}_{name}"
    )

    async with connected(apps[0]) as first, connected(apps[1]) as second:
        infos = [types.Implementation(name=n, version="1") for n in ("one", "other")]
        await group.connect_with_session(infos[0], first)
        assert guard.wrap(group, session_id="s-1") is group
        await group.connect_with_session(infos[1], second)
        await group.call_tool("one_echo", {"q": "a"})
        await group.call_tool("other_echo", {"q": "b"})
        await first.call_tool("echo", {"q": "c"})
        for name in ("one_echo", "other_echo"):
            with pytest.raises(SessionStopped):
                await group.call_tool(name, {"q": "d"})

    assert len(seen.calls) == 3
    assert events(guard)[1].server == "other"


# --- wrapping, again and undone ---------------------------------------------


async def test_wrapped_twice_it_counts_once_and_new_names_win() -> None:
    guard = guarded()

    async with connected(server(Seen())) as session:
        for _ in range(2):
            assert guard.wrap(session, **NAMES, customer_id="acme") is session
        await session.call_tool("echo", {"q": "a"})
        guard.wrap(session, customer_id="globex")
        await session.call_tool("echo", {"q": "b"})

    names = [(e.attribution.customer_id, e.attribution.agent) for e in events(guard)]
    assert names == [("acme", "support"), ("globex", "support")]
    assert own_session(guard).steps == 2


async def test_wrapped_by_two_guards_it_counts_for_both() -> None:
    """A call that one of them refuses is not charged by the other."""
    seen, strict, lax = Seen(), guarded(max_steps=1), guarded(max_steps=9)

    for guards in ((strict, lax), (lax, strict)):
        async with connected(server(seen)) as session:
            for guard in guards:
                guard.wrap(session, session_id=f"s-{guards.index(lax)}")
            await session.call_tool("echo", {"q": "a"})
            with pytest.raises(BudgetExceeded):
                await session.call_tool("echo", {"q": "b"})

    assert len(seen.calls) == 2
    for session_id in ("s-0", "s-1"):
        assert len(events(lax, session_id)) == 1
        account = lax.account(session_id)
        assert account is not None
        assert account.steps == 1


async def test_unwrapped_it_is_as_before() -> None:
    seen, one, other = Seen(), guarded(max_steps=0), guarded(max_steps=0)

    async with connected(server(seen)) as session:
        before = dict(vars(session))
        one.wrap(session)
        other.wrap(session)
        assert one.unwrap(session) is session
        with pytest.raises(BudgetExceeded):
            await session.call_tool("echo", {"q": "a"})
        assert other.unwrap(session) is session
        assert type(session) is ClientSession
        assert vars(session).keys() == before.keys()
        assert text_of(await session.call_tool("echo", {"q": "a"})) == "found a"
        with pytest.raises(ConfigurationError, match="not wrapped by this guard"):
            one.unwrap(session)


@second_only
@pytest.mark.parametrize("kind", KINDS)
async def test_an_unwrapped_client_s_session_is_bare_too(kind: str) -> None:
    guard = guarded(max_steps=0)
    client = clients(server(Seen()))[kind]
    bare = type(client)

    async with client:
        inner = type(client.session)
        guard.wrap(client)
        guard.unwrap(client)
        assert (type(client), type(client.session)) == (bare, inner)
        await client.call_tool("echo", {"q": "a"})


async def test_the_class_looks_the_same_and_is_made_once() -> None:
    guard = guarded()

    async with connected(server(Seen())) as one, connected(server(Seen())) as other:
        guard.wrap(one)
        guard.wrap(other)
        assert type(one) is type(other)
        assert isinstance(one, ClientSession)
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            assert getattr(type(one), name) == getattr(ClientSession, name)
        assert type(copy.copy(one)) is type(one)


@pytest.mark.parametrize("target", [object(), "text", print, {}], ids="abcd")
def test_what_is_no_client_is_refused(target: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^wrap: no integration"):
        guarded().wrap(target)


@pytest.mark.parametrize(
    "names", [{"agent": ""}, {"server": "a\nb"}, {"tags": {"a": ""}}], ids=str
)
async def test_a_bad_name_is_refused_when_wrapping(names: Any) -> None:
    async with connected(server(Seen())) as session:
        with pytest.raises(ConfigurationError):
            guarded().wrap(session, **names)
        assert type(session) is ClientSession


async def test_a_session_of_a_class_of_one_s_own_is_guarded() -> None:
    seen, guard = Seen(), guarded(max_steps=1)

    class Own(ClientSession):
        async def send_request(self, *args: Any, **kwargs: Any) -> Any:
            seen.calls.append("own")
            return await super().send_request(*args, **kwargs)

    async with connected(server(seen), guard.wrap, kind=Own) as session:
        await session.call_tool("echo", {"q": "a"})
        before = len(seen.calls)
        with pytest.raises(BudgetExceeded):
            await session.call_tool("echo", {"q": "b"})

    assert isinstance(session, Own)
    assert len(seen.calls) == before


async def test_a_child_process_gets_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GUARDRAILS_MAX_STEPS", "7")
    guard = guarded(max_cost_usd="0.50")
    with guard.session("support", customer_id="acme", tags={"env": "prod"}) as s:
        env = guard.child_env()

    assert env == {
        "GUARDRAILS_AGENT": "support",
        "GUARDRAILS_AGENT_PATH": "support",
        "GUARDRAILS_CUSTOMER_ID": "acme",
        "GUARDRAILS_MAX_COST_USD": "0.5",
        "GUARDRAILS_MAX_STEPS": "7",
        "GUARDRAILS_PROJECT_ID": "default",
        "GUARDRAILS_SESSION_ID": s.session_id,
        "GUARDRAILS_STORE": "memory://",
        "GUARDRAILS_TAGS": "env=prod",
    }


def test_the_major_that_is_tested_is_said(request: pytest.FixtureRequest) -> None:
    """Skipped tests name the other one."""
    assert FIRST is not hasattr(ClientSession, "dispatch_input_request")


async def test_the_own_session_of_an_object_is_guarded_on_its_own() -> None:
    """Without a session around it, each object that is wrapped has its budget."""
    seen, guard = Seen(), guarded(max_steps=1)

    for _ in range(2):
        async with session_of(guard, server(seen)) as session:
            await session.call_tool("echo", {"q": "a"})
            with pytest.raises(BudgetExceeded):
                await session.call_tool("echo", {"q": "b"})

    assert len(seen.calls) == 2
