"""Limits hold through the proxy, over processes; refusals are answers like others."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.integrations.mcp_stdio.conftest import Run
from tests.integrations.mcp_stdio.hosts import Host, call, line, request, scripted
from tests.servers.processes import Server, binaries

REFUSAL = "guardrails.runtime/refusal"

LIMITED = """
tools: {srv/echo: {cost_per_call_usd: 0.01}}
defaults: {session: {max_steps: 3}}
"""


def served(path: Path) -> int:
    """Returns how many calls have reached the servers."""
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def is_refused(answer: Any) -> bool:
    return REFUSAL in answer["result"].get("_meta", {})


def baggage(**names: str) -> dict[str, Any]:
    text = ",".join(f"guardrails.{key}={name}" for key, name in names.items())
    return {"_meta": {"baggage": text}}


def test_a_refused_call_is_an_answer_and_the_session_goes_on(
    proxied: Run, configured: Run, guardrails: Run, tmp_path: Path
) -> None:
    configured(LIMITED)
    count = tmp_path / "count"
    host = proxied(*scripted("serve"), COUNT_FILE=str(count))

    answers = [host.ask(call(n, arguments={"n": n})) for n in range(6)]

    assert [is_refused(answer) for answer in answers] == [False] * 3 + [True] * 3
    refused = answers[3]
    assert refused["id"] == 3
    assert refused["result"]["isError"] is True
    assert "guardrails refused it" in refused["result"]["content"][0]["text"]
    facts = refused["result"]["_meta"][REFUSAL]
    assert (facts["error"], facts["final"]) == ("BudgetExceeded", True)
    assert served(count) == 3
    assert host.ask(request(7, "ping"))["result"] == {}
    assert host.ask(request(8, "tools/list"))["result"]["tools"]
    assert host.end() == 0
    [row] = guardrails("costs", "--by", "tool")["rows"]
    assert (row["tool"], row["tool_calls"], row["cost_usd"]) == ("srv/echo", 3, "0.03")


def test_of_a_batch_only_the_refused_member_is_missing(
    proxied: Run, configured: Run, tmp_path: Path
) -> None:
    configured("defaults: {session: {max_steps: 1}}\n")
    count = tmp_path / "count"
    host = proxied(*scripted("serve"), COUNT_FILE=str(count))

    batch = [json.loads(call(1)), json.loads(call("2")), json.loads(request(3, "ping"))]
    host.send(line(batch))

    answers = [host.next() for _ in range(3)]
    [[refused]] = [one for one in answers if isinstance(one, list)]
    assert (refused["id"], is_refused(refused)) == ("2", True)
    assert {one["id"] for one in answers if isinstance(one, dict)} == {1, 3}
    assert served(count) == 1


def test_a_loop_is_stopped_at_the_same_call_each_time(
    proxied: Run, configured: Run, tmp_path: Path
) -> None:
    configured("defaults: {loop: {repeats: 4, action: stop}}\n")
    count = tmp_path / "count"
    host = proxied(*scripted("serve"), COUNT_FILE=str(count))
    sessions = [baggage(session_id=f"s{number}") for number in range(50)]

    answers = [[host.ask(call(n, **names)) for n in range(5)] for names in sessions]

    # Whether the fifth is refused depends on how the fourth was answered.
    expected = [False] * 4 + [True]
    assert [[is_refused(a) for a in one] for one in answers] == [expected] * 50
    assert served(count) == 200


def spend(host: Host, calls: int) -> list[bool]:
    """Makes calls with some in flight, and returns which were refused."""
    for number in range(calls):
        host.send(call(number, arguments={"n": number}))
    return [is_refused(host.next()) for _ in range(calls)]


def spend_together(hosts: list[Host], calls: int) -> int:
    """Lets several hosts spend at the same time; returns how many were refused."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return sum(sum(all_) for all_ in pool.map(lambda h: spend(h, calls), hosts))


def test_processes_that_share_a_budget_pass_exactly_its_limit(
    proxied: Run, configured: Run, guardrails: Run, balance: Run, tmp_path: Path
) -> None:
    configured(
        "tools: {srv/echo: {cost_per_call_usd: 0.01}}\n"
        "budgets: [{name: day, per: [customer_id], every: day, max_cost_usd: 0.5}]\n"
    )
    count = tmp_path / "count"
    names = {"COUNT_FILE": str(count), "GUARDRAILS_CUSTOMER_ID": "acme"}
    hosts = [proxied(*scripted("serve"), **names) for _ in range(4)]

    refused = spend_together(hosts, 30)

    assert refused == 120 - 50
    assert served(count) == 50
    assert [host.end() for host in hosts] == [0] * 4
    spent = guardrails("costs", "--by", "tool")
    assert (spent["tool_calls"], spent["cost_usd"]) == (50, "0.50")
    assert balance() == "ok"


def test_redis_holds_the_limit_as_well(
    proxied: Run, configured: Run, tmp_path: Path
) -> None:
    configured("budgets: [{name: all, per: [], every: total, max_tool_calls: 25}]\n")
    count = tmp_path / "count"
    with Server(next(iter(binaries().values()))) as server:
        names = {"COUNT_FILE": str(count), "GUARDRAILS_STORE": server.url}
        hosts = [proxied(*scripted("serve"), **names) for _ in range(2)]

        refused = spend_together(hosts, 20)

        assert [host.end() for host in hosts] == [0] * 2
    assert (refused, served(count)) == (15, 25)


def test_a_server_starts_while_redis_is_down(
    proxied: Run, configured: Run, guardrails: Run
) -> None:
    configured("defaults: {session: {max_tool_calls: 2}}\n")
    with Server(next(iter(binaries().values()))) as server:
        where = {"GUARDRAILS_STORE": server.url}
        server.kill()
        host = proxied(*scripted("serve"), **where)

        answers = [host.ask(call(n, arguments={"n": n})) for n in range(3)]

        assert [is_refused(answer) for answer in answers] == [False, False, True]
        server.start()
        assert host.end() == 0
        [row] = guardrails("costs", "--by", "tool", **where)["rows"]
    assert (row["tool"], row["tool_calls"]) == ("srv/echo", 2)


def test_baggage_beats_the_environment_and_that_the_process(
    proxied: Run, configured: Run, guardrails: Run
) -> None:
    configured("defaults: {session: {max_steps: 2}}\n")
    first = proxied(*scripted("serve"), GUARDRAILS_SESSION_ID="env")
    other = proxied(*scripted("serve"), GUARDRAILS_SESSION_ID="env")
    named = baggage(session_id="bag", customer_id="acme")

    assert not is_refused(first.ask(call(1, arguments={"n": 1})))
    assert not is_refused(other.ask(call(2, arguments={"n": 2})))
    assert is_refused(first.ask(call(3, arguments={"n": 3})))
    assert not is_refused(first.ask(call(4, arguments={"n": 4}, **named)))
    assert not is_refused(other.ask(call(5, arguments={"n": 5}, **named)))
    assert is_refused(other.ask(call(6, arguments={"n": 6}, **named)))
    third = proxied(*scripted("serve"))
    assert not is_refused(third.ask(call(7, arguments={"n": 7})))

    assert [host.end() for host in (first, other, third)] == [0] * 3
    rows = guardrails("costs", "--by", "session")["rows"]
    counted = {row["session_id"]: row["tool_calls"] for row in rows}
    assert (counted.pop("env"), counted.pop("bag")) == (2, 2)
    assert list(counted.values()) == [1]
    by_customer = guardrails("costs", "--by", "customer")["rows"]
    calls_of = {row["customer_id"]: row["tool_calls"] for row in by_customer}
    assert calls_of["acme"] == 2


def test_observing_records_and_refuses_nothing(
    proxied: Run, configured: Run, guardrails: Run, tmp_path: Path
) -> None:
    configured(f"mode: observe\n{LIMITED}")
    count = tmp_path / "count"
    host = proxied(*scripted("serve"), COUNT_FILE=str(count))

    answers = [host.ask(call(n, arguments={"n": n})) for n in range(6)]

    assert not any(is_refused(answer) for answer in answers)
    assert served(count) == 6
    assert host.end() == 0
    assert guardrails("costs", "--by", "tool")["tool_calls"] == 6


def test_sampling_is_counted_and_refused_with_the_code_of_a_rejection(
    proxied: Run, configured: Run, guardrails: Run
) -> None:
    configured("defaults: {session: {max_model_calls: 1}, on_unpriced: allow}\n")
    host = proxied(*scripted("serve"))

    asked = host.ask(call(1, "sample", {"model": "m", "n": 1}))
    assert asked["method"] == "sampling/createMessage"
    host.ask(line({"jsonrpc": "2.0", "id": 1, "result": {"model": "m"}}))
    refused = host.ask(call(2, "sample", {"model": "m", "n": 2}))

    reply = json.loads(refused["result"]["content"][0]["text"])
    assert (reply["id"], reply["error"]["code"]) == (2, -1)
    assert "guardrails refused it" in reply["error"]["message"]
    assert host.end() == 0
    assert guardrails("costs", "--by", "model")["model_calls"] == 1


def test_costs_agree_with_what_the_servers_have_served(
    proxied: Run, guardrails: Run, tmp_path: Path
) -> None:
    counts = [tmp_path / str(number) for number in range(2)]
    hosts = [proxied(*scripted("serve"), COUNT_FILE=str(path)) for path in counts]
    tools = ("echo", "fail", "big")

    def work(host: Host) -> None:
        for number in range(30):
            host.ask(call(number, tools[number % 3], {"bytes": 9, "n": number}))

    workers = [threading.Thread(target=work, args=(host,)) for host in hosts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [host.end() for host in hosts] == [0, 0]
    spent = guardrails("costs", "--by", "tool")
    counted = {row["tool"]: row["tool_calls"] for row in spent["rows"]}
    reached = b"".join(path.read_bytes() for path in counts).decode().split()
    assert counted == {f"srv/{tool}": reached.count(tool) for tool in tools}
    assert sum(counted.values()) == 60
    assert spent["failed_calls"] == 20
