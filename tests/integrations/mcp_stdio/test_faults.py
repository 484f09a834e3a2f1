"""Servers that break every rule: what happens is what happens without the proxy."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.integrations.mcp_stdio.conftest import Run
from tests.integrations.mcp_stdio.hosts import (
    Host,
    call,
    children_of,
    line,
    marked,
    proxies_of,
    request,
    resident_bytes,
    scripted,
)
from tests.servers.waiting import until

MEBIBYTE = 2**20
GROWTH_BYTES_MAX = 64 * MEBIBYTE
"""What a proxy may need beside what it needs when it is idle."""

GRAVE = (
    b'{"jsonrpc": "2.0", "id": 1, "result": {"content": '
    b'[{"type": "text", "text": "from the grave"}]}}\n'
)
INITIALIZE = request(0, "initialize", protocolVersion="2025-11-25", capabilities={})

SURVIVED = (
    "answers_twice",
    "answers_what_nobody_asked",
    "answers_before_it_is_asked",
    "has_wrong_types",
    "samples_with_wrong_types",
    "is_deep",
    "has_escapes",
    "is_no_text",
    "fail",
    "t" * MEBIBYTE,
    "\x1b[31m\u202e\x00\n/../..",
    "",
)
"""Tools that answer in odd ways, and names that are odd."""


def talk(host: Host) -> bytes:
    """Calls all tools, each once the one before is answered, and returns it all."""
    for number, tool in enumerate(SURVIVED):
        host.send(call(10 * number, tool) + request("end", "ping"))
        until(lambda n=number: host.out.count(b'"id": "end"') > n, f"{tool[:80]!r}")
    deep = b"[" * 50_000 + b"]" * 50_000
    host.send(b'{"id":"deep","method":"ping","params":%b}\n' % deep)
    host.send(request("end", "ping"))
    until(lambda: host.out.count(b'"id": "deep"') == 1, "an answer")
    assert host.end() == 0, host.err
    return host.out


def test_faulty_answers_arrive_as_they_are(
    direct: Run, proxied: Run, guardrails: Run, balance: Run
) -> None:
    expected = talk(direct(*scripted("serve")))

    arrived = talk(proxied(*scripted("serve")))

    assert arrived == expected
    spent = guardrails("costs", "--by", "tool", "--limit", "0")
    assert spent["tool_calls"] == len(SURVIVED)
    names = [row["tool"] for row in spent["rows"] if row["tool"]]
    assert max(map(len, names)) < 1_000
    assert not any(set(name) & set("\x1b\x00\n") for name in names)
    assert balance() == "ok"


def test_a_call_that_is_too_deep_to_be_read_is_refused_and_the_session_goes_on(
    proxied: Run, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    host = proxied(*scripted("serve"), COUNT_FILE=str(count))
    deep = b"[" * 50_000 + b"]" * 50_000

    refused = host.ask(
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo",'
        b'"arguments":{"x":%b}}}\n' % deep
    )

    assert refused["id"] == 7
    assert host.ask(call(8))["id"] == 8
    assert count.read_bytes() == b"echo\n"


@pytest.mark.parametrize("id_comes_last", [False, True])
def test_an_answer_that_is_too_long_ends_its_call_and_not_the_session(
    proxied: Run, guardrails: Run, id_comes_last: bool
) -> None:
    host = proxied(*scripted("serve"))
    host.ask(call(1))
    idle_bytes = resident_bytes(proxies_of(host))

    size_bytes = 256 * MEBIBYTE
    arguments = {"bytes": size_bytes, "id_comes_last": id_comes_last}
    host.send(call(2, "hang"))
    answer = host.ask(call(3, "is_huge", arguments))

    grown_bytes = resident_bytes(proxies_of(host), is_peak=True) - idle_bytes
    assert answer["id"] == 3
    assert answer["result"]["isError"] is True
    assert "GUARDRAILS_MAX_LINE_BYTES" in answer["result"]["content"][0]["text"]
    assert host.ask(call(4))["id"] == 4
    assert grown_bytes < GROWTH_BYTES_MAX
    assert host.end() == 0
    assert guardrails("costs", "--by", "tool")["tool_calls"] == 4


def test_a_request_that_is_too_long_ends_its_call_and_not_the_session(
    proxied: Run, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    host = proxied(
        *scripted("serve"), COUNT_FILE=str(count), GUARDRAILS_MAX_LINE_BYTES="100000"
    )

    too_long = host.ask(call(1, arguments={"x": "x" * 100_000}))
    other = host.ask(request(2, "ping", x="x" * 300_000))
    fits = host.ask(call(3, arguments={"x": "x" * 90_000}))

    assert (too_long["id"], too_long["result"]["isError"]) == (1, True)
    assert (other["id"], "error" in other) == (2, True)
    assert (fits["id"], "isError" in fits["result"]) == (3, False)
    assert count.read_bytes() == b"echo\n"


def test_what_is_too_long_and_no_answer_ends_no_call(proxied: Run) -> None:
    host = proxied(*scripted("serve"), GUARDRAILS_MAX_LINE_BYTES="100000")

    answer = host.ask(call(1, "asks_at_length", {"bytes": MEBIBYTE}))

    assert answer["id"] == 1
    refused = json.loads(answer["result"]["content"][0]["text"])
    assert (refused["id"], "error" in refused) == (1, True)
    assert host.ask(call(2))["id"] == 2


def test_memory_stays_bounded_whatever_passes(proxied: Run) -> None:
    host = proxied(*scripted("serve"))
    host.ask(call(1))
    pids = proxies_of(host)
    idle_bytes = resident_bytes(pids)

    host.send(call(2, "floods", {"bytes": 8 * MEBIBYTE}))
    until(lambda: b'"id": 2' in host.out[-200:], "the end of the flood", seconds=40)
    host.send(call(3, "big", {"bytes": 12 * MEBIBYTE}))
    until(lambda: host.out.endswith(b"}\n") and b'"id": 3' in host.out[-(2**24) :], "3")
    host.send(call(4, "fail", {"text": "x" * 12 * MEBIBYTE}))
    until(lambda: b'"id": 4' in host.out[-200:], "an answer")

    assert resident_bytes(pids, is_peak=True) - idle_bytes < GROWTH_BYTES_MAX


def test_a_line_without_an_end_takes_no_memory(proxied: Run) -> None:
    host = proxied(*scripted("endless_line", 256 * MEBIBYTE))
    pids = proxies_of(host)
    server = next(iter(children_of(pids[1])))
    until(lambda: _is_reading(server), "the server to have written", seconds=40)

    peak_bytes = resident_bytes(pids, is_peak=True)

    assert peak_bytes < 2 * GROWTH_BYTES_MAX
    assert host.end() == 0


def _is_reading(pid: int) -> bool:
    return "pipe_read" in Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")


def test_a_server_that_never_answers_ends_with_its_host(proxied: Run) -> None:
    host = proxied(*scripted("never_answers"))

    host.send(INITIALIZE + call(1))

    assert host.end() == 0
    assert host.out == b""


@pytest.mark.parametrize(
    ("command", "sent", "code", "out"),
    [
        (scripted("exits", 7), b"", 7, b""),
        (scripted("exits_when_initialized", 5), INITIALIZE, 5, b""),
        (scripted("serve"), INITIALIZE + call(1, "exit", {"code": 4}), 4, None),
        (
            scripted("serve"),
            call(1, "ends_in_the_middle"),
            8,
            b'{"jsonrpc":"2.0","id":1,"resu',
        ),
        (
            scripted("serve"),
            call(1, "leaves_a_writer"),
            6,
            GRAVE,
        ),
    ],
    ids=["at once", "asked", "called", "in the middle", "leaving a writer"],
)
def test_a_server_may_exit_at_any_time(
    proxied: Run, command: list[str], sent: bytes, code: int, out: bytes | None
) -> None:
    host = proxied(*command)

    host.send(sent)

    assert host.wait() == code, host.err
    assert out is None or host.out == out


def test_a_server_that_reads_no_more_goes_on_writing(proxied: Run) -> None:
    host = proxied(*scripted("serve"))
    assert host.ask(call(1, "reads_no_more"))["id"] == 1

    with pytest.raises(BrokenPipeError):
        until(lambda: host.send(call(2)), "a broken pipe")

    written = len(host.out)
    at = time.monotonic()
    until(lambda: time.monotonic() > at + 3.5, "what a grace takes")
    assert len(host.out) > written
    assert host.process.poll() is None


def test_a_server_that_writes_no_more_goes_on_reading(proxied: Run) -> None:
    host = proxied(*scripted("serve"))
    host.keeps_chunks = True
    assert host.ask(call(1, "writes_no_more"))["id"] == 1

    host.send(b"x\n")

    assert host.wait() == 9


def test_refused_sampling_that_nobody_reads_blocks_nothing(
    proxied: Run, configured: Run
) -> None:
    configured("defaults: {session: {max_model_calls: 0}}\n")
    host = proxied(*scripted("serve"))
    pids = proxies_of(host)

    assert host.ask(call(1, "samples_without_reading"), seconds=40)["id"] == 1

    threads = len(list(Path(f"/proc/{pids[1]}/task").iterdir()))
    assert threads < 20


def test_no_zombies_gather_while_a_server_lives(proxied: Run) -> None:
    host = proxied(*scripted("litters"))
    host.ask(call(1))

    proxy = proxies_of(host)[1]

    until(lambda: "Z" not in children_of(proxy).values(), "the burial")
    assert len(children_of(proxy)) == 1


def test_a_daemon_that_a_server_leaves_behind_lives_on(proxied: Run) -> None:
    host = proxied(*scripted("daemon"))
    host.ask(call(1))

    assert host.end() == 0

    left = marked(host.mark)
    assert len(left) == 1
    os.kill(left[0], signal.SIGKILL)


@pytest.mark.soak
def test_an_answer_of_a_gigabyte_ends_its_call(proxied: Run) -> None:
    host = proxied(*scripted("serve"))
    host.ask(call(1))
    idle_bytes = resident_bytes(proxies_of(host))

    answer = host.ask(call(2, "is_huge", {"bytes": 2**30}), seconds=120)

    assert answer["result"]["isError"] is True
    peak_bytes = resident_bytes(proxies_of(host), is_peak=True)
    assert peak_bytes - idle_bytes < GROWTH_BYTES_MAX
    assert host.ask(line({"id": 3, "method": "ping"}))["id"] == 3
