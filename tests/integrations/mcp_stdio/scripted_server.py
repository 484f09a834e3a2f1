"""An MCP server that does as it is told; run as a script, and needs nothing.

`serve` answers what a polite server does; every other mode is a fault or a way to end.
Each tool call that reaches it adds a line to the file that COUNT_FILE names.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OUT = sys.stdout.buffer
ARGUMENTS = sys.argv[2:]


def put(data: bytes) -> None:
    OUT.write(data)
    OUT.flush()


def say(message: object) -> None:
    put(json.dumps(message).encode() + b"\n")


def answer(key: object, result: object) -> None:
    say({"jsonrpc": "2.0", "id": key, "result": result})


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}], **more}


def messages() -> Iterator[Any]:
    for line in sys.stdin.buffer:
        try:
            value = json.loads(line)
        except RecursionError:  # Only the host's pings are as deep.
            value = {"id": "deep", "method": "ping"}
        yield from value if isinstance(value, list) else [value]


def count(message: Any) -> None:
    path = os.environ.get("COUNT_FILE")
    if path:
        with Path(path).open("ab", buffering=0) as file:
            file.write(message["params"]["name"].encode() + b"\n")


def serve(tool: "Callable[[Any, Any], None] | None" = None) -> None:
    """Answers everything until the end of the input."""
    for message in messages():
        method, key = message.get("method"), message.get("id")
        if method == "tools/call":
            count(message)
            (tool or use)(key, message["params"])
        elif method == "initialize":
            version = message["params"]["protocolVersion"]
            info = {"name": "scripted", "version": "1"}
            capabilities: dict[str, Any] = {"tools": {}}
            answer(
                key,
                {
                    "protocolVersion": version,
                    "capabilities": capabilities,
                    "serverInfo": info,
                },
            )
        elif method == "tools/list":
            answer(key, {"tools": [{"name": "echo", "inputSchema": {}}]})
        elif key is not None and method is not None:
            answer(key, {})


def use(key: object, params: Any) -> None:
    """Runs a tool."""
    name, arguments = params["name"], params.get("arguments") or {}
    if name == "fail":
        answer(key, text("it failed", isError=True))
    elif name == "big":
        answer(key, text("x" * int(arguments["bytes"])))
    elif name == "hang":
        return
    elif name == "die":
        os.kill(os.getpid(), int(arguments["signal"]))
    elif name == "exit":
        os._exit(int(arguments["code"]))
    elif name == "sleep":
        time.sleep(float(arguments["seconds"]))
        answer(key, text("slept"))
    elif name == "environment":
        answer(key, text(json.dumps(dict(os.environ))))
    elif name == "progress":
        progress(key, params["_meta"]["progressToken"], int(arguments["count"]))
    elif name == "sample":
        sample(key, arguments)
    elif name in FAULTS:
        FAULTS[name](key, arguments)
    else:
        answer(key, text(json.dumps(arguments)))


def progress(key: object, token: object, steps: int) -> None:
    """Writes all progress and the answer in one piece."""
    notes = [
        {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {"progressToken": token, "progress": step, "total": steps},
        }
        for step in range(steps)
    ]
    result = {"jsonrpc": "2.0", "id": key, "result": text("done")}
    put(b"".join(json.dumps(one).encode() + b"\n" for one in [*notes, result]))


def sample(key: object, arguments: Any) -> None:
    """Asks the host's model under the id of the host's own request."""
    say(
        {
            "jsonrpc": "2.0",
            "id": key,
            "method": "sampling/createMessage",
            "params": {
                "maxTokens": 10,
                "messages": [],
                "modelPreferences": {"hints": [{"name": arguments.get("model")}]},
            },
        }
    )
    reply = json.loads(sys.stdin.buffer.readline())
    answer(key, text(json.dumps(reply)))


# --- faults, in the answer to a call ------------------------------------------


def answers_twice(key: object, _: Any) -> None:
    answer(key, text("once"))
    answer(key, text("twice"))


def answers_what_nobody_asked(key: object, _: Any) -> None:
    for unknown in (-1, "1", 1.5, None, 10**40, [key], {"id": key}, True):
        answer(unknown, text("?"))
    answer(key, text("at last"))


def answers_before_it_is_asked(key: object, _: Any) -> None:
    assert isinstance(key, int)
    answer(key + 1, text("too early"))
    answer(key, text("done"))


def has_wrong_types(key: object, _: Any) -> None:
    for message in (
        [],
        0,
        None,
        True,
        "tools/call",
        [[], 1, {"id": [], "result": 1}],
        {"jsonrpc": 2, "method": 7, "params": "?"},
        {"method": {"a": 1}, "id": {}, "result": []},
        {"id": "x", "error": "no object"},
        {"id": "x", "error": {"code": "x", "message": 1}},
        {"method": "notifications/progress", "params": [1]},
        {"method": "notifications/progress", "params": {"progressToken": {}}},
    ):
        say(message)
    answer(key, ["no", "object", {"isError": "yes", "_meta": 5}])


def samples_with_wrong_types(key: object, _: Any) -> None:
    """Asks the host's model in ways that no specification allows."""
    for number, params in enumerate(
        (
            None,
            [],
            "?",
            {"maxTokens": -5},
            {"maxTokens": 10**30},
            {"maxTokens": True},
            {"maxTokens": "10", "modelPreferences": {"hints": [{"name": {}}, 7]}},
            {"modelPreferences": [], "_meta": 1},
        )
    ):
        say({"id": f"s{number}", "method": "sampling/createMessage", "params": params})
    answer(key, text("done"))


def is_deep(key: object, _: Any) -> None:
    depth = 50_000
    put(b'{"jsonrpc":"2.0","method":"notifications/message","params":')
    put(b"[" * depth + b"]" * depth + b"}\n")
    put(b'{"jsonrpc":"2.0","id":%d,"result":' % key)
    put(b"[" * depth + b"]" * depth + b"}\n")


def has_escapes(key: object, _: Any) -> None:
    put(b"\x1b[2J\x1b]0;title\x07\x00\r no JSON\n")
    answer(key, text("\x1b[31mred\x1b[0m\u202e\u2028"))


def is_no_text(key: object, _: Any) -> None:
    """Splits characters and bytes that are none, one byte at a time."""
    line = b'{"jsonrpc":"2.0","id":%d,"result":{"a":"\xff\xc3\x28' % key
    for byte in line + "é€😀".encode() + b'\xf0\x9f"}}\n':
        os.write(1, bytes([byte]))


def floods(key: object, arguments: Any) -> None:
    note = (
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"x":"%b"}}\n'
        % (b"x" * 200)
    )
    block = note * (2**18 // len(note))
    for _ in range(int(arguments["bytes"]) // len(block)):
        put(block)
    answer(key, text("done"))


def is_huge(key: object, arguments: Any) -> None:
    """Has a result of any size, and its id at one of its ends."""
    head, tail = b'{"jsonrpc":"2.0","id":%d,"result":{"x":"' % key, b'"}}\n'
    if arguments.get("id_comes_last"):
        head, tail = b'{"result":{"x":"', b'"},"jsonrpc":"2.0","id":%d}\n' % key
    block = b"x" * 2**20
    put(head)
    for _ in range(int(arguments["bytes"]) // len(block)):
        put(block)
    put(tail)


def asks_at_length(key: object, arguments: Any) -> None:
    """Sends the host a notification and a request of any size, then its answer."""
    block = b"x" * 2**20
    for head in (b'"method":"m"', b'"id":%d,"method":"ping"' % key):
        put(b'{"jsonrpc":"2.0",%b,"params":{"x":"' % head)
        for _ in range(int(arguments["bytes"]) // len(block)):
            put(block)
        put(b'"}}\n')
    reply = sys.stdin.buffer.readline()
    answer(key, text(reply.decode()))


def reads_no_more(key: object, _: Any) -> None:
    os.close(0)
    answer(key, text("closed"))
    while True:
        time.sleep(0.05)
        say({"jsonrpc": "2.0", "method": "notifications/message"})


def writes_no_more(key: object, _: Any) -> None:
    answer(key, text("closed"))
    os.close(1)
    os.read(0, 1)
    os._exit(9)


def ends_in_the_middle(key: object, _: Any) -> None:
    put(b'{"jsonrpc":"2.0","id":%d,"resu' % key)
    os._exit(8)


def leaves_a_writer(key: object, _: Any) -> None:
    """Ends, and what it has started goes on to write for a moment."""
    if os.fork() == 0:
        while os.getppid() == SELF:
            time.sleep(0.01)
        answer(key, text("from the grave"))
        os._exit(0)
    os._exit(6)


def samples_without_reading(key: object, _: Any) -> None:
    """Asks the host's model without end, and reads no answer."""
    request = b'{"jsonrpc":"2.0","id":%d,"method":"sampling/createMessage"}\n'
    put(b"".join(request % number for number in range(3_000)))
    answer(key, text("done"))
    signal.pause()


SELF = os.getpid()
FAULTS: dict[str, Callable[[Any, Any], None]] = {
    fault.__name__: fault
    for fault in (
        answers_twice,
        answers_what_nobody_asked,
        answers_before_it_is_asked,
        has_wrong_types,
        samples_with_wrong_types,
        is_deep,
        has_escapes,
        is_no_text,
        floods,
        is_huge,
        asks_at_length,
        reads_no_more,
        writes_no_more,
        ends_in_the_middle,
        leaves_a_writer,
        samples_without_reading,
    )
}


# --- ways to write -----------------------------------------------------------


def tap() -> None:
    """Keeps what it reads in one file, and writes what another holds, in pieces."""
    taken, given, chunk_bytes = ARGUMENTS[0], ARGUMENTS[1], int(ARGUMENTS[2])

    def write() -> None:
        with Path(given).open("rb") as file:
            while chunk := file.read(chunk_bytes):
                os.write(1, chunk)

    writer = threading.Thread(target=write)
    writer.start()
    with Path(taken).open("wb", buffering=0) as file:
        while chunk := os.read(0, 65_536):
            file.write(chunk)
    writer.join()


def echo() -> None:
    """Writes back what it reads."""
    while chunk := os.read(0, 65_536):
        view = memoryview(chunk)
        while view:
            view = view[os.write(1, view) :]


# --- ways to end -------------------------------------------------------------


def exits() -> None:
    os._exit(int(ARGUMENTS[0]))


def exits_at_eof() -> None:
    serve()
    sys.stderr.write("the last words\n")
    os._exit(int(ARGUMENTS[0]))


def stubborn() -> None:
    """Ignores signals and the end of its input."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    serve()
    while True:
        signal.pause()


def never_answers() -> None:
    for _ in messages():
        pass


def exits_when_initialized() -> None:
    sys.stdin.buffer.readline()
    os._exit(int(ARGUMENTS[0]))


def endless_line() -> None:
    """Writes one line, and no end of it."""
    block = b"x" * 2**20
    for _ in range(int(ARGUMENTS[0]) // len(block)):
        put(block)
    sys.stdin.buffer.read()


def reads_nothing() -> None:
    """Reads nothing, and does not end by itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def parent(*, is_detached: bool = False) -> None:
    """Is a wrapper such as npx: starts a stubborn server, and waits for it."""
    child = os.fork()
    if not child:
        if is_detached:
            os.setsid()
        stubborn()
    os.waitpid(child, 0)


def detached() -> None:
    parent(is_detached=True)


def daemon() -> None:
    """Leaves a process that has detached itself, and exits at the end of its input."""
    if not os.fork():
        os.setsid()
        os.closerange(0, 3)
        while True:
            signal.pause()
    serve()


def litters() -> None:
    """Starts processes that end at once, and buries none of them."""
    for _ in range(20):
        if not os.fork():
            if not os.fork():
                os._exit(0)
            os._exit(0)
    serve()


def last_words() -> None:
    """Writes a lot, says so in a file and exits at once."""
    put(b'{"jsonrpc":"2.0","method":"notifications/message"}\n' * int(ARGUMENTS[0]))
    Path(ARGUMENTS[1]).touch()
    os._exit(0)


MODES: dict[str, Callable[[], None]] = {
    mode.__name__: mode
    for mode in (
        serve,
        tap,
        echo,
        exits,
        exits_at_eof,
        exits_when_initialized,
        never_answers,
        endless_line,
        reads_nothing,
        stubborn,
        parent,
        detached,
        daemon,
        litters,
        last_words,
    )
}

if __name__ == "__main__":
    MODES[sys.argv[1]]()
