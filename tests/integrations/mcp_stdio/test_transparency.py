"""Bytes pass the proxy as they came, in both directions."""

import contextlib
import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integrations.mcp_stdio.conftest import Run
from tests.integrations.mcp_stdio.hosts import (
    WAIT_SECONDS,
    WRAP,
    Host,
    call,
    clean_environment,
    line,
    marked,
    request,
    scripted,
)
from tests.servers.waiting import until

ODD = (
    b"no JSON at all\n",
    b"\n",
    b"   \n",
    b"\r\n",
    b'{"jsonrpc":"2.0","id":1,"method":"ping"}\r\n',
    b'\xef\xbb\xbf{"jsonrpc":"2.0","id":2,"method":"ping"}\n',
    b'{"jsonrpc":"2.0","id":3,"method":"x","params":"\xff\xfe\xc3"}\n',
    '{"jsonrpc":"2.0","id":"é€😀","method":"ping"}\n'.encode(),
    b'[{"jsonrpc":"2.0","id":4,"method":"ping"},{"jsonrpc":"2.0","id":5}]\n',
    b"[]\n",
    b'{"jsonrpc":"2.0","id":6,"result":{"x":NaN,"y":-Infinity,"z":1e999}}\n',
    b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % 10**400,
    b'{"id":7,"id":8,"method":"a","method":"b","jsonrpc":"2.0"}\n',
    b'{"jsonrpc":"2.0","id":9,"method":"x","params":{"s":"\\ud800\\udfff\\udc00"}}\n',
    b'{ "jsonrpc" : "2.0" , "id" : 1.50e0 , "method" : "ping" }\n',
    b"\x00\x01\x1b[31m\n",
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"\\u2028"}}\n',
    b"null\n",
    b"tail without an end",
)

CALLS = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","x":NaN}}\n',
    b'{"id":%d,"params":{"name":"t"},"method":"tools/call"}\r\n' % 10**30,
    b'{"id":"\\ud83d","method":"tools\\/call","params":{"name":"a","x":1,"x":2}}\n',
    b'\xef\xbb\xbf {"id":2,"method":"tools/call","params":{"name":"\xff"}}\n',
    b'[ {"id":3,"method":"tools/call","params":{"name":"t"}} ,{"id":4}]\n',
    b'{"method":"tools/call","params":{"name":"t"}}\n',
    b'{"id":5,"method":"tools/call"}\n',
    b'{"id":6,"method":"tools/call","params":[1,2]}\n',
    b'{"id":7,"method":"tools\\u002fcall","params":{"name":7,"arguments":"s"}}\n',
    b'{"method":"notifications/cancelled","params":{"requestId":1}}\n',
)
"""Tool calls as nobody writes them, each of which is admitted."""


@pytest.fixture
def passed(proxied: Run, tmp_path: Path) -> Run:
    """Sends bytes in both directions, in pieces, and returns what arrived."""
    taken, given = tmp_path / "taken", tmp_path / "given"

    def run(
        to_server: bytes, to_host: bytes, *, chunk_bytes: int = 65_536
    ) -> tuple[bytes, bytes]:
        given.write_bytes(to_host)
        host = proxied(*scripted("tap", taken, given, chunk_bytes))
        host.send(to_server, chunk_bytes=chunk_bytes)
        assert host.end() == 0, host.err
        return taken.read_bytes(), host.out

    return run


@pytest.mark.parametrize("chunk_bytes", [1, 65_536])
def test_passes_odd_lines_as_they_came(passed: Run, chunk_bytes: int) -> None:
    odd = b"".join(ODD)

    arrived = passed(b"".join(CALLS) + odd, odd, chunk_bytes=chunk_bytes)

    assert arrived == (b"".join(CALLS) + odd, odd)


def test_passes_messages_of_ten_megabytes(passed: Run) -> None:
    long = call(1, arguments={"text": "x" * 10 * 2**20})
    answer = line({"jsonrpc": "2.0", "id": 1, "result": {"text": "y" * 10 * 2**20}})
    other = b'{"id":2,"method":"ping","x":"%b"}\n' % ("é" * 5 * 2**20).encode()

    assert passed(long + other, answer + answer) == (long + other, answer + answer)


def test_passes_a_hundred_calls_that_nobody_waited_for(proxied: Run) -> None:
    host = proxied(*scripted("serve"))

    host.send(b"".join(call(key, arguments={"n": key}) for key in range(100)))

    answers = [host.next() for _ in range(100)]
    assert [one["id"] for one in answers] == list(range(100))
    assert host.end() == 0


def test_answers_do_not_wait_for_a_call_that_hangs(proxied: Run) -> None:
    host = proxied(*scripted("serve"))

    host.send(call(1, "hang"))

    assert host.ask(call(2))["id"] == 2
    host.send(line({"method": "notifications/cancelled", "params": {"requestId": 1}}))
    assert host.ask(request(3, "ping"))["id"] == 3


def test_an_answer_waits_until_the_progress_before_it_is_read(proxied: Run) -> None:
    host = proxied(*scripted("serve"), options={"reads": False})
    host.keeps_chunks = True

    host.send(call(1, "progress", {"count": 150}, _meta={"progressToken": "p"}))
    until(host.unread_bytes, "progress")
    time.sleep(0.03)  # A host that is busy. In real time the answer is there, too.
    host.read()

    messages = [host.next() for _ in range(151)]
    assert [one["params"]["progress"] for one in messages[:150]] == list(range(150))
    assert messages[150]["id"] == 1
    assert b"notifications/progress" not in host.chunks[-1][1]


def test_a_servers_request_may_have_the_id_of_a_hosts(
    proxied: Run, guardrails: Run
) -> None:
    host = proxied(*scripted("serve"))

    asked = host.ask(call(1, "sample"))
    assert (asked["id"], asked["method"]) == (1, "sampling/createMessage")
    reply = {"jsonrpc": "2.0", "id": 1, "result": {"model": "m", "content": {}}}
    answer = host.ask(line(reply))

    assert json.loads(answer["result"]["content"][0]["text"]) == reply
    assert host.end() == 0
    counted = guardrails("costs", "--by", "session")
    assert counted["tool_calls"] == counted["model_calls"] == 1


def test_standard_error_is_the_servers_own(proxied: Run) -> None:
    host = proxied(*scripted("exits_at_eof", 0))

    host.end()

    assert host.err == "the last words\n"


@pytest.mark.parametrize("code", [0, 3])
def test_exits_with_the_servers_code(proxied: Run, code: int) -> None:
    assert proxied(*scripted("exits", code)).wait() == code
    assert proxied(*scripted("exits_at_eof", code)).end() == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_dies_of_the_servers_signal(proxied: Run, number: int) -> None:
    host = proxied(*scripted("serve"))

    host.send(call(1, "die", {"signal": int(number)}))

    assert host.wait() == -number


@pytest.mark.parametrize(
    "meanwhile",
    [lambda host: None, Host.close_input, lambda host: host.send(request(1, "ping"))],
    ids=["waits", "closes its input", "writes to nobody"],
)
def test_all_that_the_server_wrote_arrives_however_slow_its_host_is(
    proxied: Run, tmp_path: Path, meanwhile: Callable[[Host], None]
) -> None:
    count, path = 2_000, tmp_path / "written"
    host = proxied(*scripted("last_words", count, path), options={"reads": False})
    until(lambda: path.exists() and len(marked(host.mark)) == 2, "the server's end")

    meanwhile(host)
    with contextlib.suppress(subprocess.TimeoutExpired):
        host.process.wait(1.0)  # Nothing is read yet: it must wait for that.
    host.read()

    assert host.wait() == 0
    assert host.out.count(b"\n") == count


def test_a_signal_ends_it_although_its_host_reads_no_more(proxied: Run) -> None:
    host = proxied(*scripted("serve"), options={"reads": False})
    host.send(call(1, "big", {"bytes": 1_000_000}))
    until(lambda: host.unread_bytes() >= 65_536, "a full pipe")

    host.process.terminate()

    assert host.process.wait(WAIT_SECONDS) == -signal.SIGTERM


def test_a_missing_command_is_said_in_one_line(proxied: Run) -> None:
    host = proxied("no-such-command-anywhere")

    assert host.wait() == 127
    assert host.err.count("\n") == 1
    assert "no-such-command-anywhere" in host.err
    assert host.out == b""


def test_a_command_that_cannot_run_is_said_in_one_line(
    proxied: Run, tmp_path: Path
) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("text", encoding="utf-8")
    path.chmod(stat.S_IRUSR)

    host = proxied(str(path))

    assert host.wait() == 126
    assert host.err.count("\n") == 1


@pytest.mark.parametrize(
    "dashes", [[], ["--"], ["--server", "x"], ["--server=x", "--"]]
)
def test_two_dashes_may_be_missing(direct: Run, dashes: list[str]) -> None:
    assert direct(*WRAP, *dashes, *scripted("exits", 5)).wait() == 5


def test_options_after_the_command_are_the_servers(direct: Run) -> None:
    shown = [sys.executable, "-c", "import sys; print(sys.argv[1:])"]

    host = direct(*WRAP, *shown, "--server", "a", "--", "--help")

    assert host.wait() == 0
    assert host.out == b"['--server', 'a', '--', '--help']\n"


def test_no_command_is_a_mistake_in_usage(direct: Run) -> None:
    host = direct(*WRAP, "--")

    assert host.wait() == 2
    assert "which server" in host.err
    assert host.out == b""


def test_a_bad_configuration_ends_the_server(proxied: Run, configured: Run) -> None:
    configured("defaults: {session: {max_stepz: 3}}\n")

    host = proxied(*scripted("serve"))

    assert host.wait() == 2
    assert "max_steps" in host.err
    assert "Traceback" not in host.err


def test_a_store_that_cannot_be_opened_ends_the_server(
    proxied: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    host = proxied(
        *scripted("serve"), GUARDRAILS_STORE=f"sqlite:///{tmp_path}/file/ledger"
    )

    assert host.wait() == 4, host.err
    assert "Traceback" not in host.err


def test_the_server_does_not_learn_our_secrets(proxied: Run) -> None:
    host = proxied(
        *scripted("serve"),
        GUARDRAILS_CUSTOMER_ID="acme",
        GUARDRAILS_SLACK_WEBHOOK_URL="https://hooks.slack.com/services/T0/B0/secret",
        GUARDRAILS_WEBHOOK_URL="https://alerts.example.org/secret",
        GUARDRAILS_WEBHOOK_SECRET=f"whsec_{'secretsecret' * 4}",
        GUARDRAILS_ANYTHING_NEW="secret",
        MCPSPEND_API_KEY="secret",
        MCPSPEND_PROJECT_ID="p",
        SERVERS_OWN="kept",
    )

    answer = host.ask(call(1, "environment"))

    seen = json.loads(answer["result"]["content"][0]["text"])
    assert not [name for name, value in seen.items() if "secret" in value]
    assert "GUARDRAILS_STORE" not in seen
    kept = {"GUARDRAILS_CUSTOMER_ID", "MCPSPEND_PROJECT_ID", "SERVERS_OWN"}
    assert kept <= seen.keys()


def test_modules_of_the_server_are_not_taken_for_ours(
    proxied: Run, tmp_path: Path
) -> None:
    """Clients give a server in Python its `PYTHONPATH`, which ours reads, too."""
    for module in ("queue", "yaml", "pydantic"):
        (tmp_path / f"{module}.py").write_text("raise ImportError\n", encoding="utf-8")
    host = proxied(*scripted("serve"), PYTHONPATH=str(tmp_path))

    answer = host.ask(call(1, "environment"))

    seen = json.loads(answer["result"]["content"][0]["text"])
    assert seen["PYTHONPATH"] == str(tmp_path)


def test_the_server_inherits_what_its_host_has_opened_for_it(
    proxied: Run, tmp_path: Path
) -> None:
    path = tmp_path / "opened"
    with path.open("wb") as file:
        fd = file.fileno()
        shown = f"import os; os.write({fd}, b'written')"
        host = proxied(sys.executable, "-c", shown, options={"pass_fds": [fd]})
        assert host.wait() == 0, host.err

    assert path.read_bytes() == b"written"


@pytest.mark.parametrize("closed", [(0,), (0, 1), (2,)])
def test_what_its_host_has_closed_is_empty(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """What is opened next has the place of what is closed, and is not the host's."""
    shown = "import sys; sys.stdin.read(); sys.exit(9)"
    places = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    done = subprocess.run(
        ["sh", "-c", f'"$@" {places}', "sh", *WRAP, "--", sys.executable, "-c", shown],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=clean_environment(tmp_path),
        timeout=50,
    )

    assert (done.returncode, done.stdout, done.stderr) == (9, b"", b"")


def test_a_signal_that_the_host_ignores_is_ignored(proxied: Run) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    host = proxied(*scripted("serve"), options={"preexec_fn": ignore})
    assert host.ask(call(1))["id"] == 1

    host.process.send_signal(signal.SIGHUP)

    assert host.ask(call(2))["id"] == 2


def test_what_we_print_by_mistake_is_no_protocol(direct: Run) -> None:
    stray = (
        "import os, sys\n"
        "from guardrails_mcp.stdio import metering\n"
        "begin = metering.GuardMeter.open_tool\n"
        "def noisy(*arguments):\n"
        "    print('stray'); sys.__stdout__.flush(); os.write(1, b'stray')\n"
        "    return begin(*arguments)\n"
        "metering.GuardMeter.open_tool = noisy\n"
        "from guardrails.cli import main; main()"
    )

    host = direct(sys.executable, "-c", stray, "wrap", *scripted("serve"))

    assert host.ask(call(1))["id"] == 1
    assert host.end() == 0
    assert host.out.count(b"\n") == 1
    assert "stray" in host.err


def test_the_server_is_started_before_anything_slow_is_imported(
    direct: Run, tmp_path: Path
) -> None:
    path = tmp_path / "started"
    first = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    slow = (
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('asyncio', 'guardrails.core', 'guardrails.guard'):\n"
        "            time.sleep(600)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from guardrails.cli import main; main()"
    )

    direct(sys.executable, "-c", slow, "wrap", sys.executable, "-c", first, str(path))

    until(path.exists, "the server")
