"""What the stdio proxy adds to a call of an MCP server, beside what others add.

The same small server is spoken to directly, between two `cat`, through the proxy with
requests that it only relays, and through it with calls that it meters, on SQLite and on
Redis. All take turns, so a busy moment of the machine hits all of them.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.measuring import line
from tests.servers.processes import Server, binaries

__all__ = ["measure_mcp_proxy"]

ROUNDS = 5
CALLS = 200
IN_FLIGHT = 32
PIPELINED = 640
LONG_BYTES = 10_000_000
"""Just below what the official SDK for TypeScript reads in one message."""
STARTS = 5

NODE_SERVER = Path(sys.prefix) / "node/node_modules/.bin/mcp-server-everything"

SERVER = r"""
import sys
write, flush = sys.stdout.buffer.write, sys.stdout.buffer.flush
for line in sys.stdin.buffer:
    key = line[line.index(b'"id":') + 5 : line.index(b',"method"')]
    text = b"x" * (len(line) - 200) if len(line) > 1000 else b"ok"
    write(b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text",' % key)
    write(b'"text":"%b"}]}}\n' % text)
    flush()
"""
"""Stands in for the real one where there is no Node.js. It does nothing at all, so
that every ratio to it is large."""

WRAP = [sys.executable, "-c", "from guardrails.cli import main; main()", "wrap", "--"]

OTHERS = {
    "mcp-proxy": ["mcp-proxy", "--"],
    "agentguard-mcp": ["agentguard-mcp", "--"],
    "agentbelay": ["agentbelay", "--"],
}
"""Other proxies, measured where they are installed."""


class Speaker:
    """One way to the server.

    Args:
        command: What to start.
        environ: What its environment has beside this one's.
        method: What is asked for: `ping` is relayed, `tools/call` metered.
    """

    def __init__(
        self, command: list[str], environ: Mapping[str, str], *, method: str
    ) -> None:
        started = time.perf_counter()
        self._keys = count(1)
        self._method = method
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environ},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.ask("ping")
        self.start_ms = (time.perf_counter() - started) * 1e3

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in.close()
        self._process.wait()
        self._out.close()

    def ask(self, method: str | None = None, text: str = "") -> float:
        """Makes a call and returns its microseconds."""
        data = self._request(method or self._method, text)
        start = time.perf_counter_ns()
        self._in.write(data)
        self._in.flush()
        assert b'"result"' in self._out.readline()
        return (time.perf_counter_ns() - start) / 1e3

    def pipelined(self) -> float:
        """Returns how many calls a second are answered with some in flight."""
        requests = [self._request(self._method) for _ in range(PIPELINED)]
        start = time.perf_counter()
        for number, request in enumerate(requests):
            self._in.write(request)
            self._in.flush()
            if number >= IN_FLIGHT:
                self._out.readline()
        for _ in range(IN_FLIGHT):
            self._out.readline()
        return PIPELINED / (time.perf_counter() - start)

    def _request(self, method: str, text: str = "") -> bytes:
        key = next(self._keys)
        arguments = {"message": text or str(key)}
        params = {"name": "echo", "arguments": arguments} if method[0] == "t" else {}
        message = {"jsonrpc": "2.0", "id": key, "method": method, "params": params}
        return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def measure_mcp_proxy() -> Iterator[str]:
    """Measures every way to the server against the direct one."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ways = _ways(_server(Path(folder)), Path(folder), stack)
        speakers = {
            name: stack.enter_context(Speaker(command, environ, method=method))
            for name, (command, environ, method) in ways.items()
        }
        starts = {name: [one.start_ms] for name, one in speakers.items()}
        for _ in range(STARTS - 1):
            for name, (command, environ, method) in ways.items():
                with Speaker(command, environ, method=method) as started:
                    starts[name].append(started.start_ms)
        yield from _lines(speakers, starts)


def _server(folder: Path) -> list[str]:
    if NODE_SERVER.exists() and shutil.which("node"):
        return [str(NODE_SERVER)]
    path = folder / "server.py"
    path.write_text(SERVER, encoding="utf-8")
    return [sys.executable, "-IS", str(path)]


def _ways(
    server: list[str], folder: Path, stack: ExitStack
) -> dict[str, tuple[list[str], dict[str, str], str]]:
    # No loops: the calls are all alike. No limits: what is measured is the ledger.
    config = folder / "guardrails.yaml"
    config.write_text("defaults: {loop: {exempt: ['*']}}\n", encoding="utf-8")
    ours = {
        "GUARDRAILS_CONFIG": str(config),
        "GUARDRAILS_STORE": f"sqlite:///{folder}/ledger.sqlite3",
    }
    cat = ["sh", "-c", f"cat | {' '.join(server)} | cat"]
    ways = {
        "direct": (server, {}, "tools/call"),
        "direct, a ping": (server, {}, "ping"),
        "cat | server | cat": (cat, {}, "tools/call"),
        "proxy, a ping": (WRAP + server, ours, "ping"),
        "proxy, SQLite": (WRAP + server, ours, "tools/call"),
    }
    for kind, binary in list(binaries().items())[:1]:
        redis = stack.enter_context(Server(binary))
        environ = ours | {"GUARDRAILS_STORE": redis.unix_url}
        ways[f"proxy, {kind}"] = (WRAP + server, environ, "tools/call")
    for name, command in OTHERS.items():
        if shutil.which(command[0]):
            ways[name] = (command + server, {}, "tools/call")
    return ways


def _lines(
    speakers: Mapping[str, Speaker], starts: Mapping[str, list[float]]
) -> Iterator[str]:
    calls: dict[str, list[list[float]]] = {name: [] for name in speakers}
    rates: dict[str, list[float]] = {name: [] for name in speakers}
    longs: dict[str, list[float]] = {name: [] for name in speakers}
    for _ in range(ROUNDS):
        for name, one in speakers.items():
            calls[name].append([one.ask() for _ in range(CALLS)])
            rates[name].append(one.pipelined())
            longs[name].append(one.ask("tools/call", "x" * LONG_BYTES) / 1e3)
    middle = {name: _percentile(each, 50) for name, each in calls.items()}
    targets = {"proxy, a ping": "+ <= 30 us", "proxy, SQLite": "+ <= 150 us"}
    for name, p50 in middle.items():
        p99 = _percentile(calls[name], 99)
        target = targets.get(name, "+ <= 250 us" if name.startswith("proxy") else "")
        direct = middle[_base(name)]
        added = f"{p50 - direct:+.0f} us, p99 {p99:.0f} us; {target}"
        yield line(
            f"MCP: {name}", f"{p50:.0f} us", f"{direct:.0f} us", p50 / direct, added
        )
    for title, figures, unit, target in (
        (f"{IN_FLIGHT} calls in flight", rates, "/s", ">= 0.75 x direct"),
        ("10 MB there and back", longs, " ms", "<= 1.3 x direct"),
        ("start to first answer", starts, " ms", "the server first"),
    ):
        for name, each in figures.items():
            base = statistics.median(figures[_base(name)])
            found = statistics.median(each)
            shown, beside = f"{found:,.0f}{unit}", f"{base:,.0f}{unit}"
            yield line(f"MCP: {title}, {name}", shown, beside, found / base, target)


def _base(name: str) -> str:
    """Returns the direct way to what this way is asked for."""
    return "direct, a ping" if name.endswith("a ping") else "direct"


def _percentile(rounds: list[list[float]], percent: int) -> float:
    """Returns the median over the rounds of a percentile of each."""
    return statistics.median(
        statistics.quantiles(each, n=100, method="inclusive")[percent - 1]
        for each in rounds
    )


if __name__ == "__main__":
    for text in measure_mcp_proxy():
        print(text)
